"""The weights of an ONNX graph in a file of their own, beside the graph's.

Two files cannot be replaced in one step, so the data file is never replaced: its name contains the
hash of its content, `<model>.onnx.<32 hexadecimal digits>.data`. It is complete, under its final
name, before the graph that refers to it takes the target's place, and the data file that the old
graph referred to is removed only after that. At every instant the target is the old graph or the
new one, and the data that it refers to are beside it. What a killed process leaves behind is at
most a data file, or a hidden temporary file, that no graph refers to; the next export of the same
weights takes the former over. The hash also keeps a graph's bytes the same from export to export.

Large constants begin at a multiple of 4,096 bytes, a memory page, so that they can be mapped.
"""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ..graph.exact import blocks

__all__ = ["data_files_of", "sync_folder", "write_data"]

PAGE, PAGED = 4096, 2**16  # bytes: where a constant begins, if it has at least so many
WORD = 64  # bytes: where a smaller one begins


def write_data(
    tensors: Iterable[ir.TensorProtocol],
    target: Path,
    mode: int,
    note: Callable[[Path], object] = lambda _: None,
) -> tuple[Path, list[int]]:
    """Write a data file for a target; an existing one of the same content is replaced.

    Args:
        tensors: What to write, in order.
        target: The graph's final path.
        mode: The file's permissions.
        note: Takes each path before there is a file of that name.

    Returns:
        The data file, and the offset of each tensor in it.
    """
    temporary = target.with_name(f".{secrets.token_hex(8)}.keras-bn.data")
    note(temporary)
    try:
        with open(temporary, "xb", opener=_open_private) as file:
            digest, offsets = _write_aligned(file, tensors)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        final = target.with_name(f"{target.name}.{digest}.data")
        note(final)
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
    return final, offsets


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_aligned(file: IO[bytes], tensors: Iterable[ir.TensorProtocol]) -> tuple[str, list[int]]:
    sha, offsets, position = hashlib.sha256(), list[int](), 0
    for tensor in tensors:
        gap = bytes(-position % (PAGE if tensor.nbytes >= PAGED else WORD))
        file.write(gap)
        sha.update(gap)
        offsets.append(position + len(gap))
        for block in blocks(tensor):
            file.write(block)
            sha.update(block)
        position = offsets[-1] + tensor.nbytes
    return sha.hexdigest()[:32], offsets


def data_files_of(target: Path) -> set[Path]:
    """Return the data files that a graph refers to, of those that `write_data` wrote for it."""
    ours = re.compile(re.escape(target.name) + r"\.[0-9a-f]{32}\.data")
    try:
        beside = {entry.name for entry in os.scandir(target.parent) if ours.fullmatch(entry.name)}
        if not beside or not target.is_file():
            return set()
        graph = onnx.load(target, load_external_data=False).graph
    except (DecodeError, OSError, ValueError):
        return set()  # no graph, so it refers to nothing
    locations = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return {target.with_name(name) for name in beside & locations}


def sync_folder(folder: Path) -> None:
    """Make renamings in a folder outlast a power failure, in this order."""
    with contextlib.suppress(OSError):  # Windows cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
