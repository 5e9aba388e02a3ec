"""Open files that a stranger may have made: Keras models and input samples.

A `.keras` file is opened in Keras's safe mode and an `.npz` without pickles, so that neither runs
code. Neither may declare far more than it holds (`archives.py`, `stored_weights.py`,
`model_limits.py`). Whatever is wrong with a file becomes one `ExportError`.
"""

import io
import json
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .archives import ArchiveError, require_array, require_modest
from .errors import ExportError, one_line

if TYPE_CHECKING:
    import keras

__all__ = [
    "load_compiled_model",
    "load_keras_model",
    "load_samples",
    "require_file",
    "require_keras_file",
]

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
LARGEST_CONFIG = 2**24  # bytes; the largest of keras.applications has 2**20
OPTIMIZER_LOST = "variable loading for optimizer"  # in what Keras then warns of
HDF5 = b"\x89HDF"
UNKNOWN = re.compile(r"Could not locate (class|function) '([^']{1,100})'")  # says Keras
ZIP = b"PK"  # the first bytes of a zip file


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


def require_keras_file(path: Path, *, unsafe: bool = False) -> None:
    """Raise `ExportError` unless `path` looks like a `.keras` file; needs no TensorFlow.

    Args:
        path: The file.
        unsafe: Whether it may hold Python code, which loading it then runs.
    """
    require_file(path, "MODEL.keras")
    try:
        with path.open("rb") as file:
            if file.read(len(HDF5)) == HDF5:
                raise ArchiveError("it is an HDF5 file, Keras's old format, or weights alone")
        with zipfile.ZipFile(path) as archive:
            missing = {CONFIG, WEIGHTS} - set(archive.namelist())
            if missing:
                raise ArchiveError(f"it has no {' and no '.join(sorted(missing))}")
            require_modest(archive, path.stat().st_size)
            size = archive.getinfo(CONFIG).file_size
            if size > LARGEST_CONFIG:
                raise ArchiveError(f"its {CONFIG} has {size:,} bytes, more than {LARGEST_CONFIG:,}")
            config = json.loads(archive.read(CONFIG))
            if not isinstance(config, dict):
                raise ArchiveError(f"its {CONFIG} is no JSON object")
    except Exception as e:  # zipfile, zlib and json raise many kinds, RecursionError included
        raise _not_a_model(path, _words(e)) from e
    code = [] if unsafe else _code_in(config)
    if code:
        raise _holds_code(path, f"code in {', '.join(map(repr, code))}, as a Lambda has it")


def _code_in(config: Any) -> list[str]:
    """Return the names of the layers whose config holds Python code, as a Lambda's does."""
    found: list[str] = []
    waiting = [value for key, value in config.items() if key != "compile_config"]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if any(
                isinstance(v, dict) and v.get("class_name") == "__lambda__" for v in part.values()
            ):
                found.append(str(part.get("name", "a function")))
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return sorted(set(found))


def load_keras_model(path: Path, *, unsafe: bool = False) -> "keras.Model":
    """Load a `.keras` file, in safe mode.

    Args:
        path: A file written by `model.save("....keras")`.
        unsafe: Whether to run the Python code that the file may hold, such as a Lambda's.

    Raises:
        ExportError: If the file is missing, damaged, unsafe, or uses unknown classes.
        ExportError: If it declares far more than it holds, or leads to other files.
    """
    require_keras_file(path, unsafe=unsafe)
    try:
        return _load(path, compiled=False, unsafe=unsafe)
    except Exception as e:  # a damaged file can make Keras, h5py, zipfile or json raise anything
        if not unsafe and "safe_mode=False" in str(e):  # as all that Keras then refuses says
            raise _holds_code(path, _words(e)) from e
        unknown = UNKNOWN.search(str(e))
        if unknown:
            raise _holds_unknown(path, *unknown.groups()) from e
        raise _not_a_model(path, _words(e)) from e


def load_compiled_model(path: Path, *, unsafe: bool = False) -> tuple["keras.Model", str | None]:
    """Load a `.keras` file, in safe mode, with its loss and optimizer, or else without.

    Args:
        path: A file written by `model.save("....keras")`.
        unsafe: As for `load_keras_model`.

    Returns:
        The model, and why it is without its loss or its optimizer's state; None if it has both.

    Raises:
        ExportError: As `load_keras_model`.
    """
    require_keras_file(path, unsafe=unsafe)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", f".*{OPTIMIZER_LOST}")
            model = _load(path, compiled=True, unsafe=unsafe)
    except Exception as e:  # such as a loss of a class that is not known here
        why = f"its loss and optimizer cannot be restored: {one_line(e)}"
        return load_keras_model(path, unsafe=unsafe), why
    lost = None if model.compiled else "the model was saved without loss and optimizer"
    for found in caught:
        if OPTIMIZER_LOST in str(found.message):
            lost = f"its optimizer starts anew: {' '.join(str(found.message).split())}"
        else:
            warnings.showwarning(found.message, found.category, found.filename, found.lineno)
    return model, lost


def _load(path: Path, *, compiled: bool, unsafe: bool) -> "keras.Model":
    import keras

    import keras_bn.layer  # noqa: F401  registers the layer

    from .model_limits import limited_variables, require_modest_tensors
    from .stored_weights import declared_in

    with zipfile.ZipFile(path) as archive:
        content = archive.read(WEIGHTS)
        stored = declared_in(io.BytesIO(content), len(content))
    del content
    with limited_variables(stored):
        model = keras.models.load_model(path, compile=compiled, safe_mode=not unsafe)
    require_modest_tensors(model)
    return model


def load_samples(path: Path) -> dict[str, np.ndarray]:
    """Load the arrays of an `.npz` file by name; an `.npy` has one, named "".

    Raises:
        ExportError: If the file is missing or damaged, holds Python objects, or declares far more
            than it holds.
    """
    require_file(path, "The samples")
    try:
        _require_arrays(path)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except Exception as e:  # a damaged header can make NumPy raise anything, MemoryError included
        raise ExportError(
            "The samples must be an .npz or .npy file of numbers. "
            f"Received: {str(path)!r}: {_words(e)}. "
            "Write it with numpy.savez(path, input_name=array)."
        ) from e


def _require_arrays(path: Path) -> None:
    """Raise unless the arrays in a file are as large as it declares."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP:
            file.seek(0)
            require_array(file, size)
            return
        with zipfile.ZipFile(file) as archive:
            require_modest(archive, size)
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):  # such as a Keras model
                    raise ArchiveError(f"{member.filename!r} in it is no array")
                with archive.open(member) as stream:
                    require_array(stream, member.file_size)


def _words(error: Exception) -> str:
    """Return what is wrong: our own words, or another library's with the type of its error."""
    return str(error) if isinstance(error, ArchiveError) else one_line(error)


def _not_a_model(path: Path, why: str) -> ExportError:
    return ExportError(
        "MODEL.keras must be a whole file written by model.save('....keras'). "
        f"Received: {str(path)!r}: {why}. Save the model again."
    )


def _holds_unknown(path: Path, kind: str, name: str) -> ExportError:
    return ExportError(
        "MODEL.keras must hold Keras's own classes and functions, because this command imports no "
        f"others. Received: {str(path)!r}, with the {kind} {name!r}. In Python, import what "
        "defines it, load the model with keras.saving.load_model, and call the functions of "
        "keras_bn.export on that."
    )


def _holds_code(path: Path, what: str) -> ExportError:
    return ExportError(
        f"MODEL.keras must hold no Python code. Received: {str(path)!r}: {what}. "
        "Pass --unsafe to run that code, if you trust whoever made the file."
    )
