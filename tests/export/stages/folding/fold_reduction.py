"""Make a graph whose fold is wrong as small as it can be, so that a person can read it."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from tests.export.stages.folding.fold_reference import captured, run_nodes

__all__ = ["reduced", "text"]


def reduced(model, inputs, fails):
    """Return a smaller graph that still fails, and its inputs.

    Args:
        model: A graph without nested subgraphs.
        inputs: By name.
        fails: Takes a graph and its inputs; says whether it fails in the same way.
    """
    proto = ir.to_proto(model)
    while True:
        for smaller in _smaller(proto, inputs):
            if _still_fails(fails, *smaller):
                proto, inputs = smaller
                break
        else:
            return ir.from_proto(proto), inputs


def _still_fails(fails, proto, inputs):
    try:
        return fails(ir.from_proto(proto), inputs)
    except Exception:  # it is no graph any more
        return False


def _smaller(proto, inputs):
    """Yield graphs with an output less, or with an input in the place of a node."""
    outputs = list(proto.graph.output)
    for output in outputs:
        if len(outputs) > 1:
            yield _pruned(proto, inputs, [value for value in outputs if value is not output])
    values = run_nodes(proto, inputs)
    for node in proto.graph.node:
        if any(output in {value.name for value in outputs} for output in node.output):
            inner = [n for n in node.input if n in values and values[n].dtype == np.float64]
            made = [n for n in inner if any(n in other.output for other in proto.graph.node)]
            if len(outputs) == 1 and made:
                yield _pruned(proto, inputs, [_described(made[0], values)])
        else:
            yield _pruned(proto, inputs, outputs, set(node.output), values)


def _described(name, values):
    shape = [None] * values[name].ndim
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _pruned(proto, inputs, outputs, cut=frozenset(), values=None):
    """Return a graph with these outputs, and without what they do not need."""
    new = onnx.ModelProto()
    new.CopyFrom(proto)
    graph, needed = new.graph, {value.name for value in outputs}
    kept = []
    for node in reversed(proto.graph.node):
        if needed.intersection(node.output) and not cut.intersection(node.output):
            kept.append(node)
            needed.update((*node.input, *captured(node)))
    for field, wanted in (("node", kept[::-1]), ("output", outputs)):
        del getattr(graph, field)[:]
        getattr(graph, field).extend(wanted)
    for field in ("input", "initializer"):
        wanted = [value for value in getattr(proto.graph, field) if value.name in needed]
        del getattr(graph, field)[:]
        getattr(graph, field).extend(wanted)
    inputs = {name: array for name, array in inputs.items() if name in needed}
    for name in cut & needed:
        array = values[name].astype(np.float32)
        kind = onnx.TensorProto.FLOAT
        graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        inputs[name] = array
    return new, inputs


def text(model):
    """Return a graph for a person to read: its nodes, and its small constants."""
    proto = ir.to_proto(model)
    lines = [onnx.printer.to_text(node) for node in proto.graph.node]
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        values = np.array2string(array, precision=3, threshold=12).replace("\n", "")
        lines.append(f"{tensor.name} {array.shape} = {values if array.size <= 12 else '...'}")
    inputs = [f"{v.name} {v.shape}" for v in model.graph.inputs]
    outputs = [str(v.name) for v in model.graph.outputs]
    return "\n".join([f"{inputs} -> {outputs}, opset {model.opset_imports['']}", *lines])
