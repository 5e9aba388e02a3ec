#!/usr/bin/env bash
# onnxoptimizer 0.4.2, pass fuse_pad_into_pool, on a Pad of zeros before a pool that pads too, beside onnxruntime 1.32.0.
#
# A good guess: zeros of a Pad are values like any other, padding of a pool is not; an optimiser that joins the two
# looks at count_include_pad.
# What happens: it adds up both paddings. An AveragePool with pads of its own is set to count_include_pad = 1, so that its
# own padding, which the mean left out, counts from then on. A MaxPool's padding is minus infinity, so that the zeros are
# gone where all values are negative.
# Seen: four values of -1, Pad by 1, mean over 3 with pads of 1: the first is -0.5 before, -0.333 after; maximum over 3
# without pads: 0 before, -1 after.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check \
    onnxoptimizer==0.4.2 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/bin/python" -W ignore - <<'EOF'
import numpy as np
import onnx
import onnxoptimizer
import onnxruntime

x = -np.ones((1, 1, 1, 4), np.float32)


def run(model: onnx.ModelProto) -> float:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": x})[0].flat[0])


for pool, right, expected in (
    ("AveragePool <kernel_shape = [1, 3]>", -2 / 3, -2 / 3),
    ("AveragePool <kernel_shape = [1, 3], pads = [0, 1, 0, 1]>", -1 / 2, -1 / 3),
    ("MaxPool <kernel_shape = [1, 3]>", 0, -1),
):
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 13]> g (float[1, 1, 1, 4] x) => (float[1, 1, 1, N] y)
        <int64[8] pads = {{0, 0, 0, 1, 0, 0, 0, 1}}> {{ h = Pad (x, pads) y = {pool} (h) }}"""
    )
    onnx.checker.check_model(model, full_check=True)
    optimised = onnxoptimizer.optimize(model, ["fuse_pad_into_pool"])
    print(pool, "before", run(model), "after", run(optimised), [node.op_type for node in optimised.graph.node])
    np.testing.assert_allclose([run(model), run(optimised)], [right, expected], rtol=1e-5)
EOF
