"""Write a file whole or not at all: a checked ONNX graph, a Keras model, a page.

The bytes go to a temporary file beside the target, which is renamed over the target at the very
end: a reader, or a process killed half-way, finds the old file or the new one and nothing between.
A graph whose weights are in a file of their own is replaced as safely; `external.py` says how.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from .errors import ExportError
from .external import data_files_of, sync_folder, write_data
from .wire import Skeleton, skeleton

if TYPE_CHECKING:
    import keras

__all__ = [
    "LARGEST_FILE",
    "add_metadata",
    "remove_unfinished",
    "replacing",
    "scratch_folder",
    "write",
    "write_keras_model",
]

LARGEST_FILE = 2**31 - 1  # bytes; what protobuf can hold
FOR_METADATA = 2**20  # bytes of that, left free for `add_metadata`


class _Unfinished:
    """A temporary file that `replacing` has given out, and data files written for it."""

    def __init__(self, temporary: Path, target: Path) -> None:
        self.temporary, self.target = temporary, target
        self.data: set[Path] = set()

    def put_in_place(self) -> None:
        """Let it take the target's place, and remove the data files that only the old one used."""
        stale = data_files_of(self.target) - self.data
        self.temporary.replace(self.target)
        self.data.clear()
        if stale:
            sync_folder(self.target.parent)
        for path in stale:
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        self.temporary.unlink(missing_ok=True)
        for path in self.data - data_files_of(self.target) if self.data else ():
            path.unlink(missing_ok=True)


_unfinished: dict[Path, _Unfinished] = {}
_scratch: set[Path] = set()


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path that takes the target's place once the block ends well.

    Args:
        target: The file to create or replace; a link is followed.

    Yields:
        A path in the same folder and with the same suffix, to be written. If the block raises, it
        is removed, along with what `write` put beside it, and the target stays untouched.

    Raises:
        ExportError: If the target cannot be written, or is something else than a file.
    """
    with _translated(target):
        final = Path(os.path.realpath(target))
        is_folder = final.is_dir()
    if is_folder:
        raise _unwritable(target, "it is a folder")
    if final.is_symlink():
        raise _unwritable(target, "it is a link that leads to itself")
    if final.exists() and not final.is_file():
        raise _unwritable(target, "it is a device, pipe or socket")
    with _translated(target):
        handle, name = tempfile.mkstemp(".keras-bn" + final.suffix, ".", final.parent)
        os.close(handle)
    temporary = Path(name)
    unfinished = _unfinished[temporary] = _Unfinished(temporary, final)
    try:
        yield temporary
        with _translated(target):
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(_mode())
            unfinished.put_in_place()
    finally:
        unfinished.remove()
        del _unfinished[temporary]


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder, away from the target, that is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="keras-bn-") as name:
        folder = Path(name)
        _scratch.add(folder)
        try:
            yield folder
        finally:
            _scratch.discard(folder)


def remove_unfinished() -> None:
    """Remove what all blocks that are running would remove, for a process about to end."""
    for unfinished in list(_unfinished.values()):
        unfinished.remove()
    for folder in list(_scratch):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _translated(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise _unwritable(target, e.strerror or str(e)) from e


def write(
    model: ir.Model,
    path: Path,
    *,
    external_data: bool | None = None,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Check a graph in full and write it.

    Args:
        model: The graph; stays unchanged.
        path: The file to write, such as the one that `replacing` gives.
        external_data: Whether the weights go to a file of their own; see `external.py`. None: if
            one file cannot hold everything.
        metadata: Entries for the file's `metadata_props`.

    Returns:
        The size in bytes, of both files if there are two.

    Raises:
        ExportError: If the graph is not valid ONNX, or too large for one file while
            `external_data` is False.
        ExportError: If a file cannot be written, such as on a full disk.
    """
    parts = skeleton(model, metadata or {})
    _check(parts.checked)
    size, content = parts.single_file()
    largest = LARGEST_FILE - FOR_METADATA
    if external_data is False and size > largest:
        raise ExportError(
            f"export: with `external_data=False` a model must fit into {largest:,} bytes. "
            f"Received: a model of {size:,} bytes. Leave it out, or pass True: the weights then go "
            "to a file of their own."
        )
    with _translated(path):
        if external_data or size > largest:
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
    with _translated(path), path.open("ab") as file:
        file.write(content)


def _check(proto: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        raise ExportError(
            "export: the graph must be valid ONNX. "
            f"Received: a graph for which onnx.checker says: {str(e).strip().splitlines()[0]} "
            "Please report this with the model's architecture."
        ) from e


def _write_two_files(parts: Skeleton, path: Path) -> int:
    unfinished = _unfinished.get(path)
    target = path if unfinished is None else unfinished.target
    data, offsets = write_data(parts.tensors(), target, _mode())
    if unfinished is not None:
        unfinished.data.add(data)
    content = parts.with_external_data(data.name, offsets)
    path.write_bytes(content)
    return len(content) + data.stat().st_size


def write_keras_model(model: "keras.Model", path: Path) -> int:
    """Write a Keras model.

    Args:
        model: The model.
        path: The file to write, ending in ".keras", such as the one that `replacing` gives.

    Returns:
        The file's size in bytes.

    Raises:
        ExportError: If the file cannot be written, such as on a full disk.
    """
    with _translated(path):
        model.save(path)
        return path.stat().st_size


def _unwritable(target: Path, why: str) -> ExportError:
    return ExportError(
        f"the target must be a file in an existing, writable folder. "
        f"Received: {str(target)!r}: {why}. Choose another path or create the folder."
    )


def _mode() -> int:
    """Return the usual permissions of a new file: the mask can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
