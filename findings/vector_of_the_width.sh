#!/usr/bin/env bash
# OnnxSlim 0.1.98 and OpenVINO 2026.4.1 on maps that are as wide as they have channels, beside onnxruntime 1.32.0.
#
# A good guess: an optimiser or importer tells a constant for each channel, of shape (C, 1, 1), from one for each
# column, of shape (W).
# What happens: both look at the number of values alone, so that where W = C a constant along the width is taken for
# one along the channels. OnnxSlim multiplies it into the kernel of the convolution before it; Add, Sub and Div are left
# alone. OpenVINO does so for the slope of a PRelu, which ONNX broadcasts from the last axis.
# Seen: a convolution that copies x to three channels, times [1, 2, 3]: columns 1, 2, 3 in every channel, after OnnxSlim
# channels 1, 2, 3. PRelu of -1 with slope [0.1, 0.5]: columns -0.1, -0.5, in OpenVINO channels -0.1, -0.5.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check onnxslim==0.1.98 openvino==2026.4.1 \
    onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'EOF'
import numpy as np
import onnx
import onnxruntime
import onnxslim
import openvino


def parse(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


columns, channels = np.float32([1, 2, 3]), np.float32([1, 2, 3]).reshape(3, 1, 1)
x = np.ones((1, 1, 3, 3), np.float32)
for name, shape in {"columns": "3", "channels": "3, 1, 1"}.items():
    model = parse(
        f"""g (float[1, 1, 3, 3] x) => (float[1, 3, 3, 3] y)
        <float[3, 1, 1, 1] W = {{1, 1, 1}}, float[{shape}] s = {{1, 2, 3}}> {{ h = Conv (x, W) y = Mul (h, s) }}"""
    )
    slim = onnxslim.slim(model)
    print(f"OnnxSlim, a constant along the {name}:", run(slim, x)[0, :, 0].tolist(), "before", run(model, x)[0, :, 0].tolist())
    np.testing.assert_array_equal(run(slim, x), np.broadcast_to(channels, (1, 3, 3, 3)))
    right = columns if name == "columns" else channels
    np.testing.assert_array_equal(run(model, x), np.broadcast_to(right, (1, 3, 3, 3)))

model = parse("g (float[1, 2, 2, 2] x) => (float[1, 2, 2, 2] y) <float[2] s = {0.1, 0.5}> { y = PRelu (x, s) }")
onnx.save(model, "model.onnx")
x = -np.ones((1, 2, 2, 2), np.float32)
found = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"x": x})[0]
print("OpenVINO's PRelu:", found[0].tolist(), "ONNX Runtime's:", run(model, x)[0].tolist())
slope = np.float32([0.1, 0.5])
np.testing.assert_allclose(found, np.broadcast_to(-slope.reshape(2, 1, 1), x.shape))
np.testing.assert_allclose(run(model, x), np.broadcast_to(-slope, x.shape))
EOF
