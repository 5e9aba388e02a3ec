"""Open files of arrays that a stranger may have made: without pickles, so that none runs code.

None may declare far more than it holds (`archives.py`). Whatever is wrong becomes an `ExportError`.
"""

import zipfile
from collections.abc import Collection, Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExportError
from .archives import ArchiveError, require_array, require_modest, words_of
from .paths import require_file

if TYPE_CHECKING:
    import numpy as np

__all__ = ["TARGETS", "in_words", "is_batch_of", "load_samples", "named_after", "only_input"]

TARGETS = "y"  # what the array may be called that a model's only output is compared with
ZIP = b"PK"  # the first bytes of a zip file


def load_samples(path: Path) -> "dict[str, np.ndarray]":
    """Load the arrays of an `.npz` file by name; an `.npy` has one, named "".

    Raises:
        ExportError: If the file is missing or damaged, holds Python objects, or declares far more
            than it holds.
    """
    import numpy as np  # not while the command line starts

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


def only_input(arrays: Collection[str], name: str, targets: Container[str]) -> str | None:
    """Return which array is for a model's only input.

    Args:
        arrays: Their names; the only one may have the name "".
        name: The input's.
        targets: Names of arrays that are for outputs.

    Returns:
        The one called so, or "x", or the only one that is no target; None if there is no such.
    """
    named = [array for array in (name, "x") if array in arrays]
    others = named[:1] or [array for array in arrays if array not in targets]
    return others[0] if len(others) == 1 else None


def named_after(
    arrays: "dict[str, np.ndarray]", inputs: list[str], outputs: list[str]
) -> "dict[str, np.ndarray]":
    """Return arrays in which that of a model's only input has its name, if it is told apart.

    Args:
        arrays: The arrays by name.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
    """
    found = only_input(arrays, inputs[0], {TARGETS, *outputs}) if len(inputs) == 1 else None
    return arrays if found is None else {inputs[0]: arrays[found]}


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


def in_words(arrays: "Mapping[str, np.ndarray]") -> str:
    """Return which arrays there are, for an error."""
    unnamed = "one array without a name, as in an .npy file; give an .npz file"
    return unnamed if list(arrays) == [""] else f"arrays {sorted(arrays)}"


def is_batch_of(array: "np.ndarray", shape: Sequence[int | None]) -> bool:
    """Say whether an array holds numbers in a shape, at least one sample; None fits any size."""
    return (
        array.dtype.kind in "fiub"
        and array.ndim == len(shape)
        and len(array) > 0
        and all(wanted in (None, n) for wanted, n in zip(shape, array.shape, strict=True))
    )
