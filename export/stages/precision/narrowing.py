"""float32 -> float16: give chosen nodes float16 tensors, and put Casts where the precisions meet.

A node that computes in float16 makes float16 tensors; who wants a tensor in the other precision
reads a Cast of it, one for all. Weights are rounded once, from their exact value. What a Cast made
is cast anew from what that Cast read, so that there are never two in a row.
"""

from collections.abc import Collection, Sequence

import onnx_ir as ir

from ...graph.exact import ExactTensor, constant, is_constant
from ...graph.operators import STANDARD
from .float16_forms import float16_positions, is_indifferent
from .widening import cast_node, names_in

__all__ = ["narrow"]

FLOAT16, FLOAT32 = ir.DataType.FLOAT16, ir.DataType.FLOAT


def narrow(
    graph: ir.Graph,
    nodes: Collection[ir.Node],
    inputs: Sequence[ir.TypeProtocol | None],
    outputs: Sequence[ir.DataType | None],
) -> int:
    """Let nodes of a graph compute in float16, in place.

    Args:
        graph: A graph in float32.
        nodes: The nodes to compute in float16; each has a float16 form.
        inputs: The type that each graph input is to have.
        outputs: The dtype that each graph output is to have; None leaves it as it is.

    Returns:
        The number of Casts added.
    """
    opset = int(graph.opset_imports.get("", 1))
    positions = {node: float16_positions(node, opset) or ([], []) for node in nodes}
    floats = {value for value in _values(graph) if value.dtype is FLOAT32}
    for given, kind in zip(graph.inputs, inputs, strict=True):
        given.type = kind
    for node, (_, made) in positions.items():
        for index in made:
            node.outputs[index].type = ir.TensorType(FLOAT16)
    forms = _Forms(graph)
    for node in list(graph.all_nodes()):
        if is_indifferent(node):
            continue
        in_float16 = frozenset(positions[node][0] if node in positions else [])
        for index, value in enumerate(node.inputs):
            if value is not None and value in floats:
                dtype = FLOAT16 if index in in_float16 else FLOAT32
                node.replace_input_with(index, forms.get(value, dtype))
    for index, wanted in enumerate(outputs):
        output = graph.outputs[index]
        if wanted is not None and output in floats and output.dtype is not wanted:
            graph.outputs[index] = forms.get(output, wanted, take_name=True)
    return forms.finish()


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *made]


class _Forms:
    """A graph's tensors in other precisions, made on demand and once each."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph, self._names = graph, names_in(graph)
        self._first = graph[0]
        self._forms: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._casts: list[ir.Node] = []

    def get(self, value: ir.Value, dtype: ir.DataType, *, take_name: bool = False) -> ir.Value:
        """Return a tensor in a precision; `take_name` gives a new one the name of the old."""
        if value.dtype is dtype:
            return value
        if (value, dtype) not in self._forms:
            self._forms[value, dtype] = self._make(value, dtype)
        form = self._forms[value, dtype]
        if take_name:
            value.name, form.name = form.name, value.name
        return form

    def _make(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        name = self._names.new(f"{value.name}_{dtype.name.lower()}")
        if value.const_value is not None and is_constant(value):
            form = constant(name, ExactTensor.of(value.const_value).with_dtype(dtype))
            form.meta.update(value.meta)
            return form
        producer = value.producer()
        source = value
        if producer is not None and producer.op_type == "Cast" and producer.domain in STANDARD:
            source = producer.inputs[0] or value
        if source.dtype is dtype:
            return source
        cast = cast_node(source, dtype, name)
        if producer is None:
            self._graph.insert_before(self._first, cast)
        else:
            self._graph.insert_after(producer, cast)
        self._casts.append(cast)
        return cast.outputs[0]

    def finish(self) -> int:
        """Remove what nobody reads any more, register the new weights, and count the new Casts."""
        initializers = self._graph.initializers
        removed: set[ir.Value] = set()
        for (value, _), form in self._forms.items():
            unused = not value.uses() and not value.is_graph_output() and value not in removed
            producer = value.producer()
            if is_constant(value):
                if unused:
                    del initializers[str(value.name)]
                    if not form.is_graph_output():
                        form.name = value.name
                    removed.add(value)
                initializers[str(form.name)] = form
            elif unused and producer is not None and producer.op_type == "Cast":
                self._graph.remove(producer, safe=True)
                removed.add(value)
        replaced = sum(not is_constant(value) for value in removed)
        return len(self._casts) - replaced
