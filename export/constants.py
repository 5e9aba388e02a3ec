"""Evaluate whatever depends on weights alone, once, in float64.

tf2onnx leaves a Transpose behind every kernel and, for stock Keras batch norms, an Add, Sqrt,
Reciprocal, two Muls and a Sub on the statistics. Each such node becomes an initializer here. The
result is kept in float64 and rounded to the graph's dtype when it is written (`ExactTensor`), so
that a chain of operations, the fold that follows included, rounds once.

Nodes that draw random numbers, hold subgraphs, come from another domain, or grow a small constant
into a large one are left in the graph.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .shapes import infer_shapes

__all__ = ["ExactTensor", "constant", "evaluate_constants", "exact", "is_constant", "rearranged"]

RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
GROWING = frozenset({"ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile"})
RENAMING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# A value that the graph rounds to 1.0 must not become 0 because its exact value is 0.99999997.
DISCRETE = frozenset(
    """ArgMax ArgMin Ceil Equal Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Mod Round
    Sign TopK""".split()
)
LARGEST_GROWN = 4096  # elements

FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT})


class ExactTensor(ir.LazyTensor):
    """A constant kept in float64 and rounded once, when it is read as a tensor of its dtype.

    Args:
        value: The exact value, any shape.
        dtype: The dtype that the graph sees: float16, bfloat16, float32 or float64.
    """

    def __init__(self, value: np.ndarray, dtype: ir.DataType) -> None:
        self.exact = np.asarray(value, np.float64)
        super().__init__(self._round, dtype=dtype, shape=ir.Shape(self.exact.shape))

    def __repr__(self) -> str:
        return f"ExactTensor(shape={self.exact.shape}, dtype={self.dtype})"

    def _round(self) -> ir.TensorProtocol:
        with np.errstate(over="ignore"):  # an overflow shows as Inf, which the fold refuses
            return ir.Tensor(np.asarray(self.exact, self.dtype.numpy()), dtype=self.dtype)


def is_constant(value: ir.Value | None) -> bool:
    """Say whether a value is the same in every run: an initializer that is no graph input."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def exact(value: ir.Value) -> np.ndarray:
    """Return a floating-point constant in float64, or any other constant as it is."""
    tensor = value.const_value
    if isinstance(tensor, ExactTensor):
        return tensor.exact
    if tensor is None:
        raise ValueError(f"exact: `value` must be a constant. Received: value={value}.")
    array = tensor.numpy()
    return array.astype(np.float64) if tensor.dtype in FLOATS else array


def constant(name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Return a value for a constant, ready to be registered as an initializer."""
    dtype = ir.TensorType(tensor.dtype)
    shape = ir.Shape(tensor.shape.numpy())
    return ir.Value(name=name, shape=shape, type=dtype, const_value=tensor)


def rearranged(
    tensor: ir.TensorProtocol, move: Callable[[np.ndarray], np.ndarray]
) -> ir.TensorProtocol:
    """Return a constant with its elements moved; an exact one stays exact."""
    if isinstance(tensor, ExactTensor):
        return ExactTensor(move(tensor.exact), tensor.dtype)
    return ir.Tensor(np.ascontiguousarray(move(tensor.numpy())), dtype=tensor.dtype)


def evaluate_constants(model: ir.Model) -> ir.Model:
    """Replace every node that depends on constants alone by its value.

    Args:
        model: Any graph; stays unchanged.

    Returns:
        A new model. An initializer that is a transposed, reshaped or cast weight keeps the name
        of that weight where the weight itself is not used any more.
    """
    model = model.clone()
    graph = model.graph
    weights: dict[ir.Value, str] = {}
    for node in list(graph):
        if not _is_evaluable(node):
            continue
        for old, tensor in zip(node.outputs, _evaluate(node), strict=True):
            new = constant(str(old.name), tensor)
            new.meta["layers"] = frozenset().union(
                *(v.meta.get("layers", frozenset()) for v in node.inputs if v is not None)
            )
            old.name = None
            graph.initializers[str(new.name)] = new
            old.replace_all_uses_with(new)
            if node.op_type in RENAMING and node.inputs[0] is not None:
                weights[new] = weights.get(node.inputs[0], str(node.inputs[0].name))
        graph.remove(node, safe=True)
    RemoveUnusedNodesPass()(model)
    _rename(graph, weights)
    infer_shapes(model)
    return model


def _is_evaluable(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in RANDOM:
        return False
    if any(
        a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for a in node.attributes.values()
    ):
        return False
    if any(output.is_graph_output() for output in node.outputs):
        return False
    if not all(value is None or is_constant(value) for value in node.inputs):
        return False
    if node.op_type in GROWING:
        shape = node.outputs[0].shape
        if shape is None or not shape.is_static() or math.prod(shape.numpy()) > LARGEST_GROWN:
            return False
    return True


def _evaluate(node: ir.Node) -> list[ir.TensorProtocol]:
    """Run one node on float64 copies of its float inputs; the results keep the graph's dtype."""
    values = [value for value in node.inputs if value is not None]
    floats = [
        v.const_value.dtype for v in values if v.const_value and v.const_value.dtype in FLOATS
    ]
    dtype = floats[0] if floats else None
    if node.op_type == "Cast":
        target = ir.DataType(node.attributes["to"].as_int())
        if dtype is not None and target in FLOATS:
            value = exact(values[0])
            if target is not ir.DataType.FLOAT:  # a cast to half precision is meant to round
                value = ExactTensor(value, target).numpy()
            return [ExactTensor(value, target)]
        dtype = None  # a cast to float64 or to integers decides its own dtype
    rounded = node.op_type in DISCRETE or node.op_type == "Cast"
    arrays = {
        str(v.name): v.const_value.numpy() if rounded and v.const_value else exact(v)
        for v in values
    }
    single = onnx.helper.make_model(
        onnx.helper.make_graph(
            [ir.to_proto(node)],
            "constant",
            [_untyped(name) for name in arrays],
            [_untyped(str(output.name)) for output in node.outputs],
        ),
        opset_imports=[onnx.helper.make_opsetid("", _opset(node))],
    )
    results = [np.asarray(result) for result in ReferenceEvaluator(single).run(None, arrays)]
    return [
        ExactTensor(result, dtype)
        if dtype is not None and result.dtype in (np.float32, np.float64)
        else ir.tensor(result)
        for result in results
    ]


def _untyped(name: str) -> onnx.ValueInfoProto:
    return onnx.ValueInfoProto(name=name)


def _opset(node: ir.Node) -> int:
    graph: Any = node.graph
    return int(graph.opset_imports.get("", 18))


def _rename(graph: ir.Graph, weights: dict[ir.Value, str]) -> None:
    for value, wanted in weights.items():
        if value.is_initializer() and wanted not in graph.initializers:
            del graph.initializers[str(value.name)]
            value.name = wanted
            graph.initializers[wanted] = value
