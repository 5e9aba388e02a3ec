"""Two ONNX graphs -> notes on what a comparison of the two rests on."""

from collections.abc import Iterator

import onnx
from onnx import numpy_helper

from ...graph.operators import STANDARD
from ...runtime.session import by_position
from ...stages.constants.evaluable import RANDOM
from .float64 import fed_inputs

__all__ = ["caveats"]


def caveats(first: onnx.ModelProto, second: onnx.ModelProto) -> Iterator[str]:
    """Yield a note where tensors stand for each other in order, and where numbers are random.

    Args:
        first: What the other is compared with.
        second: What is judged, with as many inputs and outputs.
    """
    graphs = first.graph, second.graph
    for what, values in (
        ("inputs", [fed_inputs(graph) for graph in graphs]),
        ("outputs", [graph.output for graph in graphs]),
    ):
        names, there = ([value.name for value in of_one] for of_one in values)
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


def _draws(proto: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Say whether an operator draws random numbers; a Dropout does in training alone."""
    if node.op_type not in RANDOM or node.domain not in STANDARD:
        return False
    if node.op_type != "Dropout":
        return True
    training = node.input[2] if len(node.input) > 2 else ""
    constant = next((t for t in proto.graph.initializer if t.name == training), None)
    return bool(training) and (constant is None or bool(numpy_helper.to_array(constant).any()))
