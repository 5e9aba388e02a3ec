"""Write a file whole or not at all: a checked ONNX graph, a Keras model, a page.

The bytes go to a temporary file beside the target, which is renamed over the target at the very
end: a reader, or a process killed half-way, finds the old file or the new one and nothing between.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from .errors import ExportError

if TYPE_CHECKING:
    import keras

__all__ = ["remove_unfinished", "replacing", "write", "write_keras_model"]

_unfinished: set[Path] = set()  # temporary files that `replacing` has given out

LARGEST_FILE = 2**31 - 1  # bytes; what protobuf can hold


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path that takes the target's place once the block ends well.

    Args:
        target: The file to create or replace; a link is followed.

    Yields:
        A path in the same folder and with the same suffix, to be written. If the block raises, it
        is removed and the target stays untouched.

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
    _unfinished.add(temporary)
    try:
        yield temporary
        with _translated(target):
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


def remove_unfinished() -> None:
    """Remove the temporary files of all blocks that are running, for a process about to end."""
    for temporary in list(_unfinished):
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _translated(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise _unwritable(target, e.strerror or str(e)) from e


def write(model: ir.Model, path: Path) -> int:
    """Check a graph in full and write it.

    Args:
        model: The graph; stays unchanged.
        path: The file to write, such as the one that `replacing` gives.

    Returns:
        The file's size in bytes.

    Raises:
        ExportError: If the graph is not valid ONNX, or too large for one file.
    """
    size = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value
    )
    if size > LARGEST_FILE:
        raise ExportError(
            f"export: the weights must fit into one file of {LARGEST_FILE:,} bytes. "
            f"Received: a model with {size:,} bytes of weights. Export a smaller model; weights "
            "in a file of their own are not supported yet."
        )
    proto = ir.to_proto(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        raise ExportError(
            "export: the graph must be valid ONNX. "
            f"Received: a graph for which onnx.checker says: {str(e).strip().splitlines()[0]} "
            "Please report this with the model's architecture."
        ) from e
    with _translated(path):
        path.write_bytes(proto.SerializeToString(deterministic=True))
    return path.stat().st_size


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


def _umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
