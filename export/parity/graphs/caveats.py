"""Two ONNX graphs -> notes on what a comparison of the two rests on."""

from collections.abc import Iterator

import onnx
from onnx import numpy_helper

from ...runtime.session import by_position
from ...stages.constants.evaluable import RANDOM
from .float64 import STANDARD

__all__ = ["caveats"]


def caveats(first: onnx.ModelProto, second: onnx.ModelProto) -> Iterator[str]:
    """Yield a note where tensors stand for each other in order, and where numbers are random.

    Args:
        first: What the other is compared with.
        second: What is judged, with as many inputs and outputs.
    """
    for what, names, there in (
        ("inputs", _inputs(first), _inputs(second)),
        ("outputs", _outputs(first), _outputs(second)),
    ):
        called = by_position(names, there)
        if called != names:
            yield (
                f"the {what} {names} of the first file stand for {called} of the second, in order"
            )
    random = [
        f"{n.op_type} {(n.name or n.output[0])!r}" for n in first.graph.node if _draws(first, n)
    ]
    if random:
        yield (
            f"the first file draws random numbers, others in each run ({', '.join(random)}): what "
            "depends on them shows no fault that is smaller than they are"
        )


def _inputs(proto: onnx.ModelProto) -> list[str]:
    constant = {tensor.name for tensor in proto.graph.initializer}
    return [value.name for value in proto.graph.input if value.name not in constant]


def _outputs(proto: onnx.ModelProto) -> list[str]:
    return [value.name for value in proto.graph.output]


def _draws(proto: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Say whether an operator draws random numbers; a Dropout does in training alone."""
    if node.op_type not in RANDOM or node.domain not in STANDARD:
        return False
    if node.op_type != "Dropout":
        return True
    training = node.input[2] if len(node.input) > 2 else ""
    constant = next((t for t in proto.graph.initializer if t.name == training), None)
    return bool(training) and (constant is None or bool(numpy_helper.to_array(constant).any()))
