"""AIMET on ONNX models: a simulation, its encodings, exported as QDQ."""

from jobs import Clock, read_feeds, serve


def static(  # noqa: PLR0913  arguments come by name
    model: str,
    feeds: str,
    output: str,
    threads: int,
    *,
    weights: str = "int8",
    scheme: str = "min_max",
    equalize: bool = False,
    seq_mse: bool = False,
) -> dict:
    """U8 activations, weights of ``weights`` per channel, bias of 32 bits.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        threads: not used; it takes no number.
        weights: int8 or int4.
        scheme: min_max or tf_enhanced.
        equalize: cross-layer equalization first.
        seq_mse: sequential MSE of the weights.
    """
    del threads
    clock = Clock()
    with clock.stage("import"):
        import onnx
        from aimet_onnx import QuantizationSimModel, apply_seq_mse
        from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight
        from aimet_onnx.common.quantsim_config import utils
        from aimet_onnx.cross_layer_equalization import equalize_model
    with clock.stage("quantize"):
        proto = onnx.load(model)
        (equalize_model if equalize else fold_all_batch_norms_to_weight)(proto)
        simulated = QuantizationSimModel(
            proto,
            param_type=weights,
            activation_type="int8",
            quant_scheme=scheme,
            config_file=utils.get_path_for_per_channel_config(),
            providers=["CPUExecutionProvider"],
        )
        data = list(read_feeds(feeds))
        if seq_mse:
            apply_seq_mse(simulated, data)
        simulated.compute_encodings(data)
        made = simulated.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True)
        onnx.save(made, output)
    return clock.result("quantize")


if __name__ == "__main__":
    serve(static)
