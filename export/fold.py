"""The walk that removes batch norms: each affine operator into the linear operator before it.

An affine operator is an inference-time BatchNormalization, or a Mul, Add, Sub or Div with one
constant operand. It folds backward into a Conv (any rank, grouped, depthwise), a Gemm or a MatMul
with constant weights, by the formula in `affine.py`; a MatMul that needs a bias becomes a Gemm.
A weight is held as it was, with its scales beside it, until it is written (`exact.py`), so a chain
of folds rounds once and costs no pass over the weights but one that looks for what would overflow.

It is exact or it is refused: a refusal leaves the graph as it was and is listed with its reason.
"""

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .affine import Affine, Array, absorb, batch_norm
from .exact import FLOATS, ExactTensor, constant, exact, is_constant
from .naming import Names
from .report import Fold, FoldReport, Reason, Refusal

__all__ = ["fold_batch_norms"]

ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})
DTYPES = FLOATS | {ir.DataType.DOUBLE, None}  # None where shape inference does not reach
LINEAR = frozenset({"Conv", "Gemm", "MatMul"})
# Linear, or letting an affine map pass; the algebra allows more than this file does today.
FOLDABLE_ONE_DAY = frozenset(
    """Add AveragePool BatchNormalization Cast Concat ConvTranspose Div Einsum Flatten Gather
    GlobalAveragePool GRU Identity LSTM MaxPool Mul Pad ReduceMean Reshape Resize Slice Split
    Squeeze Sub Transpose Unsqueeze""".split()
)


class _RefusedError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class _Linear:
    """A linear operator, where its weights are, and where its output channels are.

    `node` holds the weight as input 1. `last` produces the result: `node` itself, or the Add
    behind a MatMul that serves as its bias. `bias_at` is the input of `last` that holds the bias.
    """

    node: ir.Node
    last: ir.Node
    axis: int  # of the output channels, in the weight
    rank: int | None  # of the output
    channels_last: bool  # in the output; otherwise they are at axis 1
    bias_at: int | None
    bias_factor: float = 1.0


def fold_batch_norms(model: ir.Model) -> tuple[ir.Model, FoldReport]:
    """Fold every affine operator that exact algebra lets go backward.

    Args:
        model: An ONNX graph; stays unchanged.

    Returns:
        A new model with the same inputs, outputs and results, and one row for each affine
        operator found: folded, or refused with a reason.
    """
    model = model.clone()
    graph, names = model.graph, Names.of(model.graph)
    folds: list[Fold] = []
    refusals: dict[ir.Node, Refusal] = {}
    for node in list(graph):
        data = _affine_input(node)
        if data is None:
            continue
        name, operator, layer = str(node.name), node.op_type, _layer(node)
        try:
            into = _fold_backward(graph, node, data, names)
            folds.append(Fold(name, operator, layer, into))
        except _RefusedError as e:
            reason, detail = e.reason, e.detail
            before = refusals.get(data.producer())  # type: ignore[arg-type]
            if before is not None and reason is Reason.OPERATOR_NOT_SUPPORTED:
                reason, detail = before.reason, before.detail  # one cause for a chain
            refusals[node] = Refusal(name, operator, layer, reason, detail)
    RemoveUnusedNodesPass()(model)
    return model, FoldReport(tuple(folds), tuple(refusals.values()))


def _affine_input(node: ir.Node) -> ir.Value | None:
    """Return the tensor that an affine operator maps, or None if `node` is not affine."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "BatchNormalization":
        return node.inputs[0]
    if node.op_type not in ARITHMETIC or node.outputs[0].dtype not in DTYPES:
        return None
    first, second = node.inputs
    if is_constant(second) and not is_constant(first):
        return first
    if is_constant(first) and not is_constant(second) and node.op_type != "Div":
        return second
    return None


def _layer(node: ir.Node) -> str | None:
    """Return the path of the one Keras layer whose weights a node uses."""
    layers: set[str] = set()
    for value in node.inputs:
        if value is not None:
            layers |= value.meta.get("layers", frozenset())
    return layers.pop() if len(layers) == 1 else None


def _fold_backward(graph: ir.Graph, node: ir.Node, data: ir.Value, names: Names) -> str:
    linear = _linear_before(data)
    weight = _weight(linear)
    channels = int(weight.const_value.shape[linear.axis])  # type: ignore[union-attr, arg-type]
    after = _affine(node, data, linear, channels)
    old_weight = ExactTensor.of(weight.const_value)  # type: ignore[arg-type]
    new_weight, new_bias = absorb(old_weight, _bias(linear, channels), after, linear.axis)
    dtype = old_weight.dtype
    tensors = [new_weight] if new_bias is None else [new_weight, ExactTensor(new_bias, dtype)]
    if not all(tensor.is_finite() for tensor in tensors):
        raise _RefusedError(Reason.NOT_FINITE, f"weights of {linear.node.name} in {dtype.name}")
    if new_bias is not None and linear.node.op_type == "MatMul" and linear.bias_at is None:
        if linear.rank != 2:
            raise _RefusedError(Reason.OPERATOR_HAS_NO_BIAS, f"MatMul {linear.node.name}")
        linear = _matmul_to_gemm(graph, linear)
    _bypass(graph, node, linear.last.outputs[0], names)
    _write(graph, linear, tensors, names)
    return str(linear.node.name)


def _linear_before(data: ir.Value) -> _Linear:
    """Return the linear operator that makes a tensor, ready to absorb, or refuse."""
    last = data.producer()
    if last is None or last.domain not in ("", "ai.onnx"):
        raise _RefusedError(Reason.PRODUCER_NOT_LINEAR, f"tensor {data.name!r}")
    node, bias_at = last, None
    if last.op_type == "Add" and is_constant(last.inputs[0]) != is_constant(last.inputs[1]):
        bias_at = 0 if is_constant(last.inputs[0]) else 1
        before = last.inputs[1 - bias_at]
        matmul = before.producer() if before is not None else None
        if matmul is not None and matmul.op_type == "MatMul" and before is not None:
            node = matmul
            _require_only_reader(before)
    if node.op_type not in LINEAR:
        known = node.op_type in FOLDABLE_ONE_DAY
        reason = Reason.OPERATOR_NOT_SUPPORTED if known else Reason.PRODUCER_NOT_LINEAR
        raise _RefusedError(reason, f"{node.op_type} {node.name}")
    _require_only_reader(data)
    if not is_constant(node.inputs[1]):
        raise _RefusedError(Reason.WEIGHT_NOT_CONSTANT, f"{node.op_type} {node.name}")
    return _describe(node, last, bias_at)


def _describe(node: ir.Node, last: ir.Node, bias_at: int | None) -> _Linear:
    weight_rank = len(node.inputs[1].const_value.shape)  # type: ignore[union-attr]
    if node.op_type in ("Conv", "Gemm"):
        bias_at = 2 if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if node.op_type == "Conv":
        linear = _Linear(node, node, 0, weight_rank, False, bias_at)
    elif node.op_type == "Gemm":
        axis = 0 if node.attributes.get_int("transB", 0) else 1
        linear = _Linear(node, node, axis, 2, True, bias_at, node.attributes.get_float("beta", 1.0))
    else:
        if weight_rank != 2:
            detail = f"MatMul {node.name} with weights of rank {weight_rank}"
            raise _RefusedError(Reason.OPERATOR_NOT_SUPPORTED, detail)
        shape = last.outputs[0].shape
        linear = _Linear(node, last, 1, None if shape is None else len(shape), True, bias_at)
    if linear.bias_at is not None and not is_constant(linear.last.inputs[linear.bias_at]):
        raise _RefusedError(Reason.WEIGHT_NOT_CONSTANT, f"bias of {node.op_type} {node.name}")
    return linear


def _require_only_reader(value: ir.Value) -> None:
    if value.is_graph_output():
        raise _RefusedError(Reason.OUTPUT_IS_GRAPH_OUTPUT, f"tensor {value.name!r}")
    if len(value.uses()) != 1:
        raise _RefusedError(
            Reason.OUTPUT_USED_ELSEWHERE, f"tensor {value.name!r} has {len(value.uses())} readers"
        )


def _affine(node: ir.Node, data: ir.Value, linear: _Linear, channels: int) -> Affine:
    """Return the map that a node applies to the output channels of a linear operator."""
    if node.op_type == "BatchNormalization":
        return _batch_norm(node, linear)
    position = 1 if node.inputs[0] is data else 0
    operand = node.inputs[position]
    constant = _per_channel(exact(operand), linear, channels)  # type: ignore[arg-type]
    if constant is None:
        raise _RefusedError(
            Reason.NOT_PER_CHANNEL, f"{_described(operand)} for {channels} channels"
        )
    one, zero = np.ones(channels), np.zeros(channels)
    with np.errstate(divide="ignore"):
        match node.op_type:
            case "Mul":
                return Affine(constant, zero)
            case "Div":
                return Affine(1.0 / constant, zero)
            case "Sub":
                return Affine(one, -constant) if position == 1 else Affine(-one, constant)
    return Affine(one, constant)


def _batch_norm(node: ir.Node, linear: _Linear) -> Affine:
    if node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1:
        raise _RefusedError(Reason.TRAINING_MODE, str(node.name))
    if not all(is_constant(value) for value in node.inputs[1:]):
        raise _RefusedError(Reason.PARAMETERS_NOT_CONSTANT, str(node.name))
    if linear.channels_last and linear.rank != 2:
        detail = f"axis 1 of {linear.node.name}, whose rank is {linear.rank or 'unknown'}"
        raise _RefusedError(Reason.NOT_PER_CHANNEL, detail)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    gamma, beta, mean, variance = (exact(value) for value in node.inputs[1:] if value is not None)
    return batch_norm(gamma, beta, mean, variance, epsilon)


def _per_channel(constant: Array, linear: _Linear, channels: int) -> Array | None:
    """Return an operand as one value for each output channel, or None if it is something else."""
    if constant.ndim > (1 if linear.rank is None else linear.rank):
        return None  # it would add dimensions to the result
    if constant.size == 1:
        return np.full(channels, constant.item())
    from_the_back = 1 if linear.rank is None or linear.channels_last else linear.rank - 1
    if constant.ndim < from_the_back or constant.shape[-from_the_back] != channels:
        return None
    if constant.size != channels:
        return None
    return constant.ravel()


def _described(value: ir.Value | None) -> str:
    return "nothing" if value is None else f"{value.name!r} of shape {value.shape}"


def _weight(linear: _Linear) -> ir.Value:
    weight = linear.node.inputs[1]
    if weight is None:  # _linear_before has seen it
        raise ValueError(f"fold: {linear.node} has no weight")
    return weight


def _bias(linear: _Linear, channels: int) -> Array | None:
    if linear.bias_at is None:
        return None
    value = linear.last.inputs[linear.bias_at]
    constant = exact(value) * linear.bias_factor  # type: ignore[arg-type]
    shape = linear.node.outputs[0].shape
    adds_dimensions = constant.ndim > (1 if shape is None else len(shape))
    one_each = constant.size == 1 or (constant.size, constant.shape[-1]) == (channels, channels)
    if adds_dimensions or not one_each:
        raise _RefusedError(Reason.NOT_PER_CHANNEL, f"bias {_described(value)}")
    return np.broadcast_to(constant.ravel(), channels)


def _matmul_to_gemm(graph: ir.Graph, linear: _Linear) -> _Linear:
    matmul = linear.node
    gemm = ir.node("Gemm", matmul.inputs, name=matmul.name)
    output = gemm.outputs[0]
    output.type, output.shape = matmul.outputs[0].type, matmul.outputs[0].shape
    graph.insert_after(matmul, gemm)
    name = matmul.outputs[0].name
    matmul.outputs[0].replace_all_uses_with(output)
    graph.remove(matmul, safe=True)
    output.name = name
    return replace(linear, node=gemm, last=gemm)


def _bypass(graph: ir.Graph, node: ir.Node, result: ir.Value, names: Names) -> None:
    """Remove an affine operator; its readers read `result`, which takes over the name."""
    output, constants = node.outputs[0], [value for value in node.inputs if is_constant(value)]
    name = output.name
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    result.name = name
    if result.type is None:
        result.type, result.shape = output.type, output.shape
    for value in constants:
        _drop_if_unused(graph, value, names)


def _drop_if_unused(graph: ir.Graph, value: ir.Value | None, names: Names) -> None:
    if value is None or value.uses() or value.is_graph_output() or not value.is_initializer():
        return
    del graph.initializers[str(value.name)]
    names.release(str(value.name))


def _write(graph: ir.Graph, linear: _Linear, tensors: list[ExactTensor], names: Names) -> None:
    """Give a linear operator its new weight and bias; shared ones are copied, never edited."""
    weight = _weight(linear)
    _replace_constant(graph, linear.node, 1, tensors[0], str(weight.name), names)
    if len(tensors) == 1:
        return
    index = 2 if linear.bias_at is None else linear.bias_at
    old = linear.last.inputs[index] if linear.bias_at is not None else None
    parent = str(weight.name).rpartition("/")[0]
    wanted = str(old.name) if old is not None else f"{parent}/bias" if parent else "bias"
    _replace_constant(graph, linear.last, index, tensors[1], wanted, names)
    if linear.node.op_type == "Gemm":
        linear.node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)


def _replace_constant(
    graph: ir.Graph, node: ir.Node, index: int, tensor: ExactTensor, wanted: str, names: Names
) -> None:
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    node.replace_input_with(index, None)
    _drop_if_unused(graph, old, names)
    new = constant(names.new(wanted), tensor)
    if old is not None:
        new.meta.update(old.meta)
    graph.initializers[str(new.name)] = new
    node.replace_input_with(index, new)
