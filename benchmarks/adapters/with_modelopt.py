"""NVIDIA ModelOpt on ONNX models: `modelopt.onnx.quantization.quantize`, on the CPU."""

from jobs import Clock, read_feeds, serve


class _Reader:
    """A calibration data reader that can start anew."""

    def __init__(self, feeds: str) -> None:
        self.feeds = feeds
        self.rewind()

    def get_next(self):
        return next(self.rest, None)

    def rewind(self) -> None:
        self.rest = read_feeds(self.feeds)

    def get_first(self):
        return next(read_feeds(self.feeds))


def static(model: str, feeds: str, output: str, threads: int, *, method: str) -> dict:
    """8 bits, symmetric, as for TensorRT.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        threads: not used; it takes no number.
        method: max or entropy.
    """
    del threads
    return _quantize(
        model,
        feeds,
        output,
        quantize_mode="int8",
        calibration_method=method,
    )


def weight_only(model: str, feeds: str, output: str, threads: int, *, method: str) -> dict:
    """4 bits in blocks of 32, MatMul only.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        threads: not used; it takes no number.
        method: rtn_dq, awq_clip or awq_lite.
    """
    del threads
    return _quantize(
        model,
        feeds,
        output,
        quantize_mode="int4",
        calibration_method=method,
        block_size=32,
    )


def _quantize(model: str, feeds: str, output: str, **settings: object) -> dict:
    clock = Clock()
    with clock.stage("import"):
        from modelopt.onnx.quantization import quantize
    with clock.stage("quantize"):
        quantize(
            model,
            output_path=output,
            calibration_data_reader=_Reader(feeds),
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            **settings,
        )
    return clock.result("quantize")


if __name__ == "__main__":
    serve(static, weight_only)
