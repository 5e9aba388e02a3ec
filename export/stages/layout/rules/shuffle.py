"""Rules for a shuffled axis: a constant takes the shuffle, so that no tensor has to be moved.

Flattening a channels-first tensor gives the elements of the channels-last one in another order.
With x' = x[:, s] for a shuffle s of the last axis,

    x  @ W  = x' @ W[s, :]          the rows of a constant matrix follow its input,
    (x @ W)' = x @ W[:, s]          its columns follow its output,
    f(x, c)' = f(x', c[s])          and so do the constants of elementwise operators on the way.

A shuffled tensor is never restored: such a move is made where every reader can follow.
"""

import math
from collections.abc import Callable

import onnx_ir as ir

from ....graph.exact import is_constant
from ....graph.families import ELEMENTWISE
from ..move import Arrangement, Move, flag, rank_of
from ..permutation import Shuffled, identity

__all__ = ["RULES"]


def _shuffled(shape: tuple[int, ...], axis: int, layout: Shuffled) -> Arrangement:
    """Return how a constant of this shape is shuffled along an axis."""
    taken_apart = (*shape[:axis], *layout.sizes, *shape[axis + 1 :])
    factors = tuple(axis + factor for factor in layout.factors)
    behind = range(axis + len(factors), len(taken_apart))
    return Arrangement(taken_apart, (*range(axis), *factors, *behind), shape)


def _elementwise(node: ir.Node, at: int, layout: Shuffled) -> Move | None:
    rank = rank_of(node.outputs[0])
    if rank is None or len(node.outputs) > 1 or (at >= 0 and rank_of(node.inputs[at]) != rank):
        return None
    inputs: list[Shuffled | None] = []
    constants: dict[int, Arrangement] = {}
    for index, value in enumerate(node.inputs):
        inputs.append(None)
        if value is None:
            continue
        if value.shape is None:
            return None
        axis = layout.axis - rank + len(value.shape)
        size = value.shape[axis] if axis >= 0 else 1
        if size == 1:
            continue
        if size != math.prod(layout.sizes):
            return None
        if is_constant(value):
            constants[index] = _shuffled(value.shape.numpy(), axis, layout)
        elif axis == layout.axis:
            inputs[index] = layout
        else:
            return None
    return Move(tuple(inputs), (layout,), constants=constants)


def _batch_normalization(node: ir.Node, at: int, layout: Shuffled) -> Move | None:
    constants = {}
    for index, value in enumerate(node.inputs[1:], 1):
        if value is None or value.shape is None or not is_constant(value):
            return None
        constants[index] = _shuffled(value.shape.numpy(), 0, layout)
    if layout.axis != 1 or rank_of(node.inputs[0]) != 2 or len(node.outputs) != 1:
        return None
    inputs = (layout, *[None] * len(constants))
    return Move(inputs, (layout,), constants=constants)


def _matrix_multiply(node: ir.Node, at: int, layout: Shuffled) -> Move | None:
    """Shuffle the rows of a MatMul's or Gemm's constant matrix, or its columns and bias."""
    data, weight = node.inputs[:2]
    rank = rank_of(data)
    if rank is None or at > 0 or layout.axis != rank - 1 or flag(node, "transA", default=False):
        return None
    if weight is None or weight.shape is None or len(weight.shape) != 2 or not is_constant(weight):
        return None
    transposed = flag(node, "transB", default=False)
    shape, contracts = weight.shape.numpy(), at == 0
    constants = {1: _shuffled(shape, int(contracts == transposed), layout)}
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and not contracts:
        if bias.shape is None or not is_constant(bias):
            return None
        bias_shape = bias.shape.numpy()
        if bias_shape and bias_shape[-1] != 1:
            constants[2] = _shuffled(bias_shape, len(bias_shape) - 1, layout)
    rest = (None,) * (len(node.inputs) - 1)
    natural = identity(rank)
    if contracts:
        return Move((layout, *rest), (natural,), constants=constants)
    return Move((natural, *rest), (layout,), constants=constants)


RULES: dict[str, Callable[[ir.Node, int, Shuffled], Move | None]] = {
    **dict.fromkeys(ELEMENTWISE | {"Dropout"}, _elementwise),
    "BatchNormalization": _batch_normalization,
    "Gemm": _matrix_multiply,
    "MatMul": _matrix_multiply,
}
