#!/usr/bin/env bash
# onnx2torch 1.5.15 with PyTorch 2.13.0, on an ONNX model of one BatchNormalization for inference, beside
# onnxruntime 1.32.0.
#
# A good guess: a file that says inference becomes a module that computes inference.
# What happens: the module is in training mode, as every new module of PyTorch, whatever training_mode the file has. Called
# as it comes, as in the example of the converter's README, it normalises with the moments of the batch, and each call
# moves the stored statistics, so that eval() afterwards does not give back the file's. eval() at once does.
# Seen: a batch of [1, 3], stored mean 0 and variance 1: [1, 3] in ONNX Runtime and after eval(), [-1, 1] as it comes;
# after two such calls the stored mean is 0.38 and the variance 1.19.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps onnx2torch==1.5.15
cd "$folder"
bin/python -W ignore - <<'EOF'
import sys
import unittest.mock

import numpy as np
import onnx
import onnxruntime
import torch

# Boxes need torchvision, this model does not; its wheel has to be of the same build as PyTorch's.
sys.modules["torchvision"] = sys.modules["torchvision.ops"] = unittest.mock.MagicMock()
import onnx2torch

x = np.float32([1, 3]).reshape(2, 1, 1, 1)
model = onnx.parser.parse_model(
    """<ir_version: 8, opset_import: ["": 15]> g (float[2, 1, 1, 1] x) => (float[2, 1, 1, 1] y)
    <float[1] scale = {1}, float[1] B = {0}, float[1] mean = {0}, float[1] variance = {1}>
    { y = BatchNormalization <training_mode = 0> (x, scale, B, mean, variance) }"""
)
onnx.checker.check_model(model, full_check=True)


@torch.no_grad()
def call(module: torch.nn.Module) -> np.ndarray:
    return module(torch.from_numpy(x.copy())).numpy().ravel()


module = onnx2torch.convert(model)
assert module.training
called = [call(module) for _ in range(2)]
stored = [value.item() for name, value in module.state_dict().items() if "running" in name]
moved = call(module.eval())
at_once = call(onnx2torch.convert(model).eval())
runtime = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0].ravel()
print("as it comes", [y.tolist() for y in called], "then stored mean and variance", stored)
print("eval() after that", moved.tolist(), "eval() at once", at_once.tolist(), "ONNX Runtime", runtime.tolist())
np.testing.assert_allclose(called, [[-1, 1]] * 2, rtol=1e-4)
np.testing.assert_allclose(stored, [0.38, 1.19], rtol=1e-5)
np.testing.assert_allclose(moved, (x.ravel() - 0.38) / np.sqrt(1.19), rtol=1e-4)
np.testing.assert_allclose([at_once, runtime], [[1, 3]] * 2, rtol=1e-4)
EOF
