#!/usr/bin/env bash
# PyTorch 2.13.0, torch.onnx.export with onnxscript 0.7.2, on a BatchNorm2d in training mode.
#
# A good guess: training=TrainingMode.TRAINING exports a batch norm that normalises with the moments of the batch.
# What happens: the exporter that is the default since PyTorch 2.9 (dynamo=True) ignores the argument. Its optimiser
# folds the batch norm into the convolution; with optimize=False the file has a BatchNormalization without
# training_mode, which is inference. The older exporter (dynamo=False) writes training_mode = 1. A training graph for
# ONNX Runtime on a device thus trains against frozen statistics.
# Seen: operators [Conv] by default, [Conv, BatchNormalization] without training_mode unoptimised, and
# training_mode = 1 with dynamo=False.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 onnxscript==0.7.2 onnx==1.23.2 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'EOF'
import contextlib
import io

import onnx
import torch

network = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1), torch.nn.BatchNorm2d(2)).train()


def export(**options: bool) -> list[tuple[str, int]]:
    """The operators, each with its training_mode."""
    file = io.BytesIO()
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(network, (torch.zeros(4, 2, 3, 3),), file, training=torch.onnx.TrainingMode.TRAINING, **options)
    nodes = onnx.load_from_string(file.getvalue()).graph.node
    return [(node.op_type, sum(a.i for a in node.attribute if a.name == "training_mode")) for node in nodes]


default, unoptimised, older = export(), export(optimize=False), export(dynamo=False)
print("default", default)
print("optimize=False", unoptimised)
print("dynamo=False", older)
assert default == [("Conv", 0)]
assert unoptimised == [("Conv", 0), ("BatchNormalization", 0)]
assert older == [("Conv", 0), ("BatchNormalization", 1)]
EOF
