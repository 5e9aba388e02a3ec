"""Evaluate whatever depends on weights alone, once, exactly.

tf2onnx leaves a Transpose behind every kernel and, for stock Keras batch norms, an Add, Sqrt,
Reciprocal, two Muls and a Sub on the statistics. Each such node becomes an initializer here, which
is rounded to the graph's dtype only when it is written (`exact.py`), so that a chain of operations,
the fold that follows included, rounds once.

Nodes that draw random numbers, hold subgraphs, come from another domain, or grow small constants
into a large one are left in the graph.
"""

import math

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .evaluation import evaluate
from .exact import FLOATS, ExactTensor, constant, exact, is_constant, rearranged
from .shapes import infer_shapes
from .views import model_around

__all__ = [
    "FLOATS",
    "ExactTensor",
    "constant",
    "evaluate_constants",
    "exact",
    "is_constant",
    "rearranged",
]

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
GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})
LARGEST_GROWN = 4096  # elements

Constants = dict[ir.Value, ir.TensorProtocol]


def evaluate_constants(model: ir.Model) -> ir.Model:
    """Replace every node that depends on constants alone by its value.

    Args:
        model: Any graph; stays unchanged.

    Returns:
        A new model. An initializer that is a transposed, reshaped or cast weight keeps the name
        of that weight where the weight itself is not used any more.
    """
    graph = model.graph
    known: Constants = {
        value: value.const_value
        for value in graph.initializers.values()
        if value.const_value is not None and not value.is_graph_input()
    }
    evaluated: dict[ir.Node, None] = {}
    opset = graph.opset_imports.get("", 18)
    for node in graph:
        if not _is_evaluable(node, known):
            continue
        inputs = [None if value is None else known[value] for value in node.inputs]
        outputs = evaluate(node, inputs, opset)
        if not _grows(inputs, outputs):
            known.update(zip(node.outputs, outputs, strict=True))
            evaluated[node] = None
    return _without(model, evaluated, known)


def _is_evaluable(node: ir.Node, known: Constants) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in RANDOM:
        return False
    if not all(value is None or value in known for value in node.inputs):
        return False
    if any(attribute.type in GRAPHS for attribute in node.attributes.values()):
        return False
    if any(output.is_graph_output() for output in node.outputs):
        return False
    if node.op_type in GROWING:
        shape = node.outputs[0].shape
        if shape is None or not shape.is_static() or math.prod(shape.numpy()) > LARGEST_GROWN:
            return False
    return True


def _grows(inputs: list[ir.TensorProtocol | None], outputs: list[ir.TensorProtocol]) -> bool:
    """Say whether a file would become larger, such as by an outer product."""
    size = sum(tensor.size for tensor in outputs)
    return bool(inputs) and size > max(
        LARGEST_GROWN, sum(tensor.size for tensor in inputs if tensor is not None)
    )


def _without(model: ir.Model, evaluated: dict[ir.Node, None], known: Constants) -> ir.Model:
    """Copy a model with the outputs of the evaluated nodes as initializers."""
    graph = model.graph
    read = [value for node in evaluated for value in node.outputs if _is_read(value, evaluated)]
    view = ir.GraphView(
        [*graph.inputs, *read],
        graph.outputs,
        nodes=[node for node in graph if node not in evaluated],
        initializers=[
            value
            for value in graph.initializers.values()
            if _is_read(value, evaluated) or value.is_graph_input() or value.is_graph_output()
        ],
    )
    copy = model_around(view, model).clone()
    new = list(copy.graph.inputs[len(graph.inputs) :])
    del copy.graph.inputs[len(graph.inputs) :]
    names, layers = _origins(evaluated)
    for value, old in zip(new, read, strict=True):
        tensor = known[old]
        value.const_value, value.type = tensor, ir.TensorType(tensor.dtype)
        value.shape = ir.Shape(tensor.shape.numpy())
        value.meta["layers"] = layers[old]
        copy.graph.initializers.add(value)
    RemoveUnusedNodesPass()(copy)
    for value, old in zip(new, read, strict=True):
        if old in names:
            _rename(copy.graph, value, names[old])
    if any(_tells_a_shape(value) for value in new):
        infer_shapes(copy)
    return copy


def _tells_a_shape(value: ir.Value) -> bool:
    """Say whether a new constant, such as sizes or axes, may determine a shape that is unknown."""
    if value.dtype not in (ir.DataType.INT32, ir.DataType.INT64):
        return False
    shapes = [output.shape for use in value.uses() for output in use.node.outputs]
    return any(
        shape is None or any(str(size).startswith(("None", "unk__")) for size in shape)
        for shape in shapes  # onnx calls a size that it cannot tell unk__0, unk__1, ...
    )


def _is_read(value: ir.Value, evaluated: dict[ir.Node, None]) -> bool:
    return any(use.node not in evaluated for use in value.uses())


def _origins(
    evaluated: dict[ir.Node, None],
) -> tuple[dict[ir.Value, str], dict[ir.Value, frozenset[str]]]:
    """Return the weight that each constant is but for its layout, and the layers it comes from."""
    names: dict[ir.Value, str] = {}
    layers: dict[ir.Value, frozenset[str]] = {}
    for node in evaluated:
        inputs = [value for value in node.inputs if value is not None]
        union = frozenset[str]().union(
            *(layers.get(value, value.meta.get("layers", frozenset())) for value in inputs)
        )
        for output in node.outputs:
            layers[output] = union
            if node.op_type in RENAMING and inputs:
                names[output] = names.get(inputs[0], str(inputs[0].name))
    return names, layers


def _rename(graph: ir.Graph, value: ir.Value, wanted: str) -> None:
    if value.is_initializer() and wanted not in graph.initializers:
        del graph.initializers[str(value.name)]
        value.name = wanted
        graph.initializers[wanted] = value
