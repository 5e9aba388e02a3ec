"""A whole model in HDF5, Keras's old format: what it says of itself, within bounds.

    attribute model_config     the architecture, as JSON
    group model_weights        the weights

A file of weights alone has no architecture, and cannot be opened as a model.
"""

import json
from pathlib import Path
from typing import Any

from .archives import ArchiveError

__all__ = ["HDF5", "is_hdf5", "read_hdf5_config"]

HDF5 = b"\x89HDF"  # the first bytes of a file
CONFIG = "model_config"


def is_hdf5(path: Path) -> bool:
    """Say whether a file begins as HDF5 does."""
    with path.open("rb") as file:
        return file.read(len(HDF5)) == HDF5


def read_hdf5_config(path: Path, largest: int) -> Any:
    """Return the architecture in a file; imports no TensorFlow.

    Args:
        path: The file.
        largest: How many bytes it may have.

    Raises:
        ArchiveError: If there is none, it is larger, or the weights declare more than they hold.
        OSError: If the file is damaged.
    """
    import h5py  # type: ignore[import-untyped]  # not there without Keras, as for ONNX files alone

    from .stored_weights import declared_in

    with path.open("rb") as stream:
        declared_in(stream, path.stat().st_size)
    with h5py.File(path, "r") as file:
        if CONFIG not in file.attrs:
            raise ArchiveError("it is an HDF5 file of weights alone, without the model")
        stored = file.attrs.get_id(CONFIG).get_storage_size()
        if stored > largest:
            raise ArchiveError(f"its {CONFIG} has {stored:,} bytes, more than {largest:,}")
        text = file.attrs[CONFIG]
    size = len(text)
    if size > largest:
        raise ArchiveError(f"its {CONFIG} has {size:,} bytes, more than {largest:,}")
    return json.loads(text)
