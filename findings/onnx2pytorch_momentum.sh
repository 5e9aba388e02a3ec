#!/usr/bin/env bash
# onnx2pytorch 0.6.0 with PyTorch 2.13.0, on an ONNX model of one BatchNormalization, trained on after conversion.
#
# A good guess: the momentum of a file means the same after conversion. ONNX's is the share of the old statistics that
# stays, PyTorch's the share of the batch that comes in, so that 0.9 becomes 0.1; torch.onnx.export turns it round on the
# way out, and onnx2torch 1.5.15 on the way in.
# What happens: the number is taken as it is. A step of training replaces nine tenths of the stored statistics, and after
# two steps they are those of the last batch. Only a file that leaves momentum out is right, as PyTorch's default is 0.1.
# Inference alone does not show it.
# Seen: a batch of [1, 3], stored mean 0, momentum 0.9 written out: PyTorch's momentum is 0.9 and the mean 1.8 after one
# step; left out: 0.1 and 0.2, as the operator says of both files. Exported by PyTorch from momentum 0.01 it is 0.99.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 onnxscript==0.7.2 onnx==1.23.2 numpy==2.4.6
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps onnx2pytorch==0.6.0
"$folder/bin/python" -W ignore - <<'EOF'
import logging
import sys
import unittest.mock

import onnx
import torch

logging.disable(logging.WARNING)
x = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)
slow = torch.nn.BatchNorm2d(1, momentum=0.01)
exported = torch.onnx.export(slow.eval(), (x,), dynamo=True, verbose=False).model_proto

# Images need torchvision, this model does not; its wheel has to be of the same build as PyTorch's.
for name in ("torchvision", "torchvision.io", "torchvision.ops"):
    sys.modules[name] = unittest.mock.MagicMock()
import onnx2pytorch



def train_one_step(model: onnx.ModelProto) -> tuple[float, float]:
    onnx.checker.check_model(model, full_check=True)
    module = onnx2pytorch.ConvertModel(model).train()
    module(x)
    (batch_norm,) = (part for part in module.modules() if hasattr(part, "running_mean"))
    return round(batch_norm.momentum, 4), round(batch_norm.running_mean.item(), 4)


def parse(attribute: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 15]> g (float[2, 1, 1, 1] x) => (float[2, 1, 1, 1] y)
        <float[1] scale = {{1}}, float[1] B = {{0}}, float[1] mean = {{0}}, float[1] variance = {{1}}>
        {{ y = BatchNormalization {attribute} (x, scale, B, mean, variance) }}"""
    )


written, left_out, there_and_back = train_one_step(parse("<momentum = 0.9>")), train_one_step(parse("")), train_one_step(exported)
slow.train()(x)
print("PyTorch's momentum and the stored mean after a step: momentum = 0.9 written out", written, "left out", left_out)
print("from PyTorch's momentum 0.01 by way of ONNX", there_and_back, "and without", (0.01, round(slow.running_mean.item(), 4)))
assert written == (0.9, 1.8)
assert left_out == (0.1, 0.2)
assert there_and_back == (0.99, 1.98)
EOF
