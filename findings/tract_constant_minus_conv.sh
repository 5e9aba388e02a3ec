#!/usr/bin/env bash
# tract 0.23.9 (its Python wheel) on a CPU, on an ONNX model of a 2 x 2 convolution and, behind it, a Sub or a Div
# of a constant for each channel.
#
# A good guess: c - conv(x) and conv(x) - c are told apart.
# What happens: tract moves the constant into the convolution's own code, and there c - conv(x) is computed as
# c + conv(x), and c / conv(x) as infinity. The other order, Mul and Add are right, and so are a 1 x 1 convolution,
# which runs as a matrix product, and one constant for all channels.
# Seen: conv(x) = [2, 4], c = [10, 20]: c - conv(x) is [12, 24] instead of [8, 16], c / conv(x) [inf, inf] instead of
# [5, 5].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check tract==0.23.9 onnx==1.23.2 numpy==2.4.6
cd "$folder"
bin/python - <<'EOF'
import numpy as np
import onnx
import tract


def run(last: str, size: int = 2) -> np.ndarray:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, {size}, {size}] x) => (float[1, 2, 1, 1] y)
        <float[2, 1, {size}, {size}] W, float[2, 1, 1] c>
        {{ h = Conv (x, W) y = {last} }}"""
    )
    W = np.zeros((2, 1, size, size), np.float32)
    W[:, 0, 0, 0] = 1, 2
    del model.graph.initializer[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(W, "W"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([10, 20]).reshape(2, 1, 1), "c"))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    loaded = tract.onnx().load("model.onnx")
    loaded.set_input_fact(0, f"1,1,{size},{size},f32")
    return loaded.into_model().into_runnable().run([np.full((1, 1, size, size), 2, np.float32)])[0].to_numpy().ravel()


for last, expected in {
    "Sub (h, c)": [-8, -16],
    "Div (h, c)": [0.2, 0.2],
    "Add (c, h)": [12, 24],
    "Mul (c, h)": [20, 80],
    "Sub (c, h)": [12, 24],  # 8, 16 is right
    "Div (c, h)": [np.inf, np.inf],  # 5, 5 is right
}.items():
    found = run(last)
    print("behind a convolution,", last, found)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
np.testing.assert_allclose(run("Sub (c, h)", size=1), [8, 16], rtol=1e-6)
np.testing.assert_allclose(run("Div (c, h)", size=1), [5, 5], rtol=1e-6)
EOF
