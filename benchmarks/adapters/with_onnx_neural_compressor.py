"""onnx-neural-compressor: static 8 bits and weights of 4 bits."""

from jobs import Clock, read_feeds, serve


class _Reader:
    """What it takes for a calibration data reader: one that can start anew."""

    def __init__(self, feeds: str) -> None:
        self.feeds = feeds
        self.rewind()

    def get_next(self):
        return next(self.rest, None)

    def rewind(self) -> None:
        self.rest = read_feeds(self.feeds)

    def __iter__(self):
        return iter(self.get_next, None)


def static(model: str, feeds: str, output: str, threads: int, *, smooth: bool = False) -> dict:
    """U8 activations, S8 weights, per channel, QDQ, MinMax.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        threads: not used; it takes no number.
        smooth: SmoothQuant with its default strength before that.
    """
    del threads
    clock = Clock()
    with clock.stage("import"):
        import onnxruntime
        from onnx_neural_compressor import data_reader
        from onnx_neural_compressor.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            config,
            quantize,
        )
    reader = type("Reader", (_Reader, data_reader.CalibrationDataReader), {})(feeds)
    with clock.stage("quantize"):
        given = config.StaticQuantConfig(
            calibration_data_reader=reader,
            calibrate_method=CalibrationMethod.MinMax,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            execution_provider="CPUExecutionProvider",
            extra_options={"SmoothQuant": smooth},
        )
        quantize(
            model,
            output,
            given,
            optimization_level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        )
    return clock.result("quantize")


def weight_only(model: str, feeds: str, output: str, threads: int, *, method: str) -> dict:
    """4 bits in blocks of 32.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        threads: not used; it takes no number.
        method: rtn, gptq or awq.
    """
    del threads
    clock = Clock()
    with clock.stage("import"):
        import onnx
        from onnx_neural_compressor import data_reader
        from onnx_neural_compressor.quantization import algorithm_entry, config
    reader = type("Reader", (_Reader, data_reader.CalibrationDataReader), {})(feeds)
    kind, entry, data = {
        "rtn": (config.RTNConfig, algorithm_entry.rtn_quantize_entry, ()),
        "gptq": (config.GPTQConfig, algorithm_entry.gptq_quantize_entry, (reader,)),
        "awq": (config.AWQConfig, algorithm_entry.awq_quantize_entry, (reader,)),
    }[method]
    with clock.stage("quantize"):
        given = kind(weight_bits=4, weight_group_size=32, weight_sym=False)
        made = entry(model, given, *data)
        onnx.save(made, output)
    return clock.result("quantize")


if __name__ == "__main__":
    serve(static, weight_only)
