"""Remove nodes: whoever read what one makes reads another tensor, and outputs keep their names.

An Identity, y = x, needs no node, unless two names of the graph's surface meet in it. It stays
where it leads to a graph output and its input must keep a name of its own: a graph input, an
initializer, another graph output, or a value of a graph around this one.
"""

import onnx_ir as ir

from .operators import is_onnx

__all__ = ["bypass", "remove_identities"]


def bypass(node: ir.Node, source: ir.Value) -> None:
    """Remove a node; whoever read its first output reads another tensor, which takes its place.

    Args:
        node: The node.
        source: A tensor like its output. If that is a graph output, this one is none, is made by a
            node of the same graph, and takes over name, type and shape.
    """
    output = node.outputs[0]
    name, is_output = output.name, output.is_graph_output()
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)  # type: ignore[union-attr]
    if is_output:
        source.name = name
        source.type, source.shape = output.type, output.shape
        source.metadata_props.update(output.metadata_props)


def remove_identities(graph: ir.Graph) -> None:
    """Let the readers of each Identity read its input, in place."""
    outputs = {value: index for index, value in enumerate(graph.outputs)}
    for node in list(graph):
        if node.op_type != "Identity" or not is_onnx(node):
            continue
        source, result = node.inputs[0], node.outputs[0]
        if source is None:
            continue
        if result.is_graph_output():
            named = source.is_graph_input() or source.is_initializer() or source.is_graph_output()
            producer = source.producer()
            if named or producer is None or producer.graph is not graph or result not in outputs:
                continue
            name, result.name = result.name, None
            source.name = name
            source.type, source.shape = result.type, result.shape
            outputs[source] = outputs.pop(result)
            graph.outputs[outputs[source]] = source
        result.replace_all_uses_with(source)
        graph.remove(node, safe=True)
