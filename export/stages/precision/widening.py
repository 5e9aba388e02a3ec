"""Half precision -> float32: what a mixed-precision model computes, only more precisely.

Every float16 and bfloat16 tensor becomes float32, and every float64 one if that is asked for: graph
inputs and outputs, initializers, tensors in attributes, what a Cast casts to, in subgraphs too. A
Cast between two that are now the same is gone. Widening is exact; only the rounding to half
precision in between is no longer done. From float64 each constant is rounded once.

Nodes of other domains are left as they are, between Casts: nobody knows which types they take.
"""

from collections.abc import Iterator

import onnx_ir as ir

from ...graph.bypass import remove_identities
from ...graph.exact import ExactTensor
from ...graph.names import Names
from ...graph.operators import STANDARD

__all__ = ["DOUBLE", "HALF", "cast_node", "names_in", "widen"]

Kinds = frozenset[ir.DataType]

HALF: Kinds = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
DOUBLE: Kinds = frozenset({ir.DataType.DOUBLE})
# Attributes of standard operators whose integer is a data type.
TYPES = frozenset(
    {"dtype", "output_datatype", "output_dtype", "softmax_precision", "stash_type", "to"}
)


def widen(model: ir.Model, kinds: Kinds = HALF) -> ir.Model:
    """Turn every half-precision tensor into a float32 one.

    Args:
        model: Any graph; stays unchanged.
        kinds: The dtypes that become float32.

    Returns:
        A new model without these dtypes, but for the nodes of other domains.
    """
    model = model.clone()
    names = names_in(model.graph)
    graphs = [model.graph, *model.graph.subgraphs()]
    half: dict[ir.Value, ir.DataType | None] = {
        v: v.dtype for graph in graphs for v in _values(graph) if v.dtype in kinds
    }
    for graph in graphs:
        for node in list(graph):
            if node.domain in STANDARD:
                _widen_attributes(node, kinds)
            else:
                _enclose(node, half, names)
    for value in half:
        _widen_value(value, kinds)
    for graph in graphs:
        for node in graph:
            if _is_pointless_cast(node):
                node.op_type = "Identity"
                node.attributes.clear()
        remove_identities(graph)
    return model


def cast_node(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    """Return a Cast of a value to a dtype, whose output is called `name`; in no graph yet."""
    node = ir.node("Cast", [value], {"to": int(dtype)}, name=name)
    output = node.outputs[0]
    output.name, output.shape, output.type = name, value.shape, ir.TensorType(dtype)
    return node


def names_in(graph: ir.Graph) -> Names:
    """Collect the names of all values of a graph and of its subgraphs."""
    graphs = [graph, *graph.subgraphs()]
    return Names(str(value.name) for part in graphs for value in _values(part))


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for value in graph.initializers.values():
        if not value.is_graph_input():
            yield value
    for node in graph:
        yield from node.outputs


def _widened(kind: ir.TypeProtocol, kinds: Kinds) -> ir.TypeProtocol:
    """Return a type with float32 in place of others, in a sequence's elements too."""
    if isinstance(kind, ir.TensorType):
        return ir.TensorType(ir.DataType.FLOAT) if kind.dtype in kinds else kind
    if isinstance(kind, ir.SequenceType):
        return ir.SequenceType(_widened(kind.elem_type, kinds))
    if isinstance(kind, ir.OptionalType):
        return ir.OptionalType(_widened(kind.elem_type, kinds))
    return kind


def _widen_value(value: ir.Value, kinds: Kinds) -> None:
    if value.type is not None:
        value.type = _widened(value.type, kinds)
    if value.const_value is not None:
        value.const_value = ExactTensor.of(value.const_value).with_dtype(ir.DataType.FLOAT)


def _widen_attributes(node: ir.Node, kinds: Kinds) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref():
            continue
        if attribute.type is ir.AttributeType.TENSOR and attribute.value.dtype in kinds:
            array = attribute.value.numpy().astype("float32")
            node.attributes[name] = ir.AttrTensor(name, ir.Tensor(array))
        elif attribute.type is ir.AttributeType.INT and name in TYPES and attribute.value in kinds:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))


def _enclose(node: ir.Node, half: dict[ir.Value, ir.DataType | None], names: Names) -> None:
    """Give a node the half-precision tensors that it had, by Casts before and behind it."""
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        return
    for index, value in enumerate(node.inputs):
        dtype = None if value is None else half.get(value)
        if value is not None and dtype is not None:
            before = cast_node(value, dtype, names.new(f"{value.name}_{dtype.name.lower()}"))
            graph.insert_before(node, before)
            node.replace_input_with(index, before.outputs[0])
    for value in node.outputs:
        dtype = half.pop(value, None)
        if dtype is not None:
            behind = cast_node(value, ir.DataType.FLOAT, names.new(f"{value.name}_float"))
            graph.insert_after(node, behind)
            value.replace_all_uses_with(behind.outputs[0], replace_graph_outputs=True)
            behind.replace_input_with(0, value)
            value.name, behind.outputs[0].name = behind.outputs[0].name, value.name


def _is_pointless_cast(node: ir.Node) -> bool:
    if node.op_type != "Cast" or node.domain not in STANDARD or node.inputs[0] is None:
        return False
    return node.inputs[0].dtype == node.attributes["to"].as_int()
