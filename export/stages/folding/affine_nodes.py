"""Affine operators of a graph: read one as a map, and write a map as one operator.

An affine operator is an inference-time BatchNormalization, or a Mul, Add, Sub or Div with one
constant operand. A map is written as

    scale only               Mul
    shift only               Add
    both, for each channel   BatchNormalization

A BatchNormalization keeps telling the moments of its input: whatever else changes, its mean and
variance are those of the tensor that it reads (0 and 1 where they are not known), since they say
how large the tensor's elements are.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...graph.exact import FLOATING, ExactTensor, exact, is_constant
from ...graph.operators import is_onnx
from .algebra.affine import Affine, Array, along, batch_norm
from .edits import Edit, New, least_normal, trimmed
from .reason import NotExactError, Reason
from .tensors import name_of, sizes_of

__all__ = ["AffineNode", "affine_input", "read", "written"]

ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})
DTYPES = FLOATING | {None}  # None where shape inference does not reach


@dataclass(frozen=True)
class AffineNode:
    """An affine operator, read.

    Attributes:
        node: The operator.
        data: Which of its inputs it maps.
        map: How.
        moments: Mean and variance of each channel of what it reads, the epsilon included; None if
            it is no BatchNormalization.
    """

    node: ir.Node
    data: int
    map: Affine
    moments: tuple[Array, Array] | None

    @property
    def input(self) -> ir.Value:
        """The tensor that it maps."""
        value = self.node.inputs[self.data]
        if value is None:
            raise ValueError(f"fold: {self.node} has no input {self.data}")
        return value


def affine_input(node: ir.Node) -> ir.Value | None:
    """Return the tensor that an affine operator maps, or None if `node` is not affine."""
    index = _data_index(node)
    return None if index is None else node.inputs[index]


def _data_index(node: ir.Node) -> int | None:
    if not is_onnx(node):
        return None
    if node.op_type == "BatchNormalization":
        return 0
    if node.op_type not in ARITHMETIC or node.outputs[0].dtype not in DTYPES:
        return None
    constants = [is_constant(value) and _dtype_of(value) in DTYPES for value in node.inputs]
    if constants == [False, True] and not is_constant(node.inputs[0]):
        return 0
    if constants == [True, False] and not is_constant(node.inputs[1]) and node.op_type != "Div":
        return 1
    return None


def read(node: ir.Node) -> AffineNode | None:
    """Return an affine operator as a map, or None if it is something else.

    Raises:
        NotExactError: If it is an affine operator whose map is not known or not of its input alone.
    """
    index = _data_index(node)
    if index is None:
        return None
    sizes = sizes_of(node.inputs[index])
    if sizes is None:
        raise NotExactError(Reason.SHAPE_UNKNOWN, f"tensor {_name(node.inputs[index])}")
    if node.op_type == "BatchNormalization":
        return _read_batch_norm(node, len(sizes))
    operand = node.inputs[1 - index]
    constant = exact(operand)  # type: ignore[arg-type]
    fits = constant.ndim <= len(sizes) and all(
        n in (1, size) for n, size in zip(constant.shape[::-1], sizes[::-1], strict=False)
    )
    if not fits:
        raise NotExactError(
            Reason.NOT_PER_CHANNEL,
            f"{_name(operand)} of shape {list(constant.shape)} for a tensor of shape {list(sizes)}",
        )
    constant = constant.reshape((1,) * (len(sizes) - constant.ndim) + constant.shape)
    return AffineNode(node, index, _arithmetic(node.op_type, index, constant), None)


def _arithmetic(op_type: str, index: int, constant: Array) -> Affine:
    one, zero = np.ones((1,) * constant.ndim), np.zeros((1,) * constant.ndim)
    if op_type == "Mul":
        return Affine(constant, zero)
    if op_type == "Div":
        with np.errstate(divide="ignore"):
            return Affine(1.0 / constant, zero)
    if op_type == "Sub":
        return Affine(one, -constant) if index == 0 else Affine(-one, constant)
    return Affine(one, constant)


def _read_batch_norm(node: ir.Node, rank: int) -> AffineNode:
    if node.attributes.get_int("training_mode", 0) or any(o.name for o in node.outputs[1:]):
        raise NotExactError(Reason.TRAINING_MODE, name_of(node))
    for value in node.inputs[1:5]:
        if not is_constant(value):
            raise NotExactError(Reason.PARAMETERS_NOT_CONSTANT, _origin(value))
    if rank < 2:
        raise NotExactError(Reason.SHAPE_UNKNOWN, f"tensor {_name(node.inputs[0])}")
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    gamma, beta, mean, variance = (exact(value) for value in node.inputs[1:5] if value is not None)
    of_vector = batch_norm(gamma, beta, mean, variance, epsilon)
    return AffineNode(node, 0, along(of_vector, 1, rank), (mean, variance + epsilon))


def written(old: AffineNode, new: Affine, before: Affine | None) -> Edit:
    """Return the edit that makes an affine operator compute another map, in one operator.

    Args:
        old: The operator.
        new: What it is to compute.
        before: How the tensor that it reads changes at the same time, y = before^-1 x; None if it
            does not.

    Raises:
        NotExactError: If one operator cannot hold it.
    """
    node, data = old.node, old.input
    dtype = node.outputs[0].dtype or data.dtype or _dtype_of(_constant_of(old))
    if dtype is None:
        raise NotExactError(Reason.SHAPE_UNKNOWN, f"the type of {name_of(node)}")
    if new.is_shift or new.is_scale:
        op_type, array = ("Add", new.shift) if new.is_shift else ("Mul", new.scale)
        operand = trimmed(array)
        axes = () if new.is_shift else tuple(range(max(operand.ndim, 1)))
        constant = New(ExactTensor(operand, dtype), _constant_of(old), "", axes)
        return Edit(node, op_type, (data, constant), {})
    sizes = sizes_of(data)
    channels = sizes[1] if sizes is not None and len(sizes) > 1 else None
    if new.axes - {1} or not isinstance(channels, int):
        raise NotExactError(Reason.NOT_ONE_OPERATOR, f"{node.op_type} {name_of(node)}")
    scale, shift = (np.broadcast_to(array.ravel(), channels) for array in (new.scale, new.shift))
    mean, variance = _moments(old, before, channels, dtype)
    gamma, beta = scale * np.sqrt(variance), shift + scale * mean
    like = _constant_of(old)
    if old.moments is not None and before is None:  # mean and variance stay as they are
        constants = [*_new(node, [gamma, beta], list(node.inputs[1:3]), dtype), *node.inputs[3:5]]
        return Edit(node, "BatchNormalization", (data, *constants))
    arrays = [gamma, beta, mean, variance]
    return Edit(
        node,
        "BatchNormalization",
        (data, *_new(node, arrays, [like, None, None, None], dtype)),
        {"epsilon": ir.AttrFloat32("epsilon", 0.0)},
    )


def _new(
    node: ir.Node, arrays: list[Array], likes: list[ir.Value | None], dtype: ir.DataType
) -> list[New]:
    """Return the parameters of a batch norm, in place of those that it has."""
    names = ("scale", "B", "input_mean", "input_var")
    return [
        New(
            ExactTensor(array, _dtype_of(like) or dtype),
            like,
            f"{name_of(node)}/{name}",
            (0,) if name == "scale" else (),
        )
        for array, like, name in zip(arrays, likes, names, strict=False)
    ]


def _moments(
    old: AffineNode, before: Affine | None, channels: int, dtype: ir.DataType
) -> tuple[Array, Array]:
    """Return the mean and variance of what the operator will read: of before^-1 x.

    New ones are rounded to the dtype here, as scale and B are to make up for that; a variance which
    the dtype does not hold well is not told.
    """
    unknown = np.zeros(channels), np.ones(channels)
    if old.moments is None:
        return unknown
    if before is None:
        return old.moments
    if before.axes - {1} or not before.scale.all():
        return unknown
    scale, shift = before.scale.ravel(), before.shift.ravel()
    moved = (old.moments[0] - shift) / scale, old.moments[1] / scale**2
    mean, variance = (ExactTensor(a, dtype).numpy().astype(np.float64) for a in moved)
    held = np.isfinite([mean, variance]).all() and (variance >= least_normal(dtype)).all()
    return (mean, variance) if held else unknown


def _constant_of(old: AffineNode) -> ir.Value:
    value = old.node.inputs[1 - old.data if old.moments is None else 1]
    if value is None:
        raise ValueError(f"fold: {old.node} has no constant")
    return value


def _dtype_of(value: ir.Value | None) -> ir.DataType | None:
    return None if value is None or value.const_value is None else value.const_value.dtype


def _origin(value: ir.Value | None) -> str:
    """Name a parameter, and say what it is if that is no result of a node."""
    if value is None or not value.is_graph_input():
        return f"tensor {_name(value)}"
    also = "a weight that is an input too" if value.const_value is not None else "an input"
    return f"{_name(value)}, {also}"


def _name(value: ir.Value | None) -> str:
    return "nothing" if value is None else repr(value.name)
