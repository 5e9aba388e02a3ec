#!/usr/bin/env bash
# OpenVINO 2026.4.1 and onnx 1.23.2's ReferenceEvaluator on a Softmax of opset 11 over a map (N, C, H, W),
# beside onnxruntime 1.32.0 and tract 0.23.9.
#
# A good guess: Softmax with axis = 1 normalises along axis 1, over the channels.
# What happens: that holds from opset 13. Before, the operator flattens the tensor to two dimensions at the axis, so
# that all C * H * W values together sum to 1. ONNX Runtime and tract do so; OpenVINO, MNN and the reference evaluator
# normalise along axis 1 at any opset. OpenVINO flattens for LogSoftmax all the same, so that the logarithm of its
# Softmax is not its LogSoftmax. Behind a global pooling (H = W = 1) nothing shows.
# Seen: zeros of shape (1, 2, 2, 2): 0.125 = 1 / 8 in ONNX Runtime and tract, 0.5 = 1 / 2 in the other two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 tract==0.23.9 \
    onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'EOF'
import math

import numpy as np
import onnx
import onnxruntime
import openvino
import tract
from onnx.reference import ReferenceEvaluator

x = np.zeros((1, 2, 2, 2), np.float32)


def save(opset: int, operator: str = "Softmax") -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": {opset}]> g (float[1, 2, 2, 2] x) => (float[1, 2, 2, 2] y)
        {{ y = {operator} <axis = 1> (x) }}"""
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    return model


def run_openvino() -> float:
    compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return float(compiled({"x": x})[0].flat[0])


def run_tract() -> float:
    model = tract.onnx().load("model.onnx")
    model.set_input_fact(0, "1,2,2,2,f32")
    return float(model.into_model().into_runnable().run([x])[0].to_numpy().flat[0])


for opset in (11, 13):
    model = save(opset)
    found = {
        "ONNX Runtime": float(onnxruntime.InferenceSession("model.onnx").run(None, {"x": x})[0].flat[0]),
        "tract": run_tract(),
        "OpenVINO": run_openvino(),
        "reference": float(ReferenceEvaluator(model).run(None, {"x": x})[0].flat[0]),
    }
    print("opset", opset, found)
    right = 1 / 8 if opset == 11 else 1 / 2
    for name, value in found.items():
        wrong = opset == 11 and name in ("OpenVINO", "reference")
        assert math.isclose(value, 1 / 2 if wrong else right, rel_tol=1e-4), (opset, name, value)
save(11, "LogSoftmax")
print("OpenVINO's LogSoftmax at opset 11:", run_openvino(), "is the logarithm of", math.exp(run_openvino()))
assert math.isclose(run_openvino(), math.log(1 / 8), rel_tol=1e-4)
EOF
