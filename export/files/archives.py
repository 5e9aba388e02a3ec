"""What a stranger's archive says of itself -> an error, or leave to unpack it.

    declared size <= max(256 MiB, 100 * size of the file)

holds for a zip file, for the arrays in it and for an HDF5 file, so that a small file cannot fill
the memory or the disk. Only headers are read. A member has one name, which stays inside the folder
that it is unpacked to. What is wrong is an `ArchiveError`; the caller knows the file's name.
"""

import math
import zipfile
from collections import Counter
from pathlib import PureWindowsPath
from typing import IO

from ..errors import one_line

__all__ = ["FLOOR", "ArchiveError", "largest_from", "require_array", "require_modest", "words_of"]

FLOOR = 2**28  # bytes that any file may declare
EXPANSION = 100  # times its size that a larger one may: Deflate gets weights to a tenth
MANY = 10_000  # members
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others reserve the memory that they state
ENCRYPTED = 1


class ArchiveError(ValueError):
    """What is wrong with a file that is not named here."""


def largest_from(held: int) -> int:
    """Return how many bytes a file of this size may declare."""
    return max(FLOOR, EXPANSION * held)


def require_modest(archive: zipfile.ZipFile, held: int) -> None:
    """Raise unless a zip file may be unpacked.

    Args:
        archive: The zip file.
        held: Its size in bytes.

    Raises:
        ArchiveError: If it has too many members, two of one name, one that leads outside, is
            encrypted or is packed in a rare way, or declares too much.
    """
    members = archive.infolist()
    if not 0 < len(members) <= MANY:
        raise ArchiveError(f"it has {len(members):,} members, which must be 1 to {MANY:,}")
    name, times = Counter(member.filename for member in members).most_common(1)[0]
    if times > 1:
        raise ArchiveError(f"{times} of its members are called {name!r}")
    for member in members:
        path = PureWindowsPath(member.filename)  # knows both separators
        if path.is_absolute() or path.drive or path.root or ".." in path.parts:
            raise ArchiveError(f"its member {member.filename!r} leads out of it")
        if member.compress_type not in METHODS or member.flag_bits & ENCRYPTED:
            raise ArchiveError(f"its member {member.filename!r} is neither stored nor deflated")
    declared = sum(member.file_size for member in members)
    if declared > largest_from(held):
        raise ArchiveError(f"it declares {declared:,} bytes and has {held:,}")


def require_array(stream: IO[bytes], held: int) -> None:
    """Raise unless an `.npy` file holds the array that its header declares.

    Args:
        stream: The file, at its start; the header is read from it.
        held: Its size in bytes.

    Raises:
        ArchiveError: If it is no such file, or its array holds Python objects or more than it has.
    """
    from numpy.lib import format as npy  # not while the command line starts

    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ArchiveError("it holds Python objects")
    declared, there = math.prod(shape) * dtype.itemsize, held - stream.tell()
    if declared != there or any(size < 0 for size in shape):
        raise ArchiveError(
            f"its header declares {declared:,} bytes, shape {shape} of {dtype}, "
            f"and it has {there:,}"
        )


def words_of(error: Exception) -> str:
    """Return what is wrong: our own words, or another library's with the type of its error."""
    return str(error) if isinstance(error, ArchiveError) else one_line(error)
