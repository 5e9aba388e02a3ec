"""Tensors that are added up share one scale, and one reader that cannot undo it is enough.

    a (x + z) = (a x) + (a z)

A scale of any tensor of a trunk, such as the skip connections of a residual network, is a scale of
all of them: of the summands of each sum and of the sum itself. So what one search for such a scale
has found in its way stands in the way of the next, wherever on the trunk that begins: a graph
output, a nonlinear reader, or, where a scale is negative, a ReLU. A search that ends there anyway
need not walk the trunk first.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ...graph.exact import is_constant
from ...graph.families import NONLINEAR
from ...graph.operators import is_onnx
from .algebra.affine import Affine
from .reason import NotExactError, Reason
from .tensors import name_of

__all__ = ["Trunks"]

SUMS = frozenset({"Add", "Sub", "Sum"})
KEEPING_SIGNS = frozenset({"Abs", "LeakyRelu", "PRelu", "Relu"})


@dataclass(frozen=True)
class _Trunk:
    """Tensors that share a scale.

    Attributes:
        nodes: The sums, and what is in the way.
        nonlinear: Readers that undo no scale.
        keeping_signs: Readers that undo no negative scale.
        output: A tensor that is a graph output, if there is one.
    """

    nodes: frozenset[ir.Node]
    nonlinear: list[ir.Node]
    keeping_signs: list[ir.Node]
    output: ir.Value | None


class Trunks:
    """The trunks of a graph, found when they are asked for.

    Args:
        graph: The graph. Whoever lets a tensor have other readers has it forgotten.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._found: dict[ir.Value, _Trunk] = {}

    def forget(self, *values: ir.Value) -> None:
        """Forget what was found, if one of these tensors, whose readers change, is part of it."""
        if any(value in self._found for value in values):
            self._found.clear()

    def require_scalable(
        self, value: ir.Value, a: Affine, removed: ir.Node, seen: set[ir.Node]
    ) -> None:
        """Require that nothing is in the way of a scale of a tensor and all that it is added to.

        Args:
            value: The tensor.
            a: A map of it that scales.
            removed: A reader that is to go.
            seen: Takes the nodes on which the answer depends.

        Raises:
            NotExactError: If something is.
        """
        trunk = self._found.get(value)
        if trunk is None:
            trunk = self._trunk(value)
        seen.update(trunk.nodes)
        if trunk.output is not None:
            raise NotExactError(Reason.GRAPH_OUTPUT, f"tensor {trunk.output.name!r}")
        for node in trunk.nonlinear:
            if node is not removed:
                raise NotExactError(Reason.NOT_LINEAR, f"{node.op_type} {name_of(node)}")
        if (a.scale > 0).all():
            return
        for node in trunk.keeping_signs:
            if node is not removed:
                detail = f"{node.op_type} {name_of(node)}: a scale of {a.scale.min():.3g}"
                raise NotExactError(Reason.NEGATIVE_SCALE, detail)

    def _trunk(self, value: ir.Value) -> _Trunk:
        left, members = [value], {value}
        nodes: set[ir.Node] = set()
        while left:
            for node in self._sums_at(left.pop()):
                nodes.add(node)
                for other in (*node.inputs, *node.outputs):
                    if other is not None and other not in members and _may_share(other, value):
                        members.add(other)
                        left.append(other)
        readers = list(dict.fromkeys(use.node for member in members for use in member.uses()))
        nonlinear = [n for n in readers if is_onnx(n) and n.op_type in NONLINEAR]
        keeping = [n for n in readers if is_onnx(n) and n.op_type in KEEPING_SIGNS]
        output = next((member for member in members if member.is_graph_output()), None)
        trunk = _Trunk(frozenset({*nodes, *nonlinear, *keeping}), nonlinear, keeping, output)
        self._found.update(dict.fromkeys(members, trunk))
        return trunk

    def _sums_at(self, value: ir.Value) -> Iterator[ir.Node]:
        """Yield the sums that make a tensor or read it."""
        for node in (value.producer(), *(use.node for use in value.uses())):
            if node is None or node.op_type not in SUMS or not is_onnx(node):
                continue
            if node.graph is self._graph and not any(map(is_constant, node.inputs)):
                yield node


def _may_share(value: ir.Value, other: ir.Value) -> bool:
    """Say whether a summand surely has the scale of another one, being of its rank."""
    if value.shape is None or other.shape is None:
        return False
    return len(value.shape) == len(other.shape)
