"""NHWC -> NCHW for whole graphs: as few Transposes as there can be.

Keras keeps the channels last, ONNX convolutions want them second, so tf2onnx puts a Transpose
before and behind each of them. Here no Transpose is moved about: all are forgotten
(`views`), for each operator in between it is worked out how it would run on tensors stored
in another order (`candidates`, by the rules in `axes`, `dense`,
`reshape` and `shuffle`), those that shall do so are chosen together
(`choice`), and only what the choice calls for is written down (`rewrite`).

An operator without a rule, one of another domain and one with a subgraph read and give their
tensors as in the source. So do graph inputs and outputs, unless they are to be channels-first.
"""

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...errors import ExportError
from ...graph.bypass import remove_identities
from ...graph.names import Names
from .choice import choose_layouts
from .permutation import Permutation, channels_second, inverse
from .rewrite import rewrite
from .views import Views

__all__ = ["cancel_transposes"]

OLDEST_OPSET = 13  # before, Squeeze, Unsqueeze, Softmax and Split are written otherwise
RANKS = range(3, 6)


def cancel_transposes(
    model: ir.Model,
    *,
    inputs_as_nchw: Sequence[str] = (),
    outputs_as_nchw: Sequence[str] = (),
) -> ir.Model:
    """Remove as many Transposes as can be, and Identities.

    Args:
        model: Any graph; stays unchanged.
        inputs_as_nchw: Names of graph inputs, rank 3 to 5, whose channels, last in `model`, are
            axis 1 in the result.
        outputs_as_nchw: The same for graph outputs.

    Returns:
        A new model with the same inputs, outputs and results, and never more Transposes.

    Raises:
        ExportError: If a name is not that of a graph input or output of rank 3 to 5.
    """
    model = model.clone()
    graph, names = model.graph, Names.of(model.graph)
    for name in dict.fromkeys(inputs_as_nchw):
        _turn_input(graph, _named("inputs_as_nchw", name, graph.inputs), names)
    for name in dict.fromkeys(outputs_as_nchw):
        _turn_output(graph, _named("outputs_as_nchw", name, graph.outputs), names)
    remove_identities(graph)
    RemoveUnusedNodesPass()(model)
    if graph.opset_imports.get("", 0) < OLDEST_OPSET:
        return model
    while True:
        views = Views(graph)
        choice = choose_layouts(views)
        if not choice.saves and choice.transposes >= len(views.transposes):
            return model
        rewrite(graph, views, choice.moves, names)
        RemoveUnusedNodesPass()(model)


def _named(argument: str, name: str, values: Sequence[ir.Value]) -> ir.Value:
    """Return the graph input or output of that name."""
    for value in values:
        if value.name == name:
            if value.shape is not None and len(value.shape) in RANKS:
                return value
            raise ExportError(
                f"export: `{argument}` must name tensors of rank 3, 4 or 5. "
                f"Received: {name!r} of shape {value.shape}. Leave it out."
            )
    kind = argument.partition("_")[0]
    raise ExportError(
        f"export: `{argument}` must name {kind} of the graph. Received: {name!r}. "
        f"There are: {', '.join(repr(value.name) for value in values)}."
    )


def _shape(shape: ir.Shape, perm: Permutation) -> ir.Shape:
    return ir.Shape([shape[axis] for axis in perm])


def _turn_input(graph: ir.Graph, value: ir.Value, names: Names) -> None:
    """Let a graph input come channels-first; its readers get it back as it was."""
    shape: ir.Shape = value.shape  # type: ignore[assignment]
    perm = channels_second(len(shape))
    node = ir.node("Transpose", [], {"perm": list(inverse(perm))}, name=f"{value.name}/transpose")
    back = node.outputs[0]
    back.name, back.type, back.shape = names.new(f"{value.name}/nhwc"), value.type, shape
    value.replace_all_uses_with(back, replace_graph_outputs=True)
    node.resize_inputs(1)
    node.replace_input_with(0, value)
    value.shape = _shape(shape, perm)
    first = next(iter(graph), None)
    if first is None:
        graph.append(node)
    else:
        graph.insert_before(first, node)


def _turn_output(graph: ir.Graph, value: ir.Value, names: Names) -> None:
    """Let a graph output leave channels-first."""
    shape: ir.Shape = value.shape  # type: ignore[assignment]
    perm = channels_second(len(shape))
    node = ir.node("Transpose", [value], {"perm": list(perm)}, name=f"{value.name}/transpose")
    output = node.outputs[0]
    output.type, output.shape = value.type, _shape(shape, perm)
    graph.append(node)
    for index, other in enumerate(graph.outputs):
        if other is value:
            graph.outputs[index] = output
    output.name, value.name = value.name, names.new(f"{value.name}/nhwc")
