"""Run models on data with onnxruntime."""
