"""How each operator takes part: the rule that covers it, or why none does."""

import onnx_ir as ir

from ....graph.families import NONLINEAR
from ....graph.operators import is_onnx
from ..affine_nodes import AffineNode, read, written
from ..algebra.affine import Affine
from ..differences import is_difference, require_precise
from ..reason import NotExactError, Reason
from ..tensors import name_of
from .joining import JOINING, split_rule
from .linear import LINEAR
from .pad import PADDING
from .passing import PASSING
from .taking import TAKING
from .ways import Maps, Move

__all__ = ["is_alone", "moves_of"]

RULES = LINEAR | PASSING | JOINING | PADDING | TAKING
TOGETHER = {*LINEAR, *JOINING, "BatchNormalization", "Split"}


def moves_of(node: ir.Node, pending: Maps, demanded: Maps, removed: ir.Node) -> list[Move]:
    """Return the ways in which an operator can take part, best first.

    Args:
        node: The operator.
        pending: By input, the map that it has to apply to what it reads.
        demanded: By output, the map that what it makes is to go through.
        removed: The affine operator that all this is to remove.

    Raises:
        NotExactError: If there is none.
    """
    if not is_onnx(node):
        raise NotExactError(Reason.OPERATOR_UNKNOWN, f"domain {node.domain!r}")
    affine = read(node)
    if affine is not None:
        return _affine(affine, pending, demanded.get(0), removed)
    if node.op_type == "Split":
        return split_rule(node, pending, demanded)
    rule = RULES.get(node.op_type)
    if rule is None:
        known = node.op_type in NONLINEAR
        raise NotExactError(Reason.NOT_LINEAR if known else Reason.OPERATOR_UNKNOWN)
    if set(demanded) - {0}:
        raise NotExactError(Reason.OPERATOR_UNKNOWN, f"output {max(demanded)}")
    return rule(node, pending, demanded.get(0))


def is_alone(node: ir.Node) -> bool:
    """Say whether no change elsewhere helps a node with what it has to apply to its input."""
    return node.op_type not in TOGETHER


def _affine(
    affine: AffineNode, pending: Maps, demanded: Affine | None, removed: ir.Node
) -> list[Move]:
    """Let an affine operator compute another map, alone or with help of its neighbours.

    An Add, Sub, Mul or Div becomes a BatchNormalization, which does the work of two, only in place
    of one that stands next to it.
    """
    if set(pending) - {affine.data}:
        raise NotExactError(Reason.PARAMETERS_NOT_CONSTANT)
    if demanded is not None and is_difference(affine.map) and not is_difference(demanded):
        require_precise(affine)
    before = pending.get(affine.data)
    new = affine.map if before is None else affine.map.after(before)
    new = new if demanded is None else demanded.after(new)
    try:
        edit = written(affine, new, before)
        if edit.op_type == affine.node.op_type or edit.op_type != "BatchNormalization":
            return [Move(edit=edit)]
        if _stand_in_a_row(affine.node, removed):
            return [Move(edit=edit)]
        raise NotExactError(
            Reason.NOT_ONE_OPERATOR, f"{affine.node.op_type} {name_of(affine.node)}"
        )
    except NotExactError as e:
        if before is not None and demanded is not None:
            raise
        refused = e
    moves = []
    if new.scale.all():  # as an Add, or as a Mul, with the other part passed on
        for kept, passed in _parts(new, forward=demanded is None):
            edit = written(affine, kept, before)
            if demanded is None:
                moves.append(Move(pendings={0: passed}, edit=edit))
            else:
                moves.append(Move(demands={affine.data: passed}, edit=edit))
    if not moves:
        raise refused
    return moves


def _stand_in_a_row(a: ir.Node, b: ir.Node) -> bool:
    """Say whether one of two operators reads what the other makes."""
    return a.outputs[0] in b.inputs or b.outputs[0] in a.inputs


def _parts(a: Affine, forward: bool) -> list[tuple[Affine, Affine]]:
    """Return a map in two steps: what stays and what is passed on, forward or backward.

    scale x + shift = scale (x + shift / scale)
    """
    scale, shift = a.only_scale(), a.only_shift()
    before = Affine(shift.scale, a.shift / a.scale)
    if forward:  # passed on is what comes second
        return [(before, scale), (scale, shift)]
    return [(shift, scale), (scale, before)]
