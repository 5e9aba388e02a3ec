"""Linear operators with constant weights, which absorb a map of their input or output."""

from typing import Any

import numpy as np
import onnx_ir as ir

from ....graph.exact import ExactTensor, exact, is_constant
from ..algebra.absorbing import (
    absorb,
    conv_input,
    conv_transpose_input,
    conv_transpose_output,
    einsum_input,
    einsum_output,
    matmul_input,
    matmul_output,
    recurrent_input,
    vector,
)
from ..algebra.affine import Affine, Array, identity
from ..edits import Edit, New, trimmed
from ..reason import NotExactError, Reason
from ..tensors import known_sizes
from .ways import Maps, Move, Rule

__all__ = ["LINEAR"]


def _weight(node: ir.Node, index: int = 1) -> ExactTensor:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or not is_constant(value) or value.const_value is None:
        raise NotExactError(Reason.WEIGHT_NOT_CONSTANT, f"tensor {getattr(value, 'name', None)!r}")
    return ExactTensor.of(value.const_value)


def _bias(node: ir.Node, index: int) -> Array | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    if not is_constant(value):
        raise NotExactError(Reason.WEIGHT_NOT_CONSTANT, f"bias {value.name!r}")
    return exact(value)


def _only_data(node: ir.Node, pending: Maps, index: int = 0) -> None:
    for other in set(pending) - {index}:
        raise NotExactError(Reason.WEIGHT_NOT_CONSTANT, f"tensor {node.inputs[other].name!r}")  # type: ignore[union-attr]


def _edit(
    node: ir.Node,
    weight: ExactTensor,
    bias: Array | None,
    *,
    axes: tuple[int, ...],
    at: tuple[int, int] = (1, 2),
    op_type: str = "",
    attributes: dict[str, ir.Attr] | None = None,
    added: Array | None = None,
) -> Edit:
    """Return the edit that gives a node a weight and a bias, at the given inputs.

    `axes` are those along which the weight has been scaled. `added` is for an operator without a
    bias: what is to be added to its output, if the plan may add that.
    """
    inputs: list[Any] = list(node.inputs)
    like = inputs[at[0]]
    inputs[at[0]] = New(weight, like, str(like.name), axes)
    if bias is not None:
        inputs += [None] * (at[1] + 1 - len(inputs))
        old = inputs[at[1]]
        hint = _beside(like, "bias")
        inputs[at[1]] = New(ExactTensor(bias, weight.dtype), old, hint)
    behind = None
    if added is not None:
        behind = New(ExactTensor(trimmed(added), weight.dtype), None, _beside(like, "bias"))
    return Edit(node, op_type or node.op_type, tuple(inputs), attributes or {}, behind)


def _beside(value: ir.Value, name: str) -> str:
    """Return the name of a new constant after that of the weight, but for a changed layout."""
    parent = str(value.name).removesuffix("/nchw").rpartition("/")[0]
    return f"{parent}/{name}" if parent else name


def _convolution(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
    _only_data(node, pending)
    weight, bias = _weight(node), _bias(node, 2)
    transpose, group = node.op_type == "ConvTranspose", node.attributes.get_int("group", 1)
    inputs = weight.sizes[0] if transpose else weight.sizes[1] * group
    outputs = weight.sizes[1] * group if transpose else weight.sizes[0]
    if pending:
        before = vector(pending[0], 1, inputs)
        if transpose:
            weight = conv_transpose_input(weight, before)
        else:
            weight, bias = conv_input(weight, bias, before, group, _pads(node, weight.sizes))
    if demanded is not None:
        after = vector(demanded, 1, outputs)
        if transpose:
            weight, bias = conv_transpose_output(weight, bias, after, group)
        else:
            weight, bias = absorb(weight, bias, after, 0)
    read_at, written_at = (0, 1) if transpose else (1, 0)
    axes = (read_at,) * bool(pending) + (written_at,) * (demanded is not None)
    return [Move(edit=_edit(node, weight, bias, axes=axes))]


def _pads(node: ir.Node, weight: tuple[int, ...]) -> bool:
    """Say whether a convolution pads its input."""
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        return any(size != 1 for size in weight[2:])
    return mode == "NOTSET" and any(node.attributes.get_ints("pads", []))


def _gemm(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
    data = 1 if is_constant(node.inputs[0]) and not is_constant(node.inputs[1]) else 0
    _only_data(node, pending, data)
    weight, bias = _weight(node, 1 - data), _bias(node, 2)
    attributes = node.attributes
    turned = [attributes.get_int(name, 0) for name in ("transA", "transB")]
    outputs_at = (1 - data) ^ (turned[1 - data] != 0)  # in the weight; in the result 1 - data
    if bias is not None:
        bias = attributes.get_float("beta", 1.0) * bias
        bias = np.atleast_2d(bias).T if data else bias  # with the channels last
    if pending:
        read_at = (1 - data) ^ (turned[data] != 0)
        before = vector(pending[data], read_at, weight.sizes[1 - outputs_at])
        weight, lacking = matmul_input(weight, before, -1 - outputs_at)
        if lacking.any():
            lacking = attributes.get_float("alpha", 1.0) * lacking.ravel()
            bias = lacking if bias is None else bias + lacking
    if demanded is not None:
        after = vector(demanded, 1 - data, weight.sizes[outputs_at])
        weight, bias = absorb(weight, bias, after, outputs_at)
    beta = {} if bias is None else {"beta": ir.AttrFloat32("beta", 1.0)}
    if bias is not None and data:
        bias = np.atleast_2d(bias).T
    axes = (1 - outputs_at,) * bool(pending) + (outputs_at,) * (demanded is not None)
    return [Move(edit=_edit(node, weight, bias, axes=axes, at=(1 - data, 2), attributes=beta))]


def _matmul(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
    data = 1 if is_constant(node.inputs[0]) and not is_constant(node.inputs[1]) else 0
    _only_data(node, pending, data)
    weight = _weight(node, 1 - data)
    rank = len(known_sizes(node.outputs[0]))
    contracted = -2 if data == 0 else -1
    lacking = identity(rank)
    if data in pending:
        a = pending[data]
        if weight.ndim < 2 or a.rank < 2:
            raise NotExactError(Reason.NOT_PER_CHANNEL, "a product with a vector")
        axis = a.rank - 1 if data == 0 else a.rank - 2
        weight, missing = matmul_input(
            weight, vector(a, axis, weight.sizes[contracted]), contracted
        )
        missing = missing.reshape((1,) * (rank - missing.ndim) + missing.shape)
        lacking = Affine(lacking.scale, missing)
    wanted = lacking if demanded is None else demanded.after(lacking)
    if demanded is not None:
        weight = matmul_output(weight, demanded.scale, contracted)
    axes = tuple(range(max(weight.ndim - 2, 0), weight.ndim))
    if wanted.is_scale:
        return [Move(edit=_edit(node, weight, None, axes=axes, at=(1 - data, 2)))]
    moves = []
    if demanded is None:
        edit = _edit(node, weight, None, axes=axes, at=(1 - data, 2))
        moves.append(Move(pendings={0: wanted}, edit=edit))
    if rank == 2 and weight.ndim == 2:
        shift = wanted.shift
        bias = shift[0] if shift.shape[0] == 1 else shift
        edit = _edit(node, weight, bias, axes=axes, at=(1 - data, 2), op_type="Gemm")
        moves.append(Move(edit=edit))
    else:
        edit = _edit(node, weight, None, axes=axes, at=(1 - data, 2), added=wanted.shift)
        moves.append(Move(edit=edit))
    return moves


def _einsum(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    left, arrow, output = equation.partition("->")
    operands = left.split(",")
    constants = [i for i, value in enumerate(node.inputs) if is_constant(value)]
    plain = arrow and "." not in equation and len(operands) == 2 and len(constants) == 1
    if not plain or any(len(set(labels)) != len(labels) for labels in (*operands, output)):
        raise NotExactError(Reason.OPERATOR_UNKNOWN, f"equation {equation!r}")
    at = constants[0]
    _only_data(node, pending, 1 - at)
    weight, labels, rank = _weight(node, at), operands[at], len(output)
    wanted = identity(rank)
    if 1 - at in pending:
        weight, missing = einsum_input(weight, labels, pending[1 - at], operands[1 - at], output)
        wanted = Affine(wanted.scale, missing)
    if demanded is not None:
        weight = einsum_output(weight, labels, demanded.scale, output)
        wanted = demanded.after(wanted)
    axes = tuple(range(weight.ndim))
    edit = _edit(node, weight, None, axes=axes, at=(at, 2))
    if wanted.is_scale:
        return [Move(edit=edit)]
    with_sum = _edit(node, weight, None, axes=axes, at=(at, 2), added=wanted.shift)
    if demanded is not None:
        return [Move(edit=with_sum)]
    return [Move(pendings={0: wanted}, edit=edit), Move(edit=with_sum)]


def _recurrent(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
    if demanded is not None:
        raise NotExactError(Reason.NOT_LINEAR, "")
    _only_data(node, pending)
    weight, bias = _weight(node), _bias(node, 3)
    before = vector(pending[0], 2, weight.sizes[2])
    weight, bias = recurrent_input(weight, bias, before)
    return [Move(edit=_edit(node, weight, bias, axes=(2,), at=(1, 3)))]


LINEAR: dict[str, Rule] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "RNN": _recurrent,
}
