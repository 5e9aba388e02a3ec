"""Remove Identities: y = x needs no node, unless two names of the graph's surface meet in it.

An Identity stays where it leads to a graph output and its input must keep a name of its own: a
graph input, an initializer, another graph output, or a value of a graph around this one.
"""

import onnx_ir as ir

from .operators import is_onnx

__all__ = ["remove_identities"]


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
