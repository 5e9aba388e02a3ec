#!/usr/bin/env bash
# MNN 3.6.1, converter and runtime on a CPU, on an ONNX model of one BatchNormalization.
#
# A good guess: where a file leaves epsilon out, the importer takes ONNX's default of 1e-5.
# What happens: it takes 0. PyTorch and Keras write the attribute always, so only files of exporters that leave
# defaults out are hit, and there only channels whose variance is small: a channel of variance 2e-5 comes out 1.22
# times too large, a channel that never varied (variance 0) infinite instead of 316 times the difference.
# Seen: x = 1, mean 0, variance 2e-5: 223.61 without the attribute, 182.57 with epsilon = 1e-5 written out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check mnn==3.6.1 onnx==1.23.2 numpy==2.4.6
cd "$folder"
bin/python - <<'EOF'
import subprocess

import MNN.expr
import MNN.nn
import onnx


def run(name: str, attribute: str) -> float:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 15]>
        g (float[1, 1, 1, 1] x) => (float[1, 1, 1, 1] y)
        <float[1] one = {{1}}, float[1] zero = {{0}}, float[1] variance = {{0.00002}}>
        {{ y = BatchNormalization {attribute} (x, one, zero, zero, variance) }}"""
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{name}.onnx")
    convert = ["bin/mnnconvert", "-f", "ONNX", "--modelFile", f"{name}.onnx", "--MNNModel", f"{name}.mnn", "--bizCode", "m"]
    subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
    x = MNN.expr.placeholder([1, 1, 1, 1], MNN.expr.NCHW, MNN.expr.float)
    x.write([1.0])
    y = MNN.nn.load_module_from_file(f"{name}.mnn", ["x"], ["y"]).forward([x])
    y = y[0] if isinstance(y, (list, tuple)) else y
    return float(MNN.expr.convert(y, MNN.expr.NCHW).read().ravel()[0])


written = run("written", "<epsilon = 0.00001>")
left_out = run("left_out", "")
print(f"epsilon = 1e-5 written out: {written:.2f}, left out: {left_out:.2f}, exact: {3e-5**-0.5:.2f}")
assert abs(written - 3e-5**-0.5) < 0.1, written
assert abs(left_out - 2e-5**-0.5) < 0.1, left_out
EOF
