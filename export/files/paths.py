"""Paths that a command is given: what is read must be there, and what is written another file."""

import contextlib
import os
from pathlib import Path

from ..errors import ExportError

__all__ = ["require_another_file", "require_file"]


def require_file(path: Path, what: str) -> None:
    """Raise `ExportError` unless `path` is a readable file; `what` says what it should hold."""
    try:
        if path.is_file() and os.access(path, os.R_OK):
            return
        why = "it cannot be read" if path.exists() else "no such file"
        why = "it is a folder" if path.is_dir() else why
    except OSError as e:  # such as a name that is too long
        why = e.strerror or str(e)
    raise ExportError(
        f"{what} must be a readable file. Received: {str(path)!r}: {why}. Check the path."
    )


def require_another_file(out: Path, what: str, *inputs: tuple[Path, str]) -> None:
    """Raise `ExportError` if a file to write is one of those that are read, be it by a link.

    Args:
        out: The file to write, which need not exist.
        what: What the command calls it.
        inputs: The files that are read, each with what the command calls it.
    """
    for path, name in inputs:
        same = False
        with contextlib.suppress(OSError):  # `replacing` says what is wrong with the target
            same = out.samefile(path)
        if same:
            raise ExportError(
                f"{what} must be another file than {name}. Received: {str(out)!r} for both."
            )
