#!/usr/bin/env bash
# coremltools 9.0 with PyTorch 2.13.0, converting nn.InstanceNorm2d(track_running_stats=True) in eval mode, beside
# torch.onnx.export with ONNX Runtime 1.32.0, and OpenVINO 2026.4.1. Core ML is not run: the converted program is read.
#
# A good guess: the stored statistics are used in inference, as PyTorch documents, computes and exports to ONNX, where
# the layer is a BatchNormalization.
# What happens: coremltools writes instance_norm, which computes mean and variance anew from each image, from a traced
# module as well as from an exported program. The stored ones are nowhere in the model, and nothing warns.
# Seen: x = [1, 3], stored mean 2 and variance 4: [-0.5, 0.5] in PyTorch, ONNX Runtime and OpenVINO. Core ML's operator has
# the inputs x and epsilon, which makes [-1, 1]; the program of a module with mean 0 and variance 1 is the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check coremltools==9.0 torch==2.13.0 onnxscript==0.7.2 \
    onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 numpy==2.4.6
TQDM_DISABLE=1 "$folder/bin/python" -W ignore - <<'EOF' 2>&1 | grep -v -e "Failed to load" -e "has not been tested" -e torchvision -e UserWarning
import copy
import logging

import coremltools
import numpy as np
import onnxruntime
import openvino
import torch

logging.disable(logging.WARNING)
x = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)
new = torch.nn.InstanceNorm2d(1, track_running_stats=True).eval()
trained = copy.deepcopy(new)
trained.running_mean.fill_(2)
trained.running_var.fill_(4)


def exported(module: torch.nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(module, (x,)).run_decompositions({})


def operators(source: object) -> list[tuple[str, list[str]]]:
    inputs = None if isinstance(source, torch.export.ExportedProgram) else [coremltools.TensorType("x", x.shape)]
    model = coremltools.convert(
        source, inputs=inputs, compute_precision=coremltools.precision.FLOAT32, skip_model_load=True
    )
    program = model.get_spec().mlProgram.functions["main"]
    (block,) = program.block_specializations.values()
    return [(operator.type, sorted(operator.inputs)) for operator in block.operations if operator.type != "const"]


model = torch.onnx.export(trained, (x,), dynamo=True, verbose=False).model_proto
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
of_openvino = openvino.compile_model(openvino.convert_model(trained, example_input=x), "CPU")(x.numpy())[0]
of_onnx = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
print("PyTorch", trained(x).ravel().tolist(), "ONNX Runtime", of_onnx.ravel(), "OpenVINO", of_openvino.ravel())
for seen in (trained(x).numpy(), of_onnx, of_openvino):
    np.testing.assert_allclose(seen.ravel(), [-0.5, 0.5], rtol=1e-4)
for convert in (lambda module: torch.jit.trace(module, x), exported):
    seen = [operators(convert(module)) for module in (trained, new)]
    print("Core ML", *seen)
    assert seen == [[("instance_norm", ["epsilon", "x"])]] * 2, seen
EOF
