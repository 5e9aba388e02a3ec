"""Operators of several tensors: which maps of some make up for a map of another.

Concat, Split    each part has its own map
A (x + z)        = (scale x + shift) + scale z
(A x) + z        = A (x + z / scale),  or x + (z + shift) where scale is 1
(A x) z          = A (x z)  where there is no shift
"""

from collections.abc import Iterable

import onnx_ir as ir

from ....graph.operators import is_onnx
from ..algebra.affine import Affine, identity, through_product
from ..algebra.rearranging import joined, split
from ..maps import to_rank
from ..reason import NotExactError, Reason
from ..tensors import integers, known_sizes
from .ways import Maps, Move, Rule

__all__ = ["JOINING"]

WITH_BIAS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})  # a product becomes a Gemm


def _concat(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
    rank = len(known_sizes(node.inputs[0]))
    axis = node.attributes.get_int("axis", 0) % rank
    sizes = [known_sizes(value)[axis] for value in node.inputs]
    if demanded is None:
        parts = [pending.get(i, identity(rank)) for i in range(len(sizes))]
        return [Move(pendings={0: joined(parts, axis, sizes)})]
    if pending:
        raise NotExactError(Reason.USED_ELSEWHERE, "two maps meet there")
    return [Move(demands=dict(enumerate(split(demanded, axis, sizes))))]


def split_rule(node: ir.Node, pending: Maps, demanded: Maps) -> list[Move]:
    """Return the ways in which a Split takes part, whose outputs may each have a map demanded."""
    rank = len(known_sizes(node.inputs[0]))
    axis = node.attributes.get_int("axis", 0) % rank
    sizes = [known_sizes(value)[axis] for value in node.outputs]
    integers(node, 1, "split")
    if not demanded:
        return [Move(pendings=dict(enumerate(split(pending[0], axis, sizes))))]
    if pending:
        raise NotExactError(Reason.USED_ELSEWHERE, "two maps meet there")
    parts = [demanded.get(i, identity(rank)) for i in range(len(sizes))]
    return [Move(demands={0: joined(parts, axis, sizes)})]


def _sum(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
    """A sum of tensors with signs, which the maps of some of them share a scale with."""
    rank = len(known_sizes(node.outputs[0]))
    count = len(node.inputs)
    signs = [-1.0 if node.op_type == "Sub" and i == 1 else 1.0 for i in range(count)]
    if demanded is None:
        return _sum_forward(node, pending, signs, rank)
    if pending:
        raise NotExactError(Reason.USED_ELSEWHERE, "two maps meet there")
    ranks = [len(known_sizes(value)) for value in node.inputs]
    if demanded.is_scale:
        return [Move(demands={i: to_rank(demanded, ranks[i]) for i in range(count)})]
    if len(set(node.inputs)) == 1 and node.op_type != "Sub":  # x + x = 2 x
        share = Affine(demanded.scale, demanded.shift / count)
        return [Move(demands=dict.fromkeys(range(count), share))]
    moves = []
    for taker in _takers(node, range(count)):  # all take the scale, one of them the shift
        share = Affine(demanded.scale, signs[taker] * demanded.shift)
        maps = {i: share if i == taker else demanded.only_scale() for i in range(count)}
        moves.append(_demand(maps, ranks))
    return _first_possible(moves)


def _takers(node: ir.Node, inputs: Iterable[int]) -> list[int]:
    """Return inputs in the order in which they are asked to take a shift.

    A bias that nobody else depends on comes before a tensor that others read, which may be one of
    a long row of sums.
    """

    def is_bias(index: int) -> bool:
        value = node.inputs[index]
        producer = value.producer() if value is not None else None
        if value is None or producer is None or len(value.uses()) > 1:
            return False
        return producer.op_type in WITH_BIAS and is_onnx(producer)

    return sorted(inputs, key=lambda index: not is_bias(index))


def _demand(maps: Maps, ranks: list[int], pendings: Maps | None = None) -> Move | None:
    """Return a move; None if a summand, of a rank of its own, lacks the axes of its map."""
    try:
        return Move({i: to_rank(a, ranks[i]) for i, a in maps.items()}, pendings or {})
    except NotExactError:
        return None


def _first_possible(moves: list[Move | None]) -> list[Move]:
    possible = [move for move in moves if move is not None]
    if not possible:
        raise NotExactError(Reason.NOT_PER_CHANNEL, "no summand has the axes of the map")
    return possible


def _sum_forward(node: ir.Node, pending: Maps, signs: list[float], rank: int) -> list[Move]:
    maps = {i: to_rank(a, rank) for i, a in pending.items()}
    first, *others = maps.values()
    shift = sum((signs[i] * a.shift for i, a in maps.items()), start=0.0 * first.shift)
    for other in others:
        if not Affine(other.scale, 0 * other.shift).after(first.only_scale().inverse()).is_identity:
            raise NotExactError(Reason.USED_ELSEWHERE, "summands have different scales")
    whole = Affine(first.scale, shift)
    rest = [i for i in range(len(signs)) if i not in pending]
    if not rest:
        return [Move(pendings={0: whole})]
    inverse = whole.only_scale().inverse()
    ranks = [len(known_sizes(value)) for value in node.inputs]
    moves = []
    for taker in _takers(node, rest if not whole.is_scale else []):  # a neighbour's bias
        share = Affine(inverse.scale, inverse.scale * shift * signs[taker])
        maps = {i: share if i == taker else inverse for i in rest}
        moves.append(_demand(maps, ranks, {0: whole.only_scale()}))
    moves.append(_demand(dict.fromkeys(rest, inverse), ranks, {0: whole}))
    return _first_possible(moves)


def _product(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
    rank = len(known_sizes(node.outputs[0]))
    maps = {i: through_product(to_rank(a, rank)) for i, a in pending.items()}
    whole = identity(rank)
    for i, a in maps.items():
        whole = whole.after(a.inverse() if node.op_type == "Div" and i == 1 else a)
    if demanded is None:
        return [Move(pendings={0: whole})]
    wanted = through_product(demanded).after(whole)
    if wanted.is_identity:
        return [Move()]
    if pending:
        raise NotExactError(Reason.USED_ELSEWHERE, "two maps meet there")
    moves: list[Move | None] = []
    for i in range(len(node.inputs)):
        try:
            share = wanted.inverse() if node.op_type == "Div" and i == 1 else wanted
            moves.append(Move(demands={i: to_rank(share, len(known_sizes(node.inputs[i])))}))
        except NotExactError:
            continue
    return _first_possible(moves)


JOINING: dict[str, Rule] = {
    "Add": _sum,
    "Concat": _concat,
    "Div": _product,
    "Mul": _product,
    "Sub": _sum,
    "Sum": _sum,
}
