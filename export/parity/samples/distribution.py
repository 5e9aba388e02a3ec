"""What the values of one input are, and how they are drawn. Imports no TensorFlow."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import ExportError

__all__ = ["Distribution", "require_limits", "uniform"]

OUTSIDE = 10.0  # times as far from the middle as the range reaches


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


def require_limits(name: str, limits: Any, dtype: Any) -> None:
    """Raise `ExportError` unless a range is two numbers of a dtype, the smaller first."""
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


def uniform(spec: Any, limits: tuple[float, float], because: str = "") -> Distribution:
    """Return a uniform distribution for an input, of whole numbers where it takes no others."""
    low, high = map(float, limits)
    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    why = f"uniform in [{low:g}, {high:g}]{because}"
    return Distribution(dtype, (low + high) / 2, (high - low) / 2, False, dtype.kind in "iub", why)
