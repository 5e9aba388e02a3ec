"""What an input's values may be -> what to draw.

    stated            uniform between the two numbers
    bool              False or True
    integers          0 to the smallest table that reads them: an Embedding's `input_dim`, a
                      CategoryEncoding's or Hashing's number of tokens; 0 to 255 for uint8 and for
                      pixels; else 0 or 1
    floats            whole numbers from 0 to 255 for pixels (`readers.py` says what reads those);
                      mean + deviation * normal where an adapted Normalization reads them; else
                      normal, mean 0, deviation 1, or uniform in a range that is tried instead

What reads an input is known of functional and sequential models, nested ones too. Of any other
model the dtype alone is known.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ...errors import ExportError
from .distribution import Distribution, require_limits, uniform
from .readers import expects_pixels, readers_of

__all__ = ["distributions_of"]

INTEGER_TABLES = ("input_dim", "num_tokens")
PIXELS = (0.0, 255.0)


def distributions_of(
    model: keras.Model,
    specs: list[Any],
    ranges: Mapping[str, tuple[float, float]],
    otherwise: tuple[float, float] | None = None,
) -> list[Distribution]:
    """Return what to draw for each input of a model.

    Args:
        model: The model.
        specs: Its inputs, a `tf.TensorSpec` each.
        ranges: Smallest and largest value of some inputs, by name; whole numbers for integers.
        otherwise: Smallest and largest value of floats of which nothing is known, instead of normal
            ones.

    Raises:
        ExportError: If `ranges` names something else, or has no two numbers of the input's dtype
            in rising order.
    """
    dtypes = {spec.name: spec.dtype for spec in specs}
    for name, limits in ranges.items():
        if name not in dtypes:
            raise ExportError(
                f"check: `ranges` must be of inputs of the model, {list(dtypes)}. "
                f"Received: {name!r}."
            )
        require_limits(name, limits, dtypes[name])
    by_name = readers_of(model)
    readers = [by_name.get(spec.name) for spec in specs]
    if None in readers:  # a signature may have other names, in the model's order
        readers = list(by_name.values()) if len(by_name) == len(specs) else [()] * len(specs)
    return [
        uniform(spec, ranges[spec.name], ", as stated")
        if spec.name in ranges
        else _inferred(spec, read_by or (), otherwise)
        for spec, read_by in zip(specs, readers, strict=True)
    ]


def _inferred(
    spec: Any, readers: Sequence[Any], otherwise: tuple[float, float] | None
) -> Distribution:
    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    pixels = any(expects_pixels(reader) for reader in readers)
    if dtype.kind == "b":
        return Distribution(dtype, 0.5, 0.5, False, True, "False or True")
    if dtype.kind in "iu":
        sizes = [
            int(size)
            for layer in readers
            for size in (getattr(layer, name, None) for name in INTEGER_TABLES)
            if size
        ]
        if sizes:
            largest, because = min(sizes) - 1, ", the indices of the table that reads them"
        elif pixels or dtype == np.uint8:
            largest, because = 255, ", as pixels are"
        else:
            largest, because = 1, ""
        largest = min(largest, np.iinfo(dtype).max)
        why = f"whole numbers from 0 to {largest}{because}"
        return Distribution(dtype, largest / 2, largest / 2, False, True, why)
    if pixels:
        middle, width = sum(PIXELS) / 2, (PIXELS[1] - PIXELS[0]) / 2
        return Distribution(
            dtype, middle, width, False, True, "whole numbers from 0 to 255, as pixels are"
        )
    for layer in readers:
        if isinstance(layer, keras.layers.Normalization) and not layer.invert:
            why = "normal, with the mean and variance that a Normalization was adapted to"
            return Distribution(dtype, *_adapted(layer, spec.shape[1:]), True, False, why)
    if otherwise is not None:
        return uniform(spec, otherwise)
    return Distribution(dtype, 0.0, 1.0, True, False, "normal, mean 0 and deviation 1")


def _adapted(layer: Any, shape: Any) -> tuple[Any, Any]:
    """Return a Normalization's mean and deviation; those of all its values if they do not fit.

    They need not fit an input that is reshaped, cropped or transposed before it gets there.
    """
    mean, variance = (np.asarray(v, np.float64) for v in (layer.mean, layer.variance))
    if mean.ndim > 1:
        mean, variance = mean[0], variance[0]
    sizes = list(shape)[len(shape) - mean.ndim :]
    if mean.ndim > len(shape) or any(
        size not in (1, other) for size, other in zip(mean.shape, sizes, strict=True)
    ):
        return np.mean(mean), np.sqrt(np.mean(variance) + np.var(mean))
    return mean, np.sqrt(variance)
