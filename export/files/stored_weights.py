"""The weights file in a `.keras` archive -> how many bytes it declares, or why it is refused.

An HDF5 file can lead to other files by external and soft links, by virtual datasets and by external
storage; none is followed. A dataset can declare a shape of which nothing is stored. Only the
file's own tables are read, each group once, whatever leads to it.
"""

from collections.abc import Iterator
from typing import IO

import h5py  # type: ignore[import-untyped]

from .archives import ArchiveError, largest_from

__all__ = ["declared_in"]


def declared_in(stream: IO[bytes], held: int) -> int:
    """Return how many bytes the datasets of an HDF5 file declare.

    Args:
        stream: The file.
        held: Its size in bytes.

    Raises:
        ArchiveError: If it leads to other files, or declares far more than it holds.
        OSError: If it is damaged.
    """
    with h5py.File(stream, "r") as file:
        declared = sum(int(dataset.nbytes) for dataset in _datasets(file))
    if declared > largest_from(held):
        raise ArchiveError(f"its weights declare {declared:,} bytes in a file of {held:,}")
    return declared


def _datasets(file: h5py.File) -> Iterator[h5py.Dataset]:
    """Yield every dataset once, without following a link out of the file."""
    waiting, seen = [file["/"]], set()
    while waiting:
        group = waiting.pop()
        for name in group:
            kind = group.get(name, getclass=True, getlink=True)
            if kind is not h5py.HardLink:
                raise ArchiveError(f"its weights {_path(group, name)} are a {kind.__name__}")
            found = group[name]
            address = h5py.h5o.get_info(found.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(found, h5py.Group):
                waiting.append(found)
            elif isinstance(found, h5py.Dataset):
                if found.external or found.is_virtual:
                    raise ArchiveError(f"its weights {_path(group, name)} are in another file")
                yield found


def _path(group: h5py.Group, name: str) -> str:
    return repr(f"{group.name.rstrip('/')}/{name}")
