"""Write a file whole or not at all.

The bytes go to a temporary file beside the target, which is renamed over the target at the very
end: a reader, or a process killed half-way, finds the old file or the new one and nothing between.
A graph whose weights are in a file of their own is replaced as safely; `external.py` says how.
"""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx_ir as ir

from ..errors import ExportError
from .external import data_files_of, sync_folder, write_data

__all__ = ["remove_unfinished", "replacing", "scratch_folder", "translated", "write_data_of"]


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
        """Remove what is there of it: nothing where a name is too long, or the folder is none."""
        data = self.data - data_files_of(self.target) if self.data else ()
        for path in (self.temporary, *data):
            with contextlib.suppress(OSError):
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
    with translated(target):
        final = Path(os.path.realpath(target))
        is_folder = final.is_dir()
    if is_folder:
        raise _unwritable(target, "it is a folder")
    if final.is_symlink():
        raise _unwritable(target, "it is a link that leads to itself")
    if final.exists() and not final.is_file():
        raise _unwritable(target, "it is a device, pipe or socket")
    temporary = final.with_name(f".{secrets.token_hex(8)}.keras-bn{final.suffix}")
    # On record before it exists, so that a signal in between leaves nothing behind.
    unfinished = _unfinished[temporary] = _Unfinished(temporary, final)
    try:
        with translated(target):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield temporary
        with translated(target):
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(_mode())
            unfinished.put_in_place()
    finally:
        unfinished.remove()
        del _unfinished[temporary]


def write_data_of(path: Path, tensors: Iterable[ir.TensorProtocol]) -> tuple[Path, list[int]]:
    """Write the data file of a graph, as `write_data` does, and let it share the graph's fate.

    Args:
        path: The graph's file, such as one that `replacing` gave.
        tensors: What to write, in order.
    """
    unfinished = _unfinished.get(path)
    if unfinished is None:
        return write_data(tensors, path, _mode())
    return write_data(tensors, unfinished.target, _mode(), unfinished.data.add)


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
def translated(target: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an `ExportError` about the target."""
    try:
        yield
    except OSError as e:
        raise _unwritable(target, e.strerror or str(e)) from e


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
