"""What a rule says: how one operator makes up for changed inputs, or gives a changed output."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ..algebra.affine import Affine
from ..edits import Edit
from ..reason import NotExactError, Reason

__all__ = ["Maps", "Move", "MovesOf", "Rule", "passing"]

Maps = Mapping[int, Affine]


@dataclass(frozen=True)
class Move:
    """One way in which an operator can take part.

    Attributes:
        demands: By input, the map A that it wants its input to have gone through.
        pendings: By output, the map P that its readers have to apply from now on.
        edit: How its own constants change; None if they do not.
    """

    demands: Maps = field(default_factory=dict)
    pendings: Maps = field(default_factory=dict)
    edit: Edit | None = None


# What an operator does about pending maps of its inputs and a demanded map of its output: the
# ways, best first.
Rule = Callable[[ir.Node, Maps, Affine | None], list[Move]]
# The same of any operator: by input the pending maps, by output the demanded ones, and the affine
# operator that all this is to remove.
MovesOf = Callable[[ir.Node, Maps, Maps, ir.Node], list[Move]]
Through = Callable[[ir.Node, Affine], Affine]


def passing(forward: Through, backward: Through) -> Rule:
    """Return the rule of an operator of one tensor, f, that lets a map through.

    Args:
        forward: Gives A' of A, f(A x) = A' f(x).
        backward: Gives A of A'.
    """

    def rule(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
        if set(pending) - {0}:
            raise NotExactError(Reason.PARAMETERS_NOT_CONSTANT, "")
        if demanded is None:
            return [Move(pendings={0: forward(node, pending[0])})]
        if not pending:
            return [Move(demands={0: backward(node, demanded)})]
        if not demanded.after(forward(node, pending[0])).is_identity:
            raise NotExactError(Reason.USED_ELSEWHERE, "two maps meet there")
        return [Move()]

    return rule
