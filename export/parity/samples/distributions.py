"""What an input's values may be -> what to draw.

    stated            uniform between the two numbers
    bool              False or True
    integers          0 to the smallest table that reads them: an Embedding's `input_dim`, a
                      CategoryEncoding's or Hashing's number of tokens; 0 to 255 for uint8 and for
                      pixels; else 0 or 1
    floats            whole numbers from 0 to 255 for pixels (`readers.py` says what reads those);
                      mean + deviation * normal where an adapted Normalization reads them; else
                      normal, mean 0, deviation 1

What reads an input is known of functional and sequential models, nested ones too. Of any other
model the dtype alone is known.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ...errors import ExportError
from .readers import expects_pixels, readers_of

__all__ = ["Distribution", "distributions_of"]

OUTSIDE = 10.0  # times as far from the middle as the range reaches
INTEGER_TABLES = ("input_dim", "num_tokens")
PIXELS = (0.0, 255.0)


@dataclasses.dataclass(frozen=True)
class Distribution:
    """What to draw for one input.

    Attributes:
        dtype: NumPy dtype.
        middle: Centre of the values, a number or an array that the last axes broadcast to.
        width: Deviation of a normal, half the range of a uniform one; likewise.
        normal: Whether floats are normal; else they are uniform.
        whole: Whether only whole numbers occur.
        why: In words, for the report.
    """

    dtype: np.dtype[Any]
    middle: Any
    width: Any
    normal: bool
    whole: bool
    why: str

    def draw(self, generator: np.random.Generator, shape: list[int]) -> np.ndarray:
        """Draw values."""
        if self.normal:
            return self._cast(self.middle + self.width * generator.normal(size=shape))
        if self.whole:
            low, high = round(self.middle - self.width), round(self.middle + self.width)
            return self._cast(generator.integers(low, high, size=shape, endpoint=True))
        return self._cast(self.middle + self.width * generator.uniform(-1.0, 1.0, size=shape))

    def constants(self, shape: list[int], *, first: int = 0) -> np.ndarray:
        """Return values that are all alike in a sample: 0 in one, both ends in others.

        Args:
            shape: The shape.
            first: Which of them comes first; another one for each input of a model, lest a network
                that compares two inputs sees none but equal ones.
        """
        low, high = self.middle - self.width, self.middle + self.width
        if self.dtype.kind == "f" and self.normal:
            ends = [np.zeros_like(high), high, low]
        else:
            ends = [low, high]
        rows = [np.broadcast_to(ends[(first + i) % len(ends)], shape[1:]) for i in range(shape[0])]
        return self._cast(np.stack(rows))

    def outside(self, generator: np.random.Generator, shape: list[int]) -> np.ndarray:
        """Draw values of which most are out of the range; indices and booleans stay within."""
        if self.dtype.kind != "f":
            return self.draw(generator, shape)
        wide = dataclasses.replace(self, width=OUTSIDE * self.width, normal=True, whole=False)
        return wide.draw(generator, shape)

    def _cast(self, values: Any) -> np.ndarray:
        if self.dtype.kind == "f":
            limits = np.finfo(self.dtype)
            values = np.clip(values, limits.min, limits.max)
        return np.asarray(values).astype(self.dtype)


def distributions_of(
    model: keras.Model, specs: list[Any], ranges: Mapping[str, tuple[float, float]]
) -> list[Distribution]:
    """Return what to draw for each input of a model.

    Args:
        model: The model.
        specs: Its inputs, a `tf.TensorSpec` each.
        ranges: Smallest and largest value of some inputs, by name; whole numbers for integers.

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
        _require_limits(name, limits, dtypes[name])
    by_name = readers_of(model)
    readers = [by_name.get(spec.name) for spec in specs]
    if None in readers:  # a signature may have other names, in the model's order
        readers = list(by_name.values()) if len(by_name) == len(specs) else [()] * len(specs)
    return [
        _stated(spec, ranges[spec.name]) if spec.name in ranges else _inferred(spec, read_by or ())
        for spec, read_by in zip(specs, readers, strict=True)
    ]


def _require_limits(name: str, limits: Any, dtype: Any) -> None:
    smallest, largest = (0, 1) if dtype.is_bool else (float(dtype.min), float(dtype.max))
    try:
        low, high = (float(limit) for limit in limits)
        good = smallest <= low < high <= largest and bool(np.isfinite(high - low))
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good or isinstance(limits, str | Mapping):
        raise ExportError(
            "check: a range must be two finite numbers, the smaller first, from "
            f"{smallest:g} to {largest:g} for {dtype.name}. Received: {name}={limits!r}."
        )


def _stated(spec: Any, limits: tuple[float, float]) -> Distribution:
    low, high = map(float, limits)
    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    why = f"uniform in [{low:g}, {high:g}], as stated"
    return Distribution(dtype, (low + high) / 2, (high - low) / 2, False, dtype.kind in "iub", why)


def _inferred(spec: Any, readers: Sequence[Any]) -> Distribution:
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
