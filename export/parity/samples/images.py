"""A folder of images + a model with one image input -> samples as the model expects them.

The images of the folder, and of the folders in it, one for each class, in the order of their names:

    a size that the model states    resized to it, bilinear; else all must have one size
    grey or RGB                     by the input's channels
    what the numbers are            pixels from 0 to 255 where a Rescaling or the like
                                    (`readers.py`), a Normalization of pixels or an integer input
                                    reads them; else, for a model with a name of
                                    `keras.applications`, what its `preprocess_input` makes; else
                                    only what the caller says

Images are decoded one at a time. Their orientation in EXIF is not followed.
"""

import itertools
import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_bn.reporting import counted

from ...errors import ExportError, one_line
from ...files.archives import ArchiveError
from ...signature import signature_of
from .image_files import LARGEST_FILE, decoded
from .readers import expects_pixels, readers_of

__all__ = ["load_images"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png"})
MOST_IMAGES = 10_000
MOST_BYTES = 2**31  # of all samples
PIXELS, UNIT = "none", "0-1"
# Names that `keras.applications` gives, of the families whose preprocessing is not in the model.
FAMILIES = {
    r"densenet\d+": "densenet",
    r"inception_resnet_v2": "inception_resnet_v2",
    r"inception_v3": "inception_v3",
    r"mobilenet_\d.*": "mobilenet",
    r"mobilenetv2_.*": "mobilenet_v2",
    r"nasnet.*": "nasnet",
    r"resnet\d+v2": "resnet_v2",
    r"resnet\d+": "resnet",
    r"vgg16": "vgg16",
    r"vgg19": "vgg19",
    r"xception": "xception",
}


def load_images(
    folder: Path, model: keras.Model, *, preprocess: str | None = None
) -> tuple[dict[str, np.ndarray], str]:
    """Load the images of a folder as samples of a model.

    Args:
        folder: Where the images are: PNG, JPEG, BMP or GIF (its first frame).
        model: A model with one input, of rank 4, with 1 or 3 channels.
        preprocess: "none" leaves pixels from 0 to 255, "0-1" divides them by 255, and a module of
            `keras.applications`, such as "resnet", means its `preprocess_input`. None finds out.

    Returns:
        The samples by the input's name; and in words what was done.

    Raises:
        ExportError: If the model has no such input, or nothing tells what its numbers should be.
        ExportError: If there is no image, too many, one that cannot be read or is too large, one
            that a link has elsewhere, or one of another size where the model states none.
    """
    specs = signature_of(model).specs
    readers = next(iter(readers_of(model).values()), ()) if len(specs) == 1 else ()
    first = _channels_first(specs, readers)
    shape = list(specs[0].shape[1:])
    height, width, channels = (*shape[1:], shape[0]) if first else shape
    dtype = np.dtype(specs[0].dtype.as_numpy_dtype)
    way = _way(model, dtype, list(readers), preprocess)
    paths = _images_in(folder)
    fixed = (height, width) if height and width else None
    image = _image(paths[0], channels, fixed)
    size = image.shape[:2]
    samples = _room(len(paths), image.shape, dtype)
    for i, path in enumerate(paths):
        image = _image(path, channels, fixed)
        if image.shape[:2] != size:
            raise ExportError(
                f"The images must have one size, because the input {specs[0].name!r} states none. "
                f"Received: {str(paths[0])!r} of {_by(size)} and {str(path)!r} of "
                f"{_by(image.shape[:2])}. Resize them."
            )
        samples[i] = _preprocessed(image, way, dtype)
    resized = f"{'resized to' if fixed else 'of'} {_by(size)}"
    words = f"{counted(len(paths), 'image')} of {str(folder)!r}, {resized}, {_in_words(way)}"
    return {specs[0].name: np.moveaxis(samples, -1, 1) if first else samples}, words


def _channels_first(specs: list[Any], readers: Any) -> bool:
    """Say whether the channels of the one input are at axis 1; raise if it takes no image."""
    shape = list(specs[0].shape) if len(specs) == 1 else []
    first, last = (len(shape) == 4 and shape[axis] in (1, 3) for axis in (1, -1))
    if not first and not last:
        received = {spec.name: tuple(spec.shape) for spec in specs}
        raise ExportError(
            "A folder of images must be for a model with one input of rank 4, of 1 or 3 channels. "
            f"Received: a model with {received}. Give an .npz file."
        )
    stated = {getattr(layer, "data_format", None) for layer in readers}
    return first and (not last or "channels_first" in stated)


def _way(model: Any, dtype: np.dtype[Any], readers: list[Any], preprocess: str | None) -> str:
    """Return `PIXELS`, `UNIT` or a module of `keras.applications`."""
    modules = [n for n in dir(keras.applications) if hasattr(_module(n), "preprocess_input")]
    if preprocess is not None:
        if preprocess not in (PIXELS, UNIT, *modules):
            raise ExportError(
                f"`preprocess` must be {PIXELS}, {UNIT} or one of {', '.join(modules)}. "
                f"Received: {preprocess!r}."
            )
        if dtype.kind != "f" and preprocess != PIXELS:
            raise ExportError(
                f"`preprocess` must be {PIXELS} for an input of {dtype}. Received: {preprocess!r}."
            )
        return preprocess
    if dtype.kind != "f" or any(_reads_pixels(layer) for layer in readers):
        return PIXELS
    for pattern, family in FAMILIES.items():
        if re.fullmatch(pattern, str(model.name), re.IGNORECASE):
            return family
    raise ExportError(
        f"The model must say what its images are preprocessed with. Received: {str(model.name)!r}, "
        "whose input nothing reads that expects pixels. "
        f"Pass --preprocess {PIXELS}|{UNIT}|FAMILY, such as resnet or vgg16."
    )


def _module(name: str) -> Any:
    return getattr(keras.applications, name)


def _reads_pixels(layer: Any) -> bool:
    """Say whether a layer that reads the input was made for 0 to 255."""
    if isinstance(layer, keras.layers.Normalization):
        return not layer.invert and bool(np.max(np.asarray(layer.mean)) > 1)  # else for 0 to 1
    return expects_pixels(layer)


def _images_in(folder: Path) -> list[Path]:
    """Return the images of a folder and of the folders in it, sorted."""
    try:
        paths = sorted(itertools.islice(_found_in(folder), MOST_IMAGES + 1))
    except OSError as e:
        raise _refused(folder, e.strerror or str(e)) from e
    if not paths:
        raise _refused(folder, f"it has no file ending in {', '.join(sorted(SUFFIXES))}")
    if len(paths) > MOST_IMAGES:
        raise _refused(folder, f"it has more than {MOST_IMAGES:,} images; take fewer")
    return paths


def _found_in(folder: Path, inner: bool = True) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if inner:
                    yield from _found_in(path, inner=False)
            elif path.suffix.lower() in SUFFIXES and not entry.name.startswith("."):
                yield path


def _image(path: Path, channels: int, size: tuple[int, int] | None) -> np.ndarray:
    """Return an image as floats from 0 to 255, of a size or as it is."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise ArchiveError("it is no ordinary file, such as a link")
        if found.st_size > LARGEST_FILE:
            raise ArchiveError(f"it has {found.st_size:,} bytes, more than {LARGEST_FILE:,}")
        image = decoded(path.read_bytes(), channels)
    except (OSError, ArchiveError, tf.errors.OpError) as e:
        raise _refused(path, str(e) if isinstance(e, ArchiveError) else one_line(e)) from e
    if size is not None:
        image = tf.image.resize(image, size)
    return np.array(image, np.float32)  # a copy, which preprocessing changes in place


def _room(count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    size = count * math.prod(shape) * dtype.itemsize
    if size > MOST_BYTES:
        raise ExportError(
            f"The images must have at most {MOST_BYTES:,} bytes together as samples. Received: "
            f"{count:,} of shape {shape}, {size:,} bytes. Take fewer, or smaller ones."
        )
    return np.empty((count, *shape), dtype)


def _preprocessed(image: np.ndarray, way: str, dtype: np.dtype[Any]) -> np.ndarray:
    if way == PIXELS:
        return image if dtype.kind == "f" else np.rint(image).clip(0, np.iinfo(dtype).max)
    if way == UNIT:
        return image / 255
    made = _module(way).preprocess_input(image, data_format="channels_last")
    return np.asarray(made)


def _in_words(way: str) -> str:
    if way == PIXELS:
        return "pixels from 0 to 255"
    return "pixels from 0 to 1" if way == UNIT else f"as keras.applications.{way} preprocesses"


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _refused(path: Path, why: str) -> ExportError:
    return ExportError(
        "The images must be a folder of whole PNG, JPEG, BMP or GIF files. "
        f"Received: {str(path)!r}: {why}."
    )
