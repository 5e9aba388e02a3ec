#!/usr/bin/env bash
# OpenVINO 2026.4.1 on a CPU, on ONNX's Resize with antialias = 1 or exclude_outside = 1, beside onnxruntime 1.32.0.
#
# A good guess: an importer that does not know an attribute refuses the model.
# What happens: it reads the model without a word and computes the resizing without them: downsampled images alias,
# and cubic upsampling differs along the borders. PyTorch exports interpolate(antialias=True) so, and torchvision's
# preprocessing has antialias as its default.
# Seen: [8, 0, 0, 0, 0, 0, 0, 0] to two pixels, linear, antialiased: [0, 0], in ONNX Runtime [2.25, 0]. [1, 0, 0, 0]
# to eight pixels, cubic, exclude_outside: it begins with 1.1055, in ONNX Runtime with 1.1364.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'EOF'
import numpy as np
import onnx
import onnxruntime
import openvino


def run(attributes: str, x: list[float], size: int) -> tuple[np.ndarray, np.ndarray]:
    """What OpenVINO and what ONNX Runtime give."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]> g (float[1, 1, 1, {len(x)}] x) => (float[1, 1, 1, {size}] y)
        <int64[4] sizes = {{1, 1, 1, {size}}}> {{ y = Resize <{attributes}> (x, , , sizes) }}"""
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    feed = {"x": np.float32(x).reshape(1, 1, 1, -1)}
    compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(feed)[0].ravel(), onnxruntime.InferenceSession("model.onnx").run(None, feed)[0].ravel()


for attributes, x, size, expected, right in (
    ('mode = "linear", antialias = 0', [8, 0, 0, 0, 0, 0, 0, 0], 2, 0, 0),
    ('mode = "linear", antialias = 1', [8, 0, 0, 0, 0, 0, 0, 0], 2, 0, 2.25),
    ('mode = "cubic", exclude_outside = 0', [1, 0, 0, 0], 8, 1.1055, 1.1055),
    ('mode = "cubic", exclude_outside = 1', [1, 0, 0, 0], 8, 1.1055, 1.1364),
):
    found, peer = run(attributes, x, size)
    print(attributes, "OpenVINO", found, "ONNX Runtime", peer)
    np.testing.assert_allclose([found[0], peer[0]], [expected, right], atol=1e-4)
EOF
