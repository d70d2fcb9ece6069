"""Intel Neural Compressor on ONNX models, the classic interface."""

from jobs import Clock, read_feeds, serve


def static(model: str, feeds: str, output: str, threads: int, *, smooth: bool = False) -> dict:
    """8 bits with its own choice of types and operators; no tuning, which needs a figure.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        threads: not used; it takes no number.
        smooth: SmoothQuant before that.
    """
    del threads
    clock = Clock()
    with clock.stage("import"):
        from neural_compressor import PostTrainingQuantConfig, quantization

    class Loader:
        batch_size = 1

        def __iter__(self):
            return ((feed, None) for feed in read_feeds(feeds))

    with clock.stage("quantize"):
        given = PostTrainingQuantConfig(
            approach="static",
            quant_format="QDQ",
            calibration_sampling_size=[10**6],
            recipes={"smooth_quant": smooth},
        )
        made = quantization.fit(model, given, calib_dataloader=Loader())
        made.save(output)
    return clock.result("quantize")


if __name__ == "__main__":
    serve(static)
