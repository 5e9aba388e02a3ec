#!/usr/bin/env bash
# onnx 1.23.2, the light models that it ships (onnx/backend/test/data/light), in onnxruntime 1.32.0 with its extended
# optimisations.
#
# A good guess: a light model is the real network but for its weights, of which ConstantOfShape makes as many as there
# were, so that it runs as fast or as slowly.
# What happens: every weight of every layer is 0.02, so that convolutions of one shape that read one tensor, side by side,
# compute the same. ONNX Runtime's elimination of common subexpressions makes one of them, and both Inception networks
# run with fewer convolutions than they have. With weights drawn at random none goes.
# Seen: light_inception_v2 has 69 convolutions and keeps 60, light_inception_v1 57 and 55; with drawn weights 69 and 57.
# light_resnet50, whose convolutions side by side differ in shape, keeps its 53.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'EOF'
import pathlib

import numpy as np
import onnx
import onnxruntime

LIGHT = pathlib.Path(onnx.__file__).parent / "backend/test/data/light"


def count_convolutions(model: onnx.ModelProto) -> int:
    return sum(node.op_type in ("Conv", "FusedConv") for node in model.graph.node)


def optimise(model: onnx.ModelProto) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = "optimised.onnx"
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load("optimised.onnx")


def draw_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with an initializer drawn from [0.5, 1] for each ConstantOfShape."""
    random = np.random.default_rng(0)
    drawn = onnx.ModelProto.FromString(model.SerializeToString())
    shapes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in drawn.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            drawn.graph.node.remove(node)
            weight = random.uniform(0.5, 1, shapes[node.input[0]]).astype(np.float32)
            drawn.graph.initializer.append(onnx.numpy_helper.from_array(weight, node.output[0]))
    return drawn


seen = {}
for name in ("inception_v1", "inception_v2", "resnet50"):
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    drawn = draw_weights(model)
    seen[name] = [count_convolutions(m) for m in (model, optimise(model), drawn, optimise(drawn))]
    print(f"{name}: convolutions %d, optimised %d; with drawn weights %d, optimised %d" % tuple(seen[name]))
assert seen == {"inception_v1": [57, 55, 57, 57], "inception_v2": [69, 60, 69, 69], "resnet50": [53, 53, 53, 53]}
EOF
