#!/usr/bin/env bash
# ONNX Runtime 1.32.0 on a CPU, with its default optimisations, on a layer norm written out as nine operators of opset 16
# before a matrix product.
#
# A good guess: a network with fewer operators that computes the same is optimised to at most as many.
# What happens: ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt, Div, Mul, Add become one LayerNormalization, for which the
# Mul by gamma and the Add of beta have to be there. Who multiplies them into the matrix behind, as exact algebra allows,
# takes two operators out of the file, and the seven others stay. A Mul by ones and an Add of zeros bring the fusion back.
# Seen: 11 operators become [LayerNormalization, Gemm], 9 become 8: the seven and a Gemm. Outputs agree to 2e-6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'EOF'
import numpy as np
import onnx
import onnxruntime

random = np.random.default_rng(0)
x, W = (random.normal(size=(8, 8)).astype(np.float32) for _ in range(2))
gamma, beta, b = (random.normal(size=8).astype(np.float32) for _ in range(3))


def optimise_and_run(tail: str, **weights: np.ndarray) -> tuple[list[str], np.ndarray]:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 16]> g (float[8, 8] x) => (float[8, 8] y)
        <float two = {{2}}, float epsilon = {{0.001}}> {{
          mean = ReduceMean <axes = [-1]> (x)
          centred = Sub (x, mean)
          square = Pow (centred, two)
          variance = ReduceMean <axes = [-1]> (square)
          raised = Add (variance, epsilon)
          deviation = Sqrt (raised)
          normal = Div (centred, deviation)
          {tail} }}"""
    )
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = "optimised.onnx"
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load("optimised.onnx").graph.node]
    print(len(model.graph.node), "operators, optimised:", operators)
    return operators, session.run(None, {"x": x})[0]


affine = "scaled = Mul (normal, gamma) shifted = Add (scaled, beta) h = MatMul (shifted, W) y = Add (h, b)"
whole, expected = optimise_and_run(affine, gamma=gamma, beta=beta, W=W, b=b)
folded = {"W": gamma[:, None] * W, "b": beta @ W + b}
short, found = optimise_and_run("h = MatMul (normal, W) y = Add (h, b)", **folded)
ones, again = optimise_and_run(affine, gamma=np.ones_like(gamma), beta=np.zeros_like(beta), **folded)
print("largest differences", np.abs(found - expected).max(), np.abs(again - expected).max())
np.testing.assert_allclose(found, expected, atol=1e-5)
np.testing.assert_allclose(again, expected, atol=1e-5)
assert whole == ones == ["LayerNormalization", "Gemm"]
assert short == ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Gemm"]
EOF
