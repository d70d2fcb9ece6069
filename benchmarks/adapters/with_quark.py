"""AMD Quark on ONNX models, by its named settings for CPUs."""

from dataclasses import replace

from jobs import Clock, read_feeds, serve


def static(model: str, feeds: str, output: str, threads: int, *, named: str) -> dict:
    """U8 activations, S8 weights, QDQ, as Quark names it, but per channel.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        threads: not used; it takes no number.
        named: the settings: INT8_CNN_DEFAULT, INT8_TRANSFORMER_DEFAULT, U8S8_AAWS,
            INT8_CNN_ACCURATE (AdaRound)...
    """
    del threads
    return _quantize(model, feeds, output, named, {"per_channel": True})


def weight_only(model: str, feeds: str, output: str, threads: int, *, method: str) -> dict:
    """MatMulNBits with 4 bits in blocks of 32.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        threads: not used; it takes no number.
        method: default, gptq or hqq.
    """
    del threads
    more = {"GroupSize": 32, "Symmetric": False, "Bits": 4, "AccuracyLevel": 0}
    options = {
        "UseMatMulNBits": True,
        "MatMulNBitsParams": {**more, "Algorithm": method.upper()},
    }
    return _quantize(model, feeds, output, "MATMUL_NBITS", {"extra_options": options})


def _quantize(model: str, feeds: str, output: str, named: str, changes: dict) -> dict:
    clock = Clock()
    with clock.stage("import"):
        from onnxruntime.quantization import CalibrationDataReader
        from quark.onnx import ModelQuantizer
        from quark.onnx.quantization.config import Config
        from quark.onnx.quantization.config.custom_config import get_default_config

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = read_feeds(feeds)

        def get_next(self):
            return next(self.rest, None)

        def reset_iter(self) -> None:
            self.rest = read_feeds(feeds)

    with clock.stage("quantize"):
        settings = replace(get_default_config(named), **changes)
        quantizer = ModelQuantizer(Config(global_quant_config=settings))
        quantizer.quantize_model(model, output, Reader())
    return clock.result("quantize")


if __name__ == "__main__":
    serve(static, weight_only)
