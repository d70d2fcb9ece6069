"""onnxruntime.quantization below 8 bits: weights alone (MatMulNBits), or with activations of 8."""

from pathlib import Path

from jobs import Clock, prepare, read_feeds, readers, serve

#: Nearest neighbours along the inner axis that share a scale, as in ptq's default.
_BLOCK = 32


def weight_only(model: str, feeds: str, output: str, threads: int, *, method: str) -> dict:
    """`MatMulNBitsQuantizer` with 4 bits and its defaults, but for blocks of ``_BLOCK``.

    Args:
        model: the float model.
        feeds: a folder of .npz files, which ``gptq`` reads.
        output: where to write.
        threads: not used; it takes no number.
        method: rtn, k-quant, hqq or gptq.
    """
    del threads
    clock = Clock()
    with clock.stage("import"):
        import onnx
        from onnxruntime.quantization import matmul_nbits_quantizer as nbits
    with clock.stage("prepare"):
        prepared, notes = prepare(model, Path(output).with_suffix(".prepared.onnx"))
    with clock.stage("quantize"):
        given = {
            "rtn": lambda: nbits.DefaultWeightOnlyQuantConfig(block_size=_BLOCK),
            "k-quant": nbits.KQuantWeightOnlyQuantConfig,
            "hqq": lambda: nbits.HQQWeightOnlyQuantConfig(block_size=_BLOCK),
            # it copies its settings, and a generator of feeds cannot be copied
            "gptq": lambda: nbits.GPTQWeightOnlyQuantConfig(iter(list(read_feeds(feeds)))),
        }[method]()
        quantizer = nbits.MatMulNBitsQuantizer(
            onnx.load(prepared), block_size=_BLOCK, algo_config=given
        )
        quantizer.process()
        quantizer.model.save_model_to_file(output)
    return {**clock.result("quantize"), "notes": notes}


def static(
    model: str, feeds: str, output: str, threads: int, *, weights: str, activations: str, **more
) -> dict:
    """`quantize_static` with other types than those that run fast: QDQ, per channel, MinMax.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        threads: not used; it takes no number.
        weights: a QuantType.
        activations: a QuantType.
        more: other arguments of quantize_static.
    """
    del threads
    clock = Clock()
    with clock.stage("import"):
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    with clock.stage("prepare"):
        opset = 21 if "4" in weights else 17
        prepared, notes = prepare(model, Path(output).with_suffix(".prepared.onnx"), opset)
    with clock.stage("quantize"):
        quantize_static(
            str(prepared),
            output,
            next(readers(feeds, None)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType[activations],
            weight_type=QuantType[weights],
            **more,
        )
    return {**clock.result("quantize"), "notes": notes}


if __name__ == "__main__":
    serve(weight_only, static)
