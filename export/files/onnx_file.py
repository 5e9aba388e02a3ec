"""Write a graph to an ONNX file once it is found to be valid; its weights, too, or beside it."""

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from ..errors import ExportError
from .whole_file import translated, write_data_of
from .wire import LARGEST_FILE, Skeleton, skeleton

__all__ = ["InvalidGraphError", "add_metadata", "write"]

FOR_METADATA = 2**20  # bytes of that, left free for `add_metadata`


class InvalidGraphError(ExportError):
    """A graph is not valid ONNX."""


def write(
    model: ir.Model,
    path: Path,
    *,
    external_data: bool | None = None,
    metadata: Mapping[str, str] | None = None,
    describe_values: bool = True,
) -> int:
    """Check a graph in full and write it.

    Args:
        model: The graph; stays unchanged.
        path: The file to write, such as the one that `replacing` gives.
        external_data: Whether the weights go to a file of their own, if one is large; see
            `external.py`. None: if one file cannot hold everything.
        metadata: Entries for the file's `metadata_props`.
        describe_values: Whether the file says the types and shapes of the values between nodes.
            Whoever infers them needs no `value_info`, and a tool that fixes the size of an input
            finds the free sizes in it a contradiction.

    Returns:
        The size in bytes, of both files if there are two.

    Raises:
        InvalidGraphError: If the graph is not valid ONNX.
        ExportError: If it is too large for one file while `external_data` is False.
        ExportError: If a file cannot be written, such as on a full disk.
    """
    parts = skeleton(model, metadata or {}, describe_values=describe_values)
    _check(parts.checked)
    size, content = parts.single_file()
    largest = LARGEST_FILE - FOR_METADATA
    if external_data is False and size > largest:
        raise ExportError(
            f"export: with `external_data=False` a model must fit into {largest:,} bytes. "
            f"Received: a model of {size:,} bytes. Leave it out, or pass True: the weights then go "
            "to a file of their own."
        )
    with translated(path):
        if parts.large and (external_data or size > largest):
            return _write_two_files(parts, path)
        with path.open("wb") as file:
            for part in content:
                file.write(part)
        return size


def add_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Add `metadata_props` to an ONNX file at no cost: they are appended, the rest stays unread.

    protobuf merges a field that occurs again at the end of a message.

    Args:
        path: A file that `write` wrote, such as one that `replacing` gave.
        metadata: The entries; their keys must be new.

    Raises:
        ExportError: If they are more than a megabyte, or the file cannot be written.
    """
    addition = onnx.ModelProto()
    onnx.helper.set_model_props(addition, dict(metadata))
    content = addition.SerializeToString(deterministic=True)
    if len(content) > FOR_METADATA:
        raise ExportError(
            f"export: metadata must fit into {FOR_METADATA:,} bytes. "
            f"Received: {len(content):,} bytes. Shorten them."
        )
    with translated(path), path.open("ab") as file:
        file.write(content)


def _check(proto: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        raise InvalidGraphError(
            "export: the graph must be valid ONNX. "
            f"Received: a graph for which onnx.checker says: {str(e).strip().splitlines()[0]} "
            "Please report this with the model's architecture."
        ) from e


def _write_two_files(parts: Skeleton, path: Path) -> int:
    data, offsets = write_data_of(path, parts.tensors())
    content = parts.with_external_data(data.name, offsets)
    path.write_bytes(content)
    return len(content) + data.stat().st_size
