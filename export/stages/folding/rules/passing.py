"""Operators of one tensor that let a map through, f(A x) = A' f(x), and which maps those are."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ....graph.exact import FLOATING, exact, is_constant
from ..algebra.affine import Affine, constant_along, through_maximum, through_product
from ..algebra.rearranging import repeated, reshaped, transposed, unrepeated
from ..maps import constant_where_resized, to_rank
from ..reason import NotExactError, Reason
from ..tensors import Sizes, integers, known_sizes
from .ways import Rule, passing

__all__ = ["PASSING"]


def _unchanged(_: ir.Node, a: Affine) -> Affine:
    return a


def _cast(node: ir.Node, a: Affine) -> Affine:
    for value in (node.inputs[0], node.outputs[0]):
        if value is None or value.dtype not in FLOATING:
            raise NotExactError(Reason.NOT_LINEAR, "from or to what is no floating-point number")
    return a


def _dropout(node: ir.Node, a: Affine) -> Affine:
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is not None and not (is_constant(training) and not exact(training).any()):
        raise NotExactError(Reason.TRAINING_MODE, "")
    return _only_output(node, a)


def _only_output(node: ir.Node, a: Affine) -> Affine:
    for output in node.outputs[1:]:
        if output.uses() or output.is_graph_output():
            raise NotExactError(Reason.USED_ELSEWHERE, f"tensor {output.name!r}")
    return a


# Transpose, and what only changes the shape


def _perm(node: ir.Node, rank: int) -> list[int]:
    return list(node.attributes.get_ints("perm", range(rank)[::-1]))


def _transpose(node: ir.Node, a: Affine) -> Affine:
    return transposed(a, _perm(node, a.rank))


def _transpose_back(node: ir.Node, a: Affine) -> Affine:
    return transposed(a, np.argsort(_perm(node, a.rank)).tolist())


def _reshape(node: ir.Node, a: Affine) -> Affine:
    return reshaped(a, known_sizes(node.inputs[0]), _new_sizes(node))


def _reshape_back(node: ir.Node, a: Affine) -> Affine:
    return reshaped(a, _new_sizes(node), known_sizes(node.inputs[0]))


def _new_sizes(node: ir.Node) -> Sizes:
    """Return the sizes that a Reshape gives; those that it copies are called as in its input."""
    after, before = known_sizes(node.outputs[0]), known_sizes(node.inputs[0])
    target = node.inputs[1] if node.op_type == "Reshape" else None
    if target is None or not is_constant(target) or node.attributes.get_int("allowzero", False):
        return after
    sizes = exact(target).tolist()
    return [
        before[axis] if sizes[axis] == 0 and axis < len(before) else after[axis]
        for axis in range(len(after))
    ]


# Pooling and reductions


def _spatial(a: Affine) -> set[int]:
    return set(range(2, a.rank))


def _average_pool(node: ir.Node, a: Affine) -> Affine:
    counts = node.attributes.get_int("count_include_pad", 0)
    padded = any(node.attributes.get_ints("pads", [])) or _is_same(node)
    if counts and (padded or node.attributes.get_int("ceil_mode", 0)) and not a.is_scale:
        raise NotExactError(Reason.ZERO_PADDING, "the mean counts the padding")
    return constant_along(a, _spatial(a))


def _is_same(node: ir.Node) -> bool:
    return node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")


def _max_pool(node: ir.Node, a: Affine) -> Affine:
    return _only_output(node, constant_along(through_maximum(a), _spatial(a)))


def _global_pool(_: ir.Node, a: Affine) -> Affine:
    return constant_along(a, _spatial(a))


def _global_max_pool(_: ir.Node, a: Affine) -> Affine:
    return constant_along(through_maximum(a), _spatial(a))


def _reduction(check: Callable[[Affine], Affine]) -> Rule:
    """Return the rule of a reduction, given which maps it keeps."""

    def axes_of(node: ir.Node) -> tuple[list[int], bool]:
        rank = len(known_sizes(node.inputs[0]))
        axes = integers(node, 1, "axes")
        if not axes:
            nothing = node.attributes.get_int("noop_with_empty_axes", 0)
            axes = [] if nothing else list(range(rank))
        return sorted(axis % rank for axis in axes), bool(node.attributes.get_int("keepdims", 1))

    def forward(node: ir.Node, a: Affine) -> Affine:
        axes, keepdims = axes_of(node)
        a = constant_along(check(a), set(axes))
        return a if keepdims else a.moved(lambda array: array.squeeze(tuple(axes)))

    def backward(node: ir.Node, a: Affine) -> Affine:
        axes, keepdims = axes_of(node)
        a = check(a) if keepdims else check(a).moved(lambda array: np.expand_dims(array, axes))
        return constant_along(a, set(axes))

    return passing(forward, backward)


def _positive_scale(_: ir.Node, a: Affine) -> Affine:
    return through_maximum(through_product(a))


def _negative(_: ir.Node, a: Affine) -> Affine:
    """Return A' of a sign change: -(scale x + shift) = scale (-x) - shift."""
    return Affine(a.scale, -a.shift)


def _resize(node: ir.Node, a: Affine) -> Affine:
    """Return the map if it is the same along all axes that are resampled.

    A factor that is not 1 resamples an axis even where the size stays, as 1.2 times 4 is 4 again.
    """
    if node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise NotExactError(Reason.SHIFT, "it extrapolates with a number of its own")
    axes = [axis % a.rank for axis in node.attributes.get_ints("axes", range(a.rank))]
    if node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        a = constant_along(a, set(axes))
    for operand in node.inputs[1:3]:  # among them are the factors, in any opset
        if operand is None or operand.dtype is not ir.DataType.FLOAT:
            continue
        if not is_constant(operand):
            raise NotExactError(Reason.PARAMETERS_NOT_CONSTANT, f"tensor {operand.name!r}")
        factors = exact(operand)
        if factors.size == len(axes):
            a = constant_along(a, {axes[i] for i in np.flatnonzero(factors != 1.0)})
    return constant_where_resized(node, a)


# Channels to places


def _depth_to_space(node: ir.Node) -> tuple[int, bool]:
    blocks = node.attributes.get_int("blocksize", 1) ** 2
    return blocks, node.attributes.get_string("mode", "DCR") == "CRD"


def _unrepeated(node: ir.Node, a: Affine) -> Affine:
    return unrepeated(constant_along(a, _spatial(a)), 1, *_depth_to_space(node))


def _repeated(node: ir.Node, a: Affine) -> Affine:
    return repeated(constant_along(a, _spatial(a)), 1, *_depth_to_space(node))


def _expand(node: ir.Node, a: Affine) -> Affine:
    return to_rank(a, len(known_sizes(node.outputs[0])))


def _expand_back(node: ir.Node, a: Affine) -> Affine:
    return to_rank(constant_where_resized(node, a), len(known_sizes(node.inputs[0])))


_RESHAPE = passing(_reshape, _reshape_back)
_POSITIVE = passing(_positive_scale, _positive_scale)

PASSING: dict[str, Rule] = {
    "Abs": _POSITIVE,
    "AveragePool": passing(_average_pool, _average_pool),
    "Cast": passing(_cast, _cast),
    "DepthToSpace": passing(_unrepeated, _repeated),
    "Dropout": passing(_dropout, _dropout),
    "Expand": passing(_expand, _expand_back),
    "Flatten": _RESHAPE,
    "GlobalAveragePool": passing(_global_pool, _global_pool),
    "GlobalMaxPool": passing(_global_max_pool, _global_max_pool),
    "Identity": passing(_unchanged, _unchanged),
    "LeakyRelu": _POSITIVE,
    "MaxPool": passing(_max_pool, _max_pool),
    "Neg": passing(_negative, _negative),
    "PRelu": _POSITIVE,
    "ReduceMax": _reduction(through_maximum),
    "ReduceMean": _reduction(lambda a: a),
    "ReduceMin": _reduction(through_maximum),
    "ReduceSum": _reduction(through_product),
    "Relu": _POSITIVE,
    "Reshape": _RESHAPE,
    "Resize": passing(_resize, _resize),
    "SpaceToDepth": passing(_repeated, _unrepeated),
    "Squeeze": _RESHAPE,
    "Tile": passing(constant_where_resized, constant_where_resized),
    "Transpose": passing(_transpose, _transpose_back),
    "Unsqueeze": _RESHAPE,
    "Upsample": passing(_resize, _resize),
}
