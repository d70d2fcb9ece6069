#!/bin/sh
# Quantize every models/NAME.onnx to models/NAME.int8.onnx, as ptq.toml says.
set -eu
for model in models/*.onnx; do
    case $model in *.int8.onnx) continue ;; esac
    ptq quantize "$model" --force
done
