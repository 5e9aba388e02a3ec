"""An ONNX graph as bytes in order, with one block of one weight in memory at a time.

protobuf serialises a message whole, so a graph with its weights would be held three times: as
arrays, as a message and as bytes. Here the message is a skeleton without the large constants. It is
small, so it can be checked in full, and a file is the skeleton's bytes with those of the constants
in between:

    ModelProto:  every field but `graph`;  graph:  every field of the skeleton's graph,
                 then for each large constant  initializer:  name, dims, data_type;  raw_data

That is what protobuf writes itself but for the order of fields, which it leaves open. Each length
precedes its bytes and follows from the shapes, so nothing is computed twice.

In the skeleton that `onnx.checker` sees, a large constant is a graph input without a payload. What
this does not look at is the payload's length, which is right by construction. Shape inference reads
values only of small constants (sizes, axes, pads), and those are in the skeleton.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ..graph.exact import blocks
from ..graph.excerpt import model_around

__all__ = ["LARGEST_FILE", "Skeleton", "skeleton"]

LARGEST_FILE = 2**31 - 1  # bytes; what protobuf can hold
LARGE = 1024  # bytes; a smaller constant stays in the skeleton
MODEL, GRAPH, TENSOR = onnx.ModelProto, onnx.GraphProto, onnx.TensorProto


@dataclass(frozen=True)
class Skeleton:
    """A graph without its large constants, and those.

    Attributes:
        proto: The graph without them.
        checked: The same with each of them as a graph input.
        large: The large constants, in the order of the graph's initializers.
    """

    proto: onnx.ModelProto
    checked: onnx.ModelProto
    large: tuple[ir.Value, ...]

    def tensors(self) -> Iterator[ir.TensorProtocol]:
        """Return the large constants' tensors."""
        return (_tensor(value) for value in self.large)

    def single_file(self) -> tuple[int, Iterator[bytes | memoryview]]:
        """Return the size in bytes of a file with everything in it, and its bytes in order."""
        shell = MODEL()
        shell.CopyFrom(self.proto)
        shell.ClearField("graph")
        outside = _serialized(shell)
        inside = _serialized(self.proto.graph)
        heads = [_tensor_head(value) for value in self.large]
        graph_size = len(inside) + sum(
            len(head) + _nbytes(value) for head, value in zip(heads, self.large, strict=True)
        )
        before = outside + _opening(MODEL, "graph", graph_size) + inside

        def parts() -> Iterator[bytes | memoryview]:
            yield before
            for head, value in zip(heads, self.large, strict=True):
                yield head
                yield from blocks(_tensor(value))

        return len(before) + graph_size - len(inside), parts()

    def with_external_data(self, location: str, offsets: Iterable[int]) -> bytes:
        """Return the bytes of a file whose large constants are in another file.

        Args:
            location: The other file's name; it must be in the same folder.
            offsets: Where each of them begins there, in bytes.
        """
        proto = MODEL()
        proto.CopyFrom(self.proto)
        for value, offset in zip(self.large, offsets, strict=True):
            tensor = proto.graph.initializer.add()
            tensor.CopyFrom(_described(value))
            tensor.data_location = TENSOR.EXTERNAL
            place = {"location": location, "offset": str(offset), "length": str(_nbytes(value))}
            for key, text in place.items():
                tensor.external_data.add(key=key, value=text)
        return _serialized(proto)


def skeleton(
    model: ir.Model, metadata: Mapping[str, str], *, describe_values: bool = True
) -> Skeleton:
    """Take a graph apart.

    Args:
        model: The graph; stays unchanged.
        metadata: Entries for `metadata_props`, which win over those of the model.
        describe_values: Whether the file says the types and shapes of the values between nodes.
    """
    graph = model.graph
    constants = [v for v in graph.initializers.values() if v.const_value is not None]
    large = tuple(value for value in constants if _is_large(value))
    apart = set(large)
    view = ir.GraphView(
        [*graph.inputs, *(value for value in large if not value.is_graph_input())],
        graph.outputs,
        nodes=graph,
        initializers=[value for value in constants if value not in apart],
    )
    checked = ir.to_proto(model_around(view, model))
    onnx.helper.set_model_props(checked, {**model.metadata_props, **metadata})
    proto = MODEL()
    proto.CopyFrom(checked)
    del proto.graph.input[len(graph.inputs) :]
    if not describe_values:
        proto.graph.ClearField("value_info")
    return Skeleton(proto, checked, large)


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.dtype is not ir.DataType.STRING and tensor.nbytes >= LARGE


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    if value.const_value is None:
        raise ValueError(f"wire: `value` must be a constant. Received: value={value}.")
    return value.const_value


def _nbytes(value: ir.Value) -> int:
    return _tensor(value).nbytes


def _described(value: ir.Value) -> onnx.TensorProto:
    """Return a constant's name, shape and dtype."""
    tensor = _tensor(value)
    return TENSOR(name=value.name, dims=tensor.shape.numpy(), data_type=tensor.dtype.value)


def _tensor_head(value: ir.Value) -> bytes:
    """Return what comes before a constant's elements, as an initializer of a graph."""
    head = _serialized(_described(value)) + _opening(TENSOR, "raw_data", _nbytes(value))
    return _opening(GRAPH, "initializer", len(head) + _nbytes(value)) + head


def _serialized(message: onnx.ModelProto | onnx.GraphProto | onnx.TensorProto) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _opening(message: type, field: str, size: int) -> bytes:
    """Return the tag and the length with which protobuf begins a field of `size` bytes."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number  # type: ignore[attr-defined]
    return _varint(number << 3 | 2) + _varint(size)


def _varint(number: int) -> bytes:
    """Write a number seven bits a byte, the lowest first; the eighth bit says that more follow."""
    septets = []
    while number > 0x7F:
        septets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*septets, number])
