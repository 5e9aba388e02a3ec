"""Evaluate whatever depends on weights alone, once, exactly.

tf2onnx leaves a Transpose behind every kernel and, for stock Keras batch norms, an Add, Sqrt,
Reciprocal, two Muls and a Sub on the statistics. Each such node becomes an initializer here, which
is rounded to the graph's dtype only when it is written (`graph/exact.py`), so that a chain of
operations, the fold that follows included, rounds once.

Nodes that cannot be evaluated with certainty, or that grow small constants into a large one, are
left in the graph (`evaluable.py`), and so is what follows once far more was computed than there are
weights. The bodies of If, Loop and Scan are treated alike (`in_bodies.py`).
"""

from collections.abc import Iterable

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...graph.excerpt import model_around
from ...graph.families import REARRANGING
from ...graph.onnx_inference import infer_shapes
from .evaluable import LARGEST_GROWN, evaluate_if_constant, read_by
from .in_bodies import evaluate_bodies

__all__ = ["evaluate_constants"]

RENAMING = REARRANGING | {"Cast"}

# Elements of all results together. A tensor joined with itself thirty times over never ends else;
# the weights of a network pass a handful of nodes each.
ROOM, TIMES = 2**24, 16
GROWTH, GROWTH_TIMES = 2**26, 8  # elements of what is larger than what it is made of

Constants = dict[ir.Value, ir.TensorProtocol]


def evaluate_constants(model: ir.Model, *, grown: bool = False) -> ir.Model:
    """Replace every node that depends on constants alone by its value.

    Args:
        model: Any graph; stays unchanged.
        grown: Whether a node may make a large constant out of small ones, such as a weight that is
            one number repeated: together up to 2^26 elements, or 8 times those that are stored.

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
    stored = _size(known.values())
    room = ROOM + TIMES * stored
    growth = max(GROWTH, GROWTH_TIMES * stored) if grown else 0
    opset = graph.opset_imports.get("", 18)
    for node in graph:
        outputs = None
        if room > 0:
            outputs = evaluate_if_constant(node, known, opset, max(LARGEST_GROWN, growth))
        if outputs is not None:
            size, read = (_size(tensors) for tensors in (outputs, _read_by(node, known)))
            more = size - read if size > max(read, LARGEST_GROWN) else 0
            growth, room = growth - more, room - (size - more)
            known.update(zip(node.outputs, outputs, strict=True))
            evaluated[node] = None
    copy = _without(model, evaluated, known)
    evaluate_bodies(copy.graph, opset)
    return copy


def _read_by(node: ir.Node, known: Constants) -> list[ir.TensorProtocol]:
    return [known[value] for value in read_by(node) if value is not None]


def _size(tensors: Iterable[ir.TensorProtocol]) -> int:
    return sum(tensor.size for tensor in tensors)


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
    copy.graph.inputs[len(graph.inputs) :] = []  # `del` would leave them marked as inputs
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
