"""TensorFlow's own variables and functions inside a model, such as those of a `TFSMLayer`.

    a call of a function                    its operators, in place of the call
    ReadVariableOp(variable)                the value, an argument of the graph
    ResourceGather(variable, indices)       GatherV2(value, indices)
    a loop or branch over a variable        one over its value, which is a constant

The variables that the traced function captured become arguments of the graph that stand for their
values, but those of loops, which tf2onnx wants as constants. One that is read in another way, such
as a table of words, stays a resource.
"""

from typing import Any

import keras
import tensorflow as tf
from keras.src.export.saved_model import _list_variables_used_by_fns
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
from tensorflow.python.grappler import tf_optimizer

__all__ = ["graph_without_resources", "names_of_variables", "value_of"]

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Operators with inner functions: the attributes that name these, and how many inputs come first
# that are not handed on to them.
BODIES = {
    "If": (("then_branch", "else_branch"), 1),
    "StatelessIf": (("then_branch", "else_branch"), 1),
    "While": (("cond", "body"), 0),
    "StatelessWhile": (("cond", "body"), 0),
}
LOOPS = ("While", "StatelessWhile")
# What stops TensorFlow from inlining: another device's form, and a function compiled by itself.
CLOSED = ("api_implements", "_XlaMustCompile", "_noinline")


def names_of_variables(model: keras.Model, function: Any) -> dict[int, str]:
    """Return the names of TensorFlow's own variables in a model, by the id of their handles."""
    variables = list(function.graph.variables)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.TFSMLayer):
            for found in _list_variables_used_by_fns([layer.call_endpoint_fn]):
                variables.extend(found)
    return {id(variable.handle): variable.name.split(":")[0] for variable in variables}


def value_of(handle: Any) -> Any:
    """Return the value of the variable with that handle; None if it is no variable's."""
    data = getattr(handle, "_handle_data", None)
    if data is None or not data.is_set or len(data.shape_and_type) != 1:
        return None
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=data.shape_and_type[0].dtype)


def graph_without_resources(function: Any) -> tuple[Any, set[str]]:
    """Return the graph of a traced function, its calls inlined and its variables read.

    Args:
        function: A concrete function.

    Returns:
        A `GraphDef` in which the placeholder of a captured variable has the variable's dtype and
        shape; names of the placeholders that have become constants.
    """
    captured = {
        inner.op.name: value_of(outer)
        for outer, inner in function.graph.captures
        if outer.dtype == tf.resource
    }
    graph = function.graph.as_graph_def(add_shapes=True)
    if any(operation.type in CALLS for operation in function.graph.get_operations()):
        graph = _inlined(function, graph)
    _skip_identities(graph)
    bodies = {body.signature.name: body for body in graph.library.function}
    constants = set()
    for node in list(graph.node):
        value = captured.get(node.name)
        if value is None or not _is_only_read(graph.node, node.name, bodies):
            continue
        is_inside = any(reader.op in BODIES for reader, _ in _uses(graph.node, node.name))
        _read(graph.node, node.name, bodies, value)
        node.attr.clear()
        node.attr["dtype"].type = value.dtype.as_datatype_enum
        if is_inside:
            node.op = "Const"
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
            constants.add(node.name)
        else:
            node.attr["shape"].shape.CopyFrom(value.shape.as_proto())
    return graph, constants


def _inlined(function: Any, graph: Any) -> Any:
    """Let TensorFlow put the bodies of functions in place of their calls."""
    nodes = [*graph.node, *(node for body in graph.library.function for node in body.node_def)]
    for part in (*graph.library.function, *nodes):
        for name in CLOSED:
            part.attr.pop(name, None)
    for node in nodes:
        node.attr.pop("_lower_using_switch_merge", None)  # loops stay loops
    meta = tf.compat.v1.train.export_meta_graph(graph_def=graph, graph=function.graph)
    ends = [tensor.name for tensor in (*function.inputs, *function.outputs)]
    fetched = meta_graph_pb2.CollectionDef(
        node_list=meta_graph_pb2.CollectionDef.NodeList(value=ends)
    )
    meta.collection_def["train_op"].CopyFrom(fetched)
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.min_graph_nodes = -1  # small graphs too
    options.optimizers.append("function")
    options.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    inlined = tf_optimizer.OptimizeGraph(config, meta)
    shapes = {node.name: node.attr["_output_shapes"] for node in graph.node}
    for node in inlined.node:  # of stand-ins, which nothing else tells
        if node.name in shapes:
            node.attr["_output_shapes"].CopyFrom(shapes[node.name])
    return inlined


def _skip_identities(graph: Any) -> None:
    """Let what takes a variable by way of Identity, of which inlining leaves some, take it."""
    for node in graph.node:
        if node.op == "Identity" and node.attr["T"].type == tf.resource.as_datatype_enum:
            for reader, index in _uses(graph.node, node.name):
                if not reader.input[index].startswith("^"):
                    reader.input[index] = node.input[0]


def _uses(nodes: Any, name: str) -> list[tuple[Any, int]]:
    """Return who takes what is called `name`, and as which input."""
    return [
        (node, index)
        for node in nodes
        for index, value in enumerate(node.input)
        if value.split(":")[0] == name
    ]


def _inner(node: Any, index: int, bodies: dict[str, Any]) -> list[tuple[Any, int]]:
    """Return the functions inside an operator, and which argument of theirs an input becomes."""
    attributes, first = BODIES[node.op]
    return [(bodies[node.attr[name].func.name], index - first) for name in attributes]


def _is_only_read(nodes: Any, name: str, bodies: dict[str, Any]) -> bool:
    for node, index in _uses(nodes, name):
        if node.op in BODIES:
            if not all(
                _is_only_read(body.node_def, body.signature.input_arg[i].name, bodies)
                for body, i in _inner(node, index, bodies)
            ):
                return False
        elif node.op == "Identity":
            if not _is_only_read(nodes, node.name, bodies):
                return False
        elif node.op not in ("ReadVariableOp", "ResourceGather"):
            return False
    return True


def _read(nodes: Any, name: str, bodies: dict[str, Any], value: Any) -> None:
    """Let all that takes a variable take its value."""
    for node, index in _uses(nodes, name):
        if node.op == "ReadVariableOp":
            _become(node, "Identity", T=value.dtype)
            _rename(nodes, f"{node.name}:value:0", f"{node.name}:output:0")
        elif node.op == "Identity" and node.attr["T"].type == tf.resource.as_datatype_enum:
            _become(node, "Identity", T=value.dtype)
            _read(nodes, node.name, bodies, value)
        elif node.op == "ResourceGather":
            _gather(nodes, node, value.dtype)
        elif node.op in BODIES:
            _read_inside(node, index, bodies, value)


def _rename(nodes: Any, old: str, new: str) -> None:
    """Give the readers inside a function what has another name there by the operator's output."""
    for node in nodes:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def _read_inside(node: Any, index: int, bodies: dict[str, Any], value: Any) -> None:
    kinds = node.attr["T" if node.op in LOOPS else "Tin"].list.type
    kinds[index - BODIES[node.op][1]] = value.dtype.as_datatype_enum
    node.attr.pop("_output_shapes", None)
    if node.op in LOOPS:
        node.attr["output_shapes"].list.shape[index].CopyFrom(value.shape.as_proto())
    for body, i in _inner(node, index, bodies):
        argument = body.signature.input_arg[i]
        if argument.type != tf.resource.as_datatype_enum:
            continue  # the function of another operator too
        argument.type = value.dtype.as_datatype_enum
        argument.ClearField("handle_data")
        body.arg_attr.pop(i, None)  # it says that a variable's handle has no axes
        if node.op in LOOPS and len(body.signature.output_arg) > i:  # the body, not the condition
            result = body.signature.output_arg[i]
            if result.type == tf.resource.as_datatype_enum:
                result.type = value.dtype.as_datatype_enum
                result.ClearField("handle_data")
        _read(body.node_def, argument.name, bodies, value)


def _become(node: Any, operator: str, **kinds: Any) -> None:
    node.op = operator
    node.attr.clear()
    for name, dtype in kinds.items():
        node.attr[name].type = dtype.as_datatype_enum


def _gather(nodes: Any, node: Any, dtype: Any) -> None:
    indices, batch = tf.as_dtype(node.attr["Tindices"].type), node.attr["batch_dims"].i
    axis = nodes.add(op="Const", name=f"{node.name}/axis")
    axis.attr["dtype"].type = tf.int32.as_datatype_enum
    axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(batch, tf.int32))
    _become(node, "GatherV2", Tparams=dtype, Tindices=indices, Taxis=tf.int32)
    node.attr["batch_dims"].i = batch
    node.input.insert(2, axis.name)
