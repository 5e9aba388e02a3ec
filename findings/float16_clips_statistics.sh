#!/usr/bin/env bash
# onnxconverter-common 1.16.0, float16.convert_float_to_float16, and the copy of it in onnxruntime 1.32.0
# (onnxruntime.transformers.float16), on a model of one BatchNormalization.
#
# A good guess: float16 reaches 65,504, so moving statistics of 20,000 and 40,000 become float16 numbers.
# What happens: onnxconverter-common cuts every weight to at most 10,000 (max_finite_val) and raises every small one
# to 1e-7, with a warning. A variance of 40,000 becomes 10,000, which doubles the normalised output; a mean of 20,000
# becomes 10,000, which shifts it by 50 deviations. The copy in ONNX Runtime has the default 65,504 and is right.
# Seen: a channel of mean 0 and variance 40,000 comes out twice as large.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check \
    onnxconverter-common==1.16.0 onnxruntime==1.32.0 onnx==1.23.2 protobuf==7.36.2 numpy==2.4.6
"$folder/bin/python" -W ignore - <<'EOF'
import numpy as np
import onnx
import onnxruntime
from onnxconverter_common import float16 as common
from onnxruntime.transformers import float16 as copy

text = """<ir_version: 8, opset_import: ["": 15]>
g (float[1, 2, 4] x) => (float[1, 2, 4] y)
<float[2] scale = {1, 1}, float[2] B = {0, 0}, float[2] mean = {0, 20000}, float[2] variance = {40000, 40000}>
{ y = BatchNormalization (x, scale, B, mean, variance) }"""
x = np.float32([[[-200, 0, 200, 400], [19800, 20000, 20200, 20400]]])  # deviations -1, 0, 1, 2


def convert_and_run(converter) -> np.ndarray:
    model = converter.convert_float_to_float16(onnx.parser.parse_model(text), keep_io_types=True)
    for weight in model.graph.initializer:
        print(converter.__name__, weight.name, onnx.numpy_helper.to_array(weight))
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0][0]


right = convert_and_run(copy)
np.testing.assert_allclose(right, [[-1, 0, 1, 2]] * 2, atol=0.02)
cut = convert_and_run(common)
print(cut)
np.testing.assert_allclose(cut[0], [-2, 0, 2, 4], atol=0.02)
np.testing.assert_allclose(cut[1], [98, 100, 102, 104], atol=0.2)
EOF
