"""Open files of arrays that a stranger may have made: without pickles, so that none runs code.

None may declare far more than it holds (`archives.py`). Whatever is wrong becomes an `ExportError`.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import ExportError
from .archives import ArchiveError, require_array, require_modest, words_of
from .paths import require_file

__all__ = ["in_words", "is_batch_of", "load_samples"]

ZIP = b"PK"  # the first bytes of a zip file


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
            f"Received: {str(path)!r}: {words_of(e)}. "
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


def in_words(arrays: Mapping[str, np.ndarray]) -> str:
    """Return which arrays there are, for an error."""
    unnamed = "one array without a name, as in an .npy file; give an .npz file"
    return unnamed if list(arrays) == [""] else f"arrays {sorted(arrays)}"


def is_batch_of(array: np.ndarray, shape: Sequence[int | None]) -> bool:
    """Say whether an array holds numbers in a shape, at least one sample; None fits any size."""
    return (
        array.dtype.kind in "fiub"
        and array.ndim == len(shape)
        and len(array) > 0
        and all(wanted in (None, n) for wanted, n in zip(shape, array.shape, strict=True))
    )
