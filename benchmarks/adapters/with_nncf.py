"""NNCF on ONNX models: `nncf.quantize` and `nncf.compress_weights`."""

from itertools import islice

from jobs import Clock, read_feeds, serve

#: With blocks as of ptq's default.
_BLOCK = 32


def static(  # noqa: PLR0913  arguments come by name
    model: str,
    feeds: str,
    output: str,
    threads: int,
    *,
    samples: int = 300,
    transformer: bool = False,
    accurate: bool = False,
) -> dict:
    """8 bits: mixed preset (asymmetric activations), and the bias correction asked for.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        threads: not used; it takes no number.
        samples: how many feeds, at most.
        transformer: say that the model is one, which adds SmoothQuant.
        accurate: the slow bias correction in place of the fast one.
    """
    del threads
    clock = Clock()
    with clock.stage("import"):
        import nncf
        import onnx
    with clock.stage("quantize"):
        made = nncf.quantize(
            onnx.load(model),
            nncf.Dataset(list(islice(read_feeds(feeds), samples))),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=samples,
            fast_bias_correction=not accurate,
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        )
        onnx.save(made, output)
    return clock.result("quantize")


def weight_only(
    model: str, feeds: str, output: str, threads: int, *, samples: int = 300, data: bool = False
) -> dict:
    """4 bits, symmetric, all layers; with data, AWQ and scale estimation.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        threads: not used; it takes no number.
        samples: how many feeds, at most.
        data: whether to look at them.
    """
    del threads
    clock = Clock()
    with clock.stage("import"):
        import nncf
        import onnx
    more = {}
    if data:
        dataset = nncf.Dataset(list(islice(read_feeds(feeds), samples)))
        more = {"dataset": dataset, "subset_size": samples, "awq": True, "scale_estimation": True}
    with clock.stage("quantize"):
        made = nncf.compress_weights(
            onnx.load(model),
            mode=nncf.CompressWeightsMode.INT4_SYM,
            ratio=1.0,
            group_size=_BLOCK,
            all_layers=True,
            **more,
        )
        onnx.save(made, output)
    return clock.result("quantize")


if __name__ == "__main__":
    serve(static, weight_only)
