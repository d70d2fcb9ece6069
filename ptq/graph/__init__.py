"""The only package that edits ONNX graphs: load, normalize, find sites, emit, check, save."""
