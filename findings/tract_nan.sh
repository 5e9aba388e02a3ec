#!/usr/bin/env bash
# tract 0.23.9 (its Python wheel) on a CPU, on ONNX models of one activation.
#
# A good guess: NaN in, NaN out, so that a broken sensor or an overflow shows at the output; a saturated sigmoid is
# 0 or 1.
# What happens: Relu, Clip, HardSigmoid, Sigmoid, Tanh and ReduceMax all turn NaN into an ordinary number: the
# kernels clamp with instructions that return the other operand. A network with such a layer answers NaN with
# confidence. The same clamp stops Sigmoid at 4.5e-7, never 0 (a logarithm of it is at least -14.6), and Tanh at
# 0.9999994. Softplus overflows to infinity at 90, where ONNX Runtime gives 90.
# Seen: NaN becomes 0 (Relu), -1 (Clip to [-1, 2]), 1 (HardSigmoid), 4.5e-7 (Sigmoid), -0.9999994 (Tanh).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check tract==0.23.9 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
bin/python - <<'EOF'
import numpy as np
import onnx
import onnxruntime
import tract

onnxruntime.set_default_logger_severity(3)


def run(node: str, value: float) -> tuple[float, float]:
    """What tract and what ONNX Runtime make of `value`."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[N] y)
        <float low = {{-1}}, float high = {{2}}> {{ y = {node} }}"""
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    x = np.float32([value, 1, -2, 5])
    loaded = tract.onnx().load("model.onnx")
    loaded.set_input_fact(0, "4,f32")
    ours = loaded.into_model().into_runnable().run([x])[0].to_numpy()
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    return float(ours[0]), float(session.run(None, {"x": x})[0][0])


for node, expected in {
    "Relu (x)": 0,
    "Clip (x, low, high)": -1,
    "HardSigmoid (x)": 1,
    "Sigmoid (x)": 4.47e-7,
    "Tanh (x)": -0.9999994,
    "ReduceMax <axes = [0]> (x)": 5,
}.items():
    found, peer = run(node, np.nan)
    print(f"{node}: NaN becomes {found:.9g}, in ONNX Runtime {peer}")
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert np.isnan(peer)
found, peer = run("Sigmoid (x)", -200)
print("Sigmoid(-200):", found, "in ONNX Runtime", peer)
assert 4e-7 < found < 5e-7 and peer < 1e-30
found, peer = run("Softplus (x)", 90)
print("Softplus(90):", found, "in ONNX Runtime", peer)
assert found == np.inf and abs(peer - 90) < 1e-4
EOF
