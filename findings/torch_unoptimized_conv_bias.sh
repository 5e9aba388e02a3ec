#!/usr/bin/env bash
# PyTorch 2.13.0, torch.onnx.export(dynamo=True) with onnxscript 0.7.2, on a convolution and a batch norm in inference,
# the convolution with and without a bias; then ONNX Runtime 1.32.0 and OnnxSlim 0.1.98 on the files.
#
# A good guess: optimize=False leaves the optimising to the runtime, which folds a batch norm into a convolution anyway.
# What happens: a convolution without a bias, as is usual before a batch norm, is written with a bias that is computed
# when the file runs: zero, cast like the input, expanded to the filters. Neither ONNX Runtime nor OnnxSlim takes what
# depends on an input's type for a constant, and without a constant bias neither folds: the batch norm runs, and so do the
# operators that make the zeros. With optimize=True, or with a bias, both fold it.
# Seen: [Cast, Expand, Conv, BatchNormalization] in ONNX Runtime's optimised graph, else [Conv].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 onnxscript==0.7.2 onnx==1.23.2 \
    onnxruntime==1.32.0 onnxslim==0.1.98 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'EOF'
import contextlib
import io

import onnx
import onnxruntime
import onnxslim
import torch


def export(bias: bool, optimize: bool) -> onnx.ModelProto:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=bias), torch.nn.BatchNorm2d(4)).eval()
    file = io.BytesIO()
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(network, (torch.ones(1, 3, 8, 8),), file, dynamo=True, optimize=optimize)
    return onnx.load_from_string(file.getvalue())


def optimise(model: onnx.ModelProto) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = "optimised.onnx"
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load("optimised.onnx")


def list_operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


for bias in (False, True):
    for optimize in (True, False):
        model = export(bias, optimize)
        slim = onnxslim.slim(onnx.ModelProto.FromString(model.SerializeToString()))
        written, runtime, slimmed = (list_operators(m) for m in (model, optimise(model), slim))
        print(f"bias={bias}, optimize={optimize}: {written}; ONNX Runtime {runtime}; OnnxSlim {slimmed}")
        if bias or optimize:
            assert runtime == slimmed == ["Conv"]
        else:
            assert written.count("Expand") == 2 and written[-2:] == ["Conv", "BatchNormalization"]
            assert runtime == ["Cast", "Expand", "Conv", "BatchNormalization"]
            assert slimmed[-2:] == ["Conv", "BatchNormalization"]
EOF
