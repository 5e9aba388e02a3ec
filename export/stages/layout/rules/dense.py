"""The rule for a constant matrix: with the channels second, MatMul is a 1x1 convolution.

    transpose(x @ W, p) = transpose(x, p) @ W         where p leaves the last axis the last
    transpose(x @ W, p) = conv(transpose(x, p), K)    where it is second; K[j, i, 0, ..] = W[i, j]

So the Dense layers of a ConvNeXt block work on what the convolution before them stored.
"""

import onnx_ir as ir

from ....graph.exact import is_constant
from ..move import Arrangement, Move, Rule, rank_of
from ..permutation import Permutation, channels_second

__all__ = ["RULES"]

CONVOLVED = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})  # what ONNX Runtime convolves
HIGHEST_RANK = 5


def _matrix_multiply(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    data, weight = node.inputs
    rank = rank_of(data)
    if at > 0 or rank is None or rank != len(layout) or is_constant(data):
        return None
    if weight is None or weight.shape is None or len(weight.shape) != 2 or not is_constant(weight):
        return None
    if layout[-1] == rank - 1:
        return Move((layout, None), (layout,))
    if layout != channels_second(rank) or rank > HIGHEST_RANK:
        return None
    if node.outputs[0].dtype not in CONVOLVED:
        return None
    rows, columns = weight.shape.numpy()
    kernel = Arrangement((rows, columns), (1, 0), (columns, rows) + (1,) * (rank - 2))
    return Move((layout, None), (layout,), constants={1: kernel}, op_type="Conv")


RULES: dict[str, Rule] = {"MatMul": _matrix_multiply}
