#!/usr/bin/env bash
# onnx 1.23.2, onnx.reference.ReferenceEvaluator, on LpNormalization with p=1 and on LRN, beside onnxruntime 1.32.0.
#
# A good guess: the reference is right, and a runtime that differs from it is wrong.
# What happens: LpNormalization with p=1 divides by the sum, not by the sum of absolute values, so that [3, -2] becomes
# [3, -2] instead of [0.6, -0.4]. LRN walks over the batch where it should walk over the channels: with N samples
# only the first N channels are normalised, the others pass through, and a batch is computed otherwise than its samples.
# Seen: LRN with alpha = 1 of four channels of ones, size 3: [0.68, 1, 1, 1] for one sample, while ONNX Runtime gives
# [0.68, 0.59, 0.59, 0.68]; four samples at once agree with it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/bin/python" - <<'EOF'
import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator


def run(node: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the reference evaluator and what ONNX Runtime give."""
    shape = ", ".join(map(str, x.shape))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[{shape}] x) => (float[{shape}] y) {{ y = {node} }}'
    )
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return ReferenceEvaluator(model).run(None, {"x": x})[0], session.run(None, {"x": x})[0]


reference, peer = run("LpNormalization <p = 1> (x)", np.float32([[3, -2]]))
print("LpNormalization", reference, peer)
np.testing.assert_allclose(reference, [[3, -2]])
np.testing.assert_allclose(peer, [[0.6, -0.4]], rtol=1e-6)

lrn = "LRN <size = 3, alpha = 1.0> (x)"
edge, middle = (1 + 2 / 3) ** -0.75, (1 + 3 / 3) ** -0.75
reference, peer = run(lrn, np.ones((1, 4, 1, 1), np.float32))
print("LRN", reference.ravel(), peer.ravel())
np.testing.assert_allclose(peer.ravel(), [edge, middle, middle, edge], rtol=1e-6)
np.testing.assert_allclose(reference.ravel(), [edge, 1, 1, 1], rtol=1e-6)
reference, peer = run(lrn, np.ones((4, 4, 1, 1), np.float32))
np.testing.assert_allclose(reference, peer, rtol=1e-6)
EOF
