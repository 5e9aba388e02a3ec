"""A map beside the tensors of a graph: whether it fits them, and what it makes of a constant."""

import numpy as np
import onnx_ir as ir

from ...graph.exact import ExactTensor
from .algebra.affine import Affine, constant_along
from .reason import NotExactError, Reason
from .tensors import known_sizes

__all__ = ["constant_where_resized", "mapped", "require_fit", "to_rank"]


def mapped(value: ir.Value, a: Affine) -> ExactTensor:
    """Return what a map makes of a constant, which may grow along axes of size 1."""
    tensor = ExactTensor.of(value.const_value)  # type: ignore[arg-type]
    if a.is_scale and np.broadcast_shapes(tensor.sizes, a.scale.shape) == tensor.sizes:
        return tensor * a.scale
    return ExactTensor(a.scale * tensor.exact + a.shift, tensor.dtype)


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
