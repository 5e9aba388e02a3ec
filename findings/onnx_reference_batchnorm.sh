#!/usr/bin/env bash
# onnx 1.23.2, onnx.reference.ReferenceEvaluator, on a model of one BatchNormalization with only Y as output,
# which up to opset 13 means inference.
#
# A good guess: the reference implementation defines the operator; for inference it uses the stored mean and variance.
# What happens: at opsets 9 and 13 it normalises with 0.9 * stored + 0.1 * batch moments (momentum is meant for
# training), so that a sample's output depends on the other samples; at opset 7 it raises TypeError on the same
# model, because _run returns a tuple in a tuple. Opsets 14 and 15 are right.
# Seen: a batch of mean 3 and variance 4, stored mean 0 and variance 1, ones and zeros for scale and B. The first
# value is 3.0 with the stored statistics and 2.3681 from the evaluator.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6
"$folder/bin/python" - <<'EOF'
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

x = np.array([[5, 1, 5, 1], [5, 1, 1, 5]], np.float32).reshape(2, 1, 4)  # mean 3, variance 4


def evaluate(opset: int, x: np.ndarray) -> np.ndarray:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": {opset}]>
        g (float[N, 1, 4] x) => (float[N, 1, 4] y)
        <float[1] one = {{1}}, float[1] zero = {{0}}>
        {{ y = BatchNormalization <epsilon = 0.0> (x, one, zero, zero, one) }}"""
    )
    onnx.checker.check_model(model, full_check=True)
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


for opset in (14, 15):
    np.testing.assert_allclose(evaluate(opset, x), x, rtol=1e-6)
for opset in (9, 13):
    blended = (x - 0.1 * 3) / np.sqrt(0.9 * 1 + 0.1 * 4)
    np.testing.assert_allclose(evaluate(opset, x), blended, rtol=1e-6)
    print("opset", opset, "stored statistics give", x.flat[0], "the evaluator", evaluate(opset, x).flat[0])
try:
    evaluate(7, x)
except TypeError as error:
    print("opset 7:", str(error)[:90])
else:
    raise AssertionError("opset 7 runs now")
EOF
