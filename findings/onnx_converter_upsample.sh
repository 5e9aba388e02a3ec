#!/usr/bin/env bash
# onnx 1.23.2, onnx.version_converter, on a linear Upsample of opset 9 and a linear Resize of opset 10, run by
# onnxruntime 1.32.0.
#
# A good guess: a model that is converted to a newer opset computes what it did.
# What happens: up to opset 10 the pixel i of the output reads the input at i / scale. Opset 11 calls that
# coordinate_transformation_mode="asymmetric" and has "half_pixel" as default. The converter writes no mode, so the
# image moves by up to half a pixel. The nearest mode at whole factors moves nothing, which hides it.
# Seen: [0, 4] upsampled by 2 is [0, 2, 4, 4] at opsets 9 and 10, and [0, 1, 3, 4] at 11, 13 and 18.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/bin/python" - <<'EOF'
import numpy as np
import onnx
import onnxruntime
from onnx import version_converter

x = np.float32([0, 4]).reshape(1, 1, 1, 2)


def run(model: onnx.ModelProto) -> list[float]:
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0].ravel().tolist()


for operator, opset in (("Upsample", 9), ("Resize", 10)):
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": {opset}]>
        g (float[1, 1, 1, 2] x) => (float[1, 1, 1, 4] y) <float[4] scales = {{1, 1, 1, 2}}>
        {{ y = {operator} <mode = "linear"> (x, scales) }}"""
    )
    assert run(model) == [0, 2, 4, 4], run(model)
    for newer in (11, 13, 18):
        converted = version_converter.convert_version(model, newer)
        print(operator, opset, run(model), "converted to", newer, run(converted))
        assert run(converted) == [0, 1, 3, 4], run(converted)
EOF
