"""Weight quantizers: a float weight in, codes and their scales out; one file for each method."""

from ptq.weights.base import (
    WeightQuantizer,
    parse_method,
    weight_quantizer,
    weight_quantizers,
)

__all__ = ["WeightQuantizer", "parse_method", "weight_quantizer", "weight_quantizers"]
