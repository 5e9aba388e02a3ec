#!/usr/bin/env bash
# jax2onnx 0.17.1 with flax 0.12.8 (nnx), on two convolutions with a batch norm and an activation between them, beside
# ONNX Runtime 1.32.0.
#
# A good guess: to_onnx returns a file that onnx.checker accepts and ONNX Runtime loads, with a batch norm as without.
# What happens: the layers are channels last, the operators channels first, and the pair of Transposes between the two
# convolutions is removed; the shapes declared behind the BatchNormalization, whose own output has none, stay as they
# were between the Transposes. The checker refuses each such file; ONNX Runtime warns at a relu or a silu and refuses a
# hard swish. Without the batch norm, or with the shapes deleted, the files are right.
# Seen: hard swish: (1, 16, 16, 4) declared for a tensor of (1, 4, 16, 16), "Incompatible dimensions" on loading; relu:
# loads and is right to 1e-5, the checker refuses it too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check jax2onnx==0.17.1 flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 \
    onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/bin/python" -W ignore - <<'EOF'
from collections.abc import Callable

import jax
import numpy as np
import onnx
import onnxruntime
from flax import nnx
from jax2onnx import to_onnx

x = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)


class Network(nnx.Module):
    def __init__(self, activation: Callable[[jax.Array], jax.Array], normalised: bool):
        self.first = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
        self.batch_norm = nnx.BatchNorm(4, use_running_average=True, rngs=nnx.Rngs(0)) if normalised else lambda y: y
        self.second = nnx.Conv(4, 2, (1, 1), rngs=nnx.Rngs(0))
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.second(self.activation(self.batch_norm(self.first(x))))


def what_happens(check: Callable[[], object]) -> str:
    try:
        check()
    except Exception as error:
        return "Incompatible dimensions" if "Incompatible dimensions" in str(error) else type(error).__name__
    return "right"


def run(model: onnx.ModelProto, wanted: jax.Array) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x})[0], wanted, atol=1e-5)


for activation, normalised, wanted in (
    (nnx.hard_swish, False, ["right", "right", "right"]),
    (nnx.relu, True, ["InferenceError", "right", "right"]),
    (nnx.hard_swish, True, ["Incompatible dimensions", "Incompatible dimensions", "right"]),
):
    network = Network(activation, normalised)
    model = to_onnx(network, [x.shape])
    sizes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in model.graph.value_info}
    reader = next(node for node in model.graph.node if node.op_type in ("Add", "Max"))
    seen = [what_happens(lambda: onnx.checker.check_model(model, full_check=True))]
    for _ in range(2):  # with the declared shapes, and without
        seen.append(what_happens(lambda: run(model, network(x))))
        del model.graph.value_info[:]
    print(activation.__name__, "with" if normalised else "without", "a batch norm:", sizes[reader.output[0]], seen)
    assert sizes[reader.output[0]] == ([1, 16, 16, 4] if normalised else [1, 4, 16, 16])
    assert seen == wanted, seen
EOF
