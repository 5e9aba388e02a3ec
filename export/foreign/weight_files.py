"""Weights that a stranger's ONNX file keeps in other files: where they may be, and how long.

A location is followed only if it stays inside the model's folder, links resolved, and names a file
that holds as many bytes as the weight's shape and dtype ask for. Until that is known nothing is
read. Large weights then stay in their files, mapped into memory, until their elements are asked
for; small ones are read at once, because shape inference looks at their values.
"""

import math
import os
import stat
from collections.abc import Iterator
from pathlib import PureWindowsPath

import numpy as np
import onnx_ir as ir

from ..errors import ExportError, Origin
from ..graph.bodies import bodies_of, graphs_of

__all__ = ["external_tensors", "read_small", "require_inside", "tensors_of"]

SMALL = 1024  # bytes


def tensors_of(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Yield every constant of a model with a name for it: initializers and attributes, anywhere."""
    for graph in graphs_of(model):
        yield from _tensors_of(graph)


def _tensors_of(graph: ir.Graph) -> Iterator[tuple[str, ir.TensorProtocol]]:
    for value in graph.initializers.values():
        if value.const_value is not None:
            yield str(value.name), value.const_value
    for node in graph:
        for attribute in node.attributes.values():
            for tensor in _held_by(attribute):
                yield f"{node.op_type} {node.name or node.outputs[0].name}", tensor
        for body in bodies_of(node):
            yield from _tensors_of(body)


def _held_by(attribute: ir.Attr) -> list[ir.TensorProtocol]:
    if attribute.is_ref():
        return []
    if attribute.type is ir.AttributeType.TENSOR:
        return [attribute.as_tensor()]
    return list(attribute.as_tensors()) if attribute.type is ir.AttributeType.TENSORS else []


def external_tensors(model: ir.Model) -> list[ir.ExternalTensor]:
    """Return the constants that are in other files."""
    return [tensor for _, tensor in tensors_of(model) if isinstance(tensor, ir.ExternalTensor)]


def require_inside(tensor: ir.ExternalTensor, name: str, source: Origin) -> None:
    """Raise unless a weight lies inside the model's folder, in a file that is long enough.

    Args:
        tensor: The weight; its `base_dir` is the model's folder.
        name: The weight's name.
        source: What the model came from.

    Raises:
        ExportError: If its location is absolute or leads outside, by `..` or by a link.
        ExportError: If the file is missing or too short, or the length given does not fit the
            shape.
    """
    folder, location = os.fspath(tensor.base_dir) or os.curdir, os.fspath(tensor.location)
    pure = PureWindowsPath(location)  # knows both separators
    rooted = pure.is_absolute() or pure.drive or pure.root
    if not location or rooted or ".." in pure.parts or "\0" in location:
        raise _outside(name, location, source, "it must be a relative path without '..'")
    within = os.path.realpath(folder)
    try:
        real = os.path.realpath(os.path.join(folder, location))
        if os.path.commonpath([within, real]) != within:
            raise _outside(name, location, source, f"a link leads to {real!r}")
        found = os.stat(real)
    except OSError as e:
        raise _outside(name, location, source, e.strerror or str(e)) from e
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise _outside(name, location, source, "it must be an ordinary file with one name")
    offset, length, size = tensor.offset or 0, tensor.length, _nbytes(tensor)
    if length not in (None, size) or offset < 0 or offset + size > found.st_size:
        raise ExportError(
            f"{source.where}: the file of a weight must hold its bytes, at its offset. "
            f"Received: {source}: {name!r} of {size:,} bytes, given length={length} and "
            f"offset={offset} in {location!r} of {found.st_size:,} bytes. "
            "Copy the model again with all its files."
        )


def _nbytes(tensor: ir.ExternalTensor) -> int:
    return math.ceil(math.prod(tensor.shape.numpy()) * tensor.dtype.bitwidth / 8)


def _outside(name: str, location: str, source: Origin, why: str) -> ExportError:
    return ExportError(
        f"{source.where}: the files of an ONNX model's weights must be in its own folder. "
        f"Received: {source}: {name!r} in {location!r}: {why}. "
        "Put them beside the model, and save it with their relative paths."
    )


def read_small(model: ir.Model) -> None:
    """Read the weights that are better in memory, in place: small ones, and those in bodies.

    Args:
        model: A model whose external tensors have been found to be sound; changed.
    """
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes < SMALL:
            value.const_value = _in_memory(tensor)
    for graph in graphs_of(model):
        _read_attributes(graph)


def _read_attributes(graph: ir.Graph) -> None:
    for node in graph:
        for name, attribute in list(node.attributes.items()):
            held = _held_by(attribute)
            if any(isinstance(tensor, ir.ExternalTensor) for tensor in held):
                tensors = [_in_memory(tensor) for tensor in held]
                single = attribute.type is ir.AttributeType.TENSOR
                node.attributes[name] = ir.Attr(
                    name, attribute.type, tensors[0] if single else tensors
                )
        for body in bodies_of(node):
            for value in body.initializers.values():
                if value.const_value is not None:
                    value.const_value = _in_memory(value.const_value)
            _read_attributes(body)


def _in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(
        np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string
    )
