"""Paths that a command is given: what is read must be there, and what is written another file."""

import contextlib
import os
from pathlib import Path

from ..errors import ExportError

__all__ = ["require_another_file", "require_file", "require_folder", "require_no_keras_file"]

SAVED_MODEL = "saved_model.pb"
MAKE_ONNX = "`keras-bn export` makes an ONNX file of a Keras model."
KERAS = (b"PK", b"\x89HDF")  # the first bytes of a .keras file, and of a model in HDF5


def require_folder(path: Path, what: str) -> None:
    """Raise `ExportError` unless the folder that a file is to be written to is there."""
    folder = path.parent
    with contextlib.suppress(OSError):  # `replacing` says what is wrong with such a path
        if folder.is_dir():
            return
        raise ExportError(
            f"{what} must be a file in an existing, writable folder. Received: {str(path)!r}, "
            f"and no folder {str(folder)!r}. Choose another path or create the folder."
        )


def require_file(path: Path, what: str) -> None:
    """Raise `ExportError` unless `path` is a readable file; `what` says what it should hold."""
    advice = "Check the path."
    try:
        if path.is_file() and os.access(path, os.R_OK):
            return
        why = "it cannot be read" if path.exists() else "no such file"
        why = "it is a folder" if path.is_dir() else why
        if (path / SAVED_MODEL).is_file():
            why = "it is a SavedModel of TensorFlow"
            advice = (
                "Save the Keras model itself, as .keras; or, in Python, put the folder into a "
                "model by keras.layers.TFSMLayer, and export that."
            )
    except OSError as e:  # such as a name that is too long
        why = e.strerror or str(e)
    raise ExportError(f"{what} must be a readable file. Received: {str(path)!r}: {why}. {advice}")


def require_no_keras_file(path: Path, what: str, advice: str = MAKE_ONNX) -> None:
    """Raise `ExportError` if a file that can be read is a Keras model where ONNX belongs."""
    with path.open("rb") as file:
        first = file.read(max(map(len, KERAS)))
    if first.startswith(KERAS):
        raise ExportError(
            f"{what} must be an ONNX file. Received: {str(path)!r}, a file of Keras or another "
            f"archive. {advice}"
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
