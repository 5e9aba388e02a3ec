"""Whether a graph can be relied on, before anything is computed with it.

It can if each tensor has one name and is made once, before it is read, if no function calls itself,
and if each constant holds as many elements as its shape says. `onnx.checker` looks at more, but
needs the whole model as bytes once more; what else may be wrong with a graph is asked of it only
when folding fails.

ONNX Runtime replaces the calls of functions when it loads a file:

    nodes(graph) = sum over its nodes of: 1, or nodes(function) for a call

Functions that call each other twice, thirty deep, are a thousand million nodes in a file of a few
kilobytes; a function that calls itself has no end. Neither is left to it.
"""

import math
from collections import Counter

import onnx
import onnx_ir as ir

from ..errors import Origin, invalid_model
from ..graph.bodies import bodies_of, graphs_of
from ..graph.operators import is_onnx
from .weight_files import require_inside, tensors_of

__all__ = ["require_sound", "require_unique_names"]

FIELDS = {
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.FLOAT: "float_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT32: "uint64_data",
    ir.DataType.UINT64: "uint64_data",
}
MOST_NODES = 1_000_000  # once every call is replaced by the nodes of what it calls
MOST_PARTS = 1_000_000  # each takes a hundred times the two bytes that it may have in the file
COMPLEX = frozenset({ir.DataType.COMPLEX128, ir.DataType.COMPLEX64})


def require_sound(model: ir.Model, source: Origin, *, complete: bool = True) -> None:
    """Raise unless a model is sorted, names are unique, and constants are as large as they say.

    Args:
        model: The model.
        source: What it came from.
        complete: False if some tensors are known to be missing.

    Raises:
        ExportError: If it is not sound.
    """
    for graph in graphs_of(model):
        _require_sorted(graph, set(), source, complete)
    why = _why_too_many(model)
    if why:
        raise invalid_model(source, why)
    for name, tensor in tensors_of(model):
        why = _mismatch(tensor)
        if why:
            raise invalid_model(source, f"the constant {name!r} {why}")
        if isinstance(tensor, ir.ExternalTensor):
            require_inside(tensor, name, source)


def _require_sorted(graph: ir.Graph, made: set[ir.Value], source: Origin, complete: bool) -> None:
    """Follow a graph in its order; `made` are the tensors that there are, here and around it."""
    names: set[str] = set()

    def add(value: ir.Value) -> None:
        _require_text(source, value.name)
        if value.name and value.name in names:
            raise invalid_model(source, f"two tensors are called {value.name!r}")
        names.add(str(value.name))
        made.add(value)

    for value in dict.fromkeys([*graph.inputs, *graph.initializers.values()]):
        add(value)
    for node in graph:
        _require_text(source, node.op_type, node.domain, node.name)
        for read in node.inputs:
            if read is not None and read not in made and (complete or read.producer()):
                raise invalid_model(
                    source,
                    f"{node.op_type} {node.name or node.outputs[0].name!r} reads {read.name!r}, "
                    "which nothing before it makes",
                )
        _require_parts(node, source)
        for body in bodies_of(node):
            _require_sorted(body, made, source, complete)
        for output in node.outputs:
            add(output)
    for output in graph.outputs:
        if output not in made and complete:
            raise invalid_model(source, f"nothing makes the output {output.name!r}")


def _require_parts(node: ir.Node, source: Origin) -> None:
    """Raise if a Split says another number of parts than it makes: onnx reads past its end."""
    parts = node.attributes.get("num_outputs") if node.op_type == "Split" else None
    if parts is None or parts.is_ref() or not is_onnx(node):
        return
    if parts.value != len(node.outputs):
        raise invalid_model(
            source,
            f"Split {node.name or node.outputs[0].name!r} has {len(node.outputs)} outputs and "
            f"num_outputs {parts.value!r}",
        )


def _require_text(source: Origin, *names: object) -> None:
    """Raise if a name is no text: protobuf gives bytes where a string is not UTF-8."""
    for name in names:
        if not isinstance(name, str | None):
            raise invalid_model(source, f"the name {name!r} is not UTF-8")


def _why_too_many(model: ir.Model) -> str:
    """Say in words why the calls of a model cannot be replaced; empty if they can."""
    counts: dict[ir.OperatorIdentifier, int] = {}
    open_calls: list[ir.OperatorIdentifier] = []

    def count(graph: ir.Graph | ir.Function) -> int:
        total = 0
        for node in graph:
            total += count_call(node.op_identifier())
            total += sum(count(body) for body in bodies_of(node))
        return total

    def count_call(called: ir.OperatorIdentifier) -> int:
        function = model.functions.get(called)
        if function is None:
            return 1
        if called in open_calls:
            raise RecursionError(f"its function {function.name!r} calls itself")
        if called not in counts:
            open_calls.append(called)
            counts[called] = count(function)
            open_calls.pop()
        return counts[called]

    try:
        total = count(model.graph)
    except RecursionError as e:
        return str(e)
    return f"its functions make {total:,} nodes of it" if total > MOST_NODES else ""


def _mismatch(tensor: ir.TensorProtocol) -> str:
    """Say in words how a constant's payload differs from its shape and dtype; empty if not."""
    try:
        dtype, shape = tensor.dtype, tensor.shape.numpy()
    except (TypeError, ValueError) as e:
        return f"has no shape and dtype: {e}"
    size = math.prod(shape)
    if any(n < 0 for n in shape):
        return f"has the shape {list(shape)}"
    if isinstance(tensor, ir.StringTensor):
        found = len(tensor.string_data())
        return "" if found == size else f"has {found} strings for the shape {list(shape)}"
    if dtype is ir.DataType.UNDEFINED or dtype is ir.DataType.STRING:
        return f"has the dtype {dtype.name}"
    if not isinstance(tensor, ir.TensorProtoTensor):
        return ""
    found, expected, unit = _payload(tensor.raw, dtype, size)
    if found == expected:
        return ""
    return f"has {found:,} {unit} for the shape {list(shape)} of {dtype.name}, not {expected:,}"


def _payload(proto: onnx.TensorProto, dtype: ir.DataType, size: int) -> tuple[int, int, str]:
    """Return how much a constant holds, how much it should, and of what."""
    packed = math.ceil(size * dtype.bitwidth / 8)
    if proto.HasField("raw_data"):
        return len(proto.raw_data), packed, "bytes"
    elements = packed if dtype.bitwidth < 8 else 2 * size if dtype in COMPLEX else size
    return len(getattr(proto, FIELDS.get(dtype, "int32_data"))), elements, "elements"


def require_unique_names(proto: onnx.ModelProto, source: Origin) -> None:
    """Raise if a graph names two inputs, or two initializers, alike: onnx_ir would merge them.

    Raises:
        ExportError: If a name is there twice, or if there are very many nodes and attributes.
    """
    graphs, parts = [proto.graph], 0
    while graphs:
        graph = graphs.pop()
        for values in (graph.input, graph.initializer):
            counts = Counter(value.name for value in values)
            if "" in counts:
                raise invalid_model(source, "a tensor has no name")
            name, times = counts.most_common(1)[0] if counts else ("", 0)
            if times > 1:
                raise invalid_model(source, f"two tensors are called {name!r}")
        for node in graph.node:
            parts += 1 + len(node.attribute)
            if parts > MOST_PARTS:
                raise invalid_model(source, f"it has over {MOST_PARTS:,} nodes and attributes")
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
                graphs.extend(attribute.graphs)
