#!/usr/bin/env bash
# aimet-onnx 2.42.0, fold_all_batch_norms_to_weight, on a batch norm in front of a convolution and beside a Gemm, computed
# by ONNX Runtime 1.32.0.
#
# A good guess: folding is exact or does not happen. A batch norm in front of a convolution that pads with zeros does not
# fold, as its shift is not in the padding, and AIMET leaves it; a Gemm multiplies its weights by alpha and its bias by
# beta.
# What happens: padding is looked for in the attribute pads alone. With auto_pad = SAME_UPPER, which tf2onnx writes for
# Keras's padding="same" where the size of the images is free, the batch norm goes into the weights and the borders
# change. Gemm's alpha behind it, and beta on either side, are read as 1. Nothing is refused, and nothing warns.
# Seen: batch norm 2x + 1, then a convolution by a 3 x 3 kernel of ones, on a 3 x 3 image of zeros: 9 everywhere instead
# of 4, 6 and 9; with pads = [1, 1, 1, 1] it is left, and right. x = 2, weight and bias 1: 2x + 1 and then a Gemm of alpha
# 0.5 gives 4 instead of 3.5, a Gemm of beta 3 and then 2x + 1 gives 13 instead of 11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check aimet-onnx==2.42.0 torch==2.13.0 onnx==1.23.2 \
    onnxruntime==1.32.0 numpy==2.4.6
"$folder/bin/python" -W ignore - <<'EOF'
import logging

import numpy as np
import onnx
import onnxruntime
from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight

logging.disable(logging.WARNING)
WEIGHTS = "float[1] scale = {2}, float[1] B = {1}, float[1] mean = {0}, float[1] variance = {1}"
IMAGE = ("float[1, 1, 3, 3]", "float[1, 1, 3, 3] W = {1, 1, 1, 1, 1, 1, 1, 1, 1}", np.zeros((1, 1, 3, 3), np.float32))
ROW = ("float[1, 1]", "float[1, 1] W = {1}, float[1] bias = {1}", np.full((1, 1), 2, np.float32))


def run(model: onnx.ModelProto, x: np.ndarray) -> list[float]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0].ravel().round(3).tolist()


def fold(name: str, kind: tuple[str, str, np.ndarray], nodes: str) -> tuple[list[float], list[float], int]:
    shape, weights, x = kind
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 15]> g ({shape} x) => ({shape} y) <{WEIGHTS}, {weights}> {{ {nodes} }}"""
    )
    onnx.checker.check_model(model, full_check=True)
    for position, node in enumerate(model.graph.node):
        node.name = f"node_{position}"
    before = run(model, x)
    fold_all_batch_norms_to_weight(model)
    left = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    after = run(model, x)
    print(f"{name}: before {before}, after {after}, batch norms left: {left}")
    return before, after, left


in_front = "h = BatchNormalization (x, scale, B, mean, variance)"
behind = "y = BatchNormalization (h, scale, B, mean, variance)"
borders = [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0]
assert fold("pads", IMAGE, f"{in_front} y = Conv <pads = [1, 1, 1, 1]> (h, W)") == (borders, borders, 1)
assert fold("SAME_UPPER", IMAGE, f'{in_front} y = Conv <auto_pad = "SAME_UPPER"> (h, W)') == (borders, [9.0] * 9, 0)
assert fold("Gemm", ROW, f"{in_front} y = Gemm (h, W, bias)") == ([6.0], [6.0], 0)
assert fold("alpha", ROW, f"{in_front} y = Gemm <alpha = 0.5> (h, W, bias)") == ([3.5], [4.0], 0)
assert fold("beta", ROW, f"h = Gemm <beta = 3.0> (x, W, bias) {behind}") == ([11.0], [13.0], 0)
EOF
