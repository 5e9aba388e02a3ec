"""Open files that a stranger may have made: Keras models and input samples.

A `.keras` file is opened in Keras's safe mode and an `.npz` without pickles, so that neither runs
code. Whatever is wrong with a file becomes one `ExportError`.
"""

import os
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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

OPTIMIZER_LOST = "variable loading for optimizer"  # in what Keras then warns of


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


def require_keras_file(path: Path) -> None:
    """Raise `ExportError` unless `path` looks like a `.keras` file; needs no TensorFlow."""
    require_file(path, "MODEL.keras")
    try:
        with zipfile.ZipFile(path) as archive:
            missing = {"config.json", "model.weights.h5"} - set(archive.namelist())
    except (zipfile.BadZipFile, OSError) as e:
        raise _not_a_model(path, str(e)) from e
    if missing:
        raise _not_a_model(path, f"it has no {' and no '.join(sorted(missing))}")


def load_keras_model(path: Path) -> "keras.Model":
    """Load a `.keras` file in safe mode.

    Args:
        path: A file written by `model.save("....keras")`.

    Raises:
        ExportError: If the file is missing, damaged, unsafe, or uses unknown classes.
    """
    require_keras_file(path)
    import keras

    import keras_bn.layer  # noqa: F401  registers the layer

    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as e:  # a damaged file can make Keras, h5py, zipfile or json raise anything
        raise _not_a_model(path, one_line(e)) from e


def load_compiled_model(path: Path) -> tuple["keras.Model", str | None]:
    """Load a `.keras` file in safe mode with its loss and optimizer, or else without.

    Args:
        path: A file written by `model.save("....keras")`.

    Returns:
        The model, and why it is without its loss or its optimizer's state; None if it has both.

    Raises:
        ExportError: As `load_keras_model`.
    """
    require_keras_file(path)
    import keras

    import keras_bn.layer  # noqa: F401  registers the layer

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", f".*{OPTIMIZER_LOST}")
            model = keras.models.load_model(path, compile=True, safe_mode=True)
    except Exception as e:  # such as a loss of a class that is not known here
        return load_keras_model(path), f"its loss and optimizer cannot be restored: {one_line(e)}"
    lost = None if model.compiled else "the model was saved without loss and optimizer"
    for found in caught:
        if OPTIMIZER_LOST in str(found.message):
            lost = f"its optimizer starts anew: {' '.join(str(found.message).split())}"
        else:
            warnings.showwarning(found.message, found.category, found.filename, found.lineno)
    return model, lost


def load_samples(path: Path) -> dict[str, np.ndarray]:
    """Load the arrays of an `.npz` file by name; an `.npy` has one, named "".

    Raises:
        ExportError: If the file is missing, damaged, or holds Python objects.
    """
    require_file(path, "The samples")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        others = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
        if others:  # a zip file of something else, such as a Keras model
            raise ValueError(f"{others[0]!r} in it is no array")
        return arrays
    except Exception as e:  # a damaged header can make NumPy raise anything, MemoryError included
        raise ExportError(
            "The samples must be an .npz or .npy file of numbers. "
            f"Received: {str(path)!r}: {' '.join(str(e).split())}. "
            "Write it with numpy.savez(path, input_name=array)."
        ) from e


def _not_a_model(path: Path, why: str) -> ExportError:
    return ExportError(
        "MODEL.keras must be a whole file written by model.save('....keras'). "
        f"Received: {str(path)!r}: {why}. Save the model again."
    )
