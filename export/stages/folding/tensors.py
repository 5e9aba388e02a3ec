"""What is known of a graph's tensors and of the integers that a node reads."""

import numpy as np
import onnx_ir as ir

from ...graph.exact import is_constant
from .algebra.affine import Affine, constant_along
from .reason import NotExactError, Reason

__all__ = [
    "constant_where_resized",
    "integers",
    "known_sizes",
    "name_of",
    "require_fit",
    "sizes_of",
    "to_rank",
]

Sizes = list[int | str | None]


def name_of(node: ir.Node) -> str:
    """Return a node's name, or that of its output where it has none."""
    return str(node.name or node.outputs[0].name)


def sizes_of(value: ir.Value | None) -> Sizes | None:
    """Return the size of each axis: an integer, a name, or None; None if the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return [size if isinstance(size, int) else size.value for size in value.shape]


def known_sizes(value: ir.Value | None) -> Sizes:
    """Return the size of each axis.

    Raises:
        NotExactError: If the rank is unknown.
    """
    sizes = sizes_of(value)
    if sizes is None:
        raise NotExactError(Reason.SHAPE_UNKNOWN, f"tensor {getattr(value, 'name', None)!r}")
    return sizes


def integers(node: ir.Node, index: int, attribute: str) -> list[int] | None:
    """Return integers that older operators have as an attribute and newer ones as an input.

    Returns:
        The integers; None if the node has neither.

    Raises:
        NotExactError: If they are computed at run time.
    """
    if attribute in node.attributes:
        value = node.attributes[attribute].value
        return [value] if isinstance(value, int) else list(value)
    operand = node.inputs[index] if index < len(node.inputs) else None
    if operand is None:
        return None
    if not is_constant(operand) or operand.const_value is None:
        raise NotExactError(Reason.PARAMETERS_NOT_CONSTANT, f"tensor {operand.name!r}")
    return [int(n) for n in np.ravel(operand.const_value.numpy())]


def constant_where_resized(node: ir.Node, a: Affine) -> Affine:
    """Return the map if it is the same along the axes whose size a node changes.

    Raises:
        NotExactError: If it is not.
    """
    before, after = known_sizes(node.inputs[0]), known_sizes(node.outputs[0])
    added = len(after) - len(before)
    resized = set(range(added))
    for axis, size in enumerate(before):
        other = after[axis + added]
        if size is None or size != other:
            resized.add(axis + added)
    return constant_along(a, resized)


def to_rank(a: Affine, rank: int) -> Affine:
    """Return a map for a tensor that broadcasting gives another rank: axes are added in front.

    Raises:
        NotExactError: If the tensor lacks an axis along which the map differs.
    """
    if a.rank <= rank:
        return a.moved(lambda array: array.reshape((1,) * (rank - a.rank) + array.shape))
    if any(axis < a.rank - rank for axis in a.axes):
        raise NotExactError(Reason.NOT_PER_CHANNEL, "an operand is the same for all channels")
    return a.moved(lambda array: array.reshape(array.shape[a.rank - rank :]))


def require_fit(a: Affine, value: ir.Value) -> None:
    """Require that a tensor has the axes along which a map differs.

    Raises:
        NotExactError: If it does not, or if its sizes are unknown.
    """
    sizes = known_sizes(value)
    for axis in a.axes:
        if not isinstance(sizes[axis], int):
            raise NotExactError(Reason.SHAPE_UNKNOWN, f"axis {axis} of tensor {value.name!r}")
        if {a.scale.shape[axis], a.shift.shape[axis]} - {1, sizes[axis]}:
            raise NotExactError(
                Reason.NOT_PER_CHANNEL, f"tensor {value.name!r} is the same for all channels"
            )
