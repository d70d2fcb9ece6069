"""Affine quantization arithmetic on numpy arrays; knows nothing of ONNX files or of data sets."""
