"""Errors of one array against the truth.

    error_i = |found_i - truth_i| / scale,   scale = max |truth|  (1 if that is 0)

over the values that are finite in the truth; where it is NaN or infinite, the same must be found.
"""

import numpy as np

from .array_errors import QUANTILES, Errors

__all__ = [
    "argmax_agreement",
    "channel_errors",
    "decibels",
    "errors_of",
    "is_rescaled",
    "root_mean_square",
    "scale_of",
    "signal_to_noise",
    "top5_agreement",
]

TOP = 5
RESCALED = 1e-2  # of the RMS error without: what the best factor and offset per channel may leave


def scale_of(truth: np.ndarray) -> float:
    """Return the largest finite magnitude; 1 if that is 0, or there is none."""
    return float(np.abs(truth[np.isfinite(truth)]).max(initial=0.0)) or 1.0


def errors_of(truth: np.ndarray, found: np.ndarray, scale: float) -> Errors:
    """Measure an array against the truth.

    Args:
        truth: Any shape, in float64 or in the precision of a fallback.
        found: The same shape; another one is an infinite error.
        scale: What errors are relative to, in the units of `truth`.
    """
    if found.shape != truth.shape:
        nothing = float("nan")
        return _infinite((), nothing, nothing)
    if truth.size == 0:
        return Errors(0.0, 0.0, (0.0,) * len(QUANTILES), (), 0.0, 0.0)
    truth, found = truth.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(truth)
    same = (truth == found) | (np.isnan(truth) & np.isnan(found))
    wrong = ~np.isfinite(found) & ~same | ~finite & ~same
    if wrong.any():
        index = _place(wrong.argmax(), truth)
        return _infinite(index, float(truth[index]), float(found[index]))
    if not finite.any():
        return Errors(0.0, 0.0, (0.0,) * len(QUANTILES), (), 0.0, 0.0)
    with np.errstate(invalid="ignore"):
        error = np.where(finite, np.abs(found - truth), 0.0) / scale
    index = _place(error.argmax(), truth)
    error_of_finite = error[finite]
    return Errors(
        float(error[index]),
        float(np.sqrt(np.mean(error_of_finite**2))),
        tuple(float(value) for value in np.quantile(error_of_finite, QUANTILES)),
        index,
        float(truth[index]),
        float(found[index]),
    )


def _infinite(index: tuple[int, ...], expected: float, found: float) -> Errors:
    worst = float("inf")
    return Errors(worst, worst, (worst,) * len(QUANTILES), index, expected, found)


def _place(flat: np.intp, array: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, array.shape))


def root_mean_square(truth: np.ndarray) -> float:
    """Return it over the finite values; 0 if there are none."""
    finite = truth[np.isfinite(truth)].astype(np.float64)
    return float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0


def decibels(truth: np.ndarray, scale: float, rms: float) -> float:
    """Return the power of the truth to that of an error, 20 log10 of their root mean squares.

    Args:
        truth: Any shape.
        scale: What the error is relative to, in the units of `truth`.
        rms: Root mean square error.
    """
    with np.errstate(divide="ignore"):
        signal = np.float64(root_mean_square(truth)) / scale
        return float(20 * np.log10(signal / rms)) if rms else np.inf


def signal_to_noise(truth: np.ndarray, found: np.ndarray) -> float:
    """Return the `decibels` of an array."""
    scale = scale_of(truth)
    return decibels(truth, scale, errors_of(truth, found, scale).rms)


def channel_errors(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the largest error of each channel, relative to the channel's own scale.

    Args:
        truth: Shape (..., C).
        found: The same shape; compared where the truth is finite.

    Returns:
        Shape (C,); for a channel that is 0 throughout, the error itself.
    """
    truth, found = (array.reshape(-1, truth.shape[-1]) for array in (truth, found))
    finite = np.isfinite(truth)
    true, other = (np.where(finite, array, 0.0).astype(np.float64) for array in (truth, found))
    scale = np.abs(true).max(0)
    with np.errstate(over="ignore"):
        return np.asarray(np.abs(other - true).max(0) / np.where(scale > 0, scale, 1.0))


def argmax_agreement(truth: np.ndarray, found: np.ndarray, tolerance: float) -> float | None:
    """Return the share of the samples that are classified as in the truth.

    Args:
        truth: Shape (N, classes).
        found: The same shape.
        tolerance: What two values may differ by, in the units of `truth`, to count as equal.

    Returns:
        From 0 to 1; None if the output is not of that shape.
    """
    return _agreement(truth, found, tolerance, 1)


def top5_agreement(truth: np.ndarray, found: np.ndarray, tolerance: float) -> float | None:
    """Return the share of the samples with the same five largest classes, as `argmax_agreement`."""
    return _agreement(truth, found, tolerance, TOP)


def _agreement(truth: np.ndarray, found: np.ndarray, tolerance: float, count: int) -> float | None:
    if truth.ndim != 2 or truth.shape[1] <= count or truth.shape != found.shape:
        return None
    if not (np.isfinite(truth).all() and np.isfinite(found).all()):
        return None
    truth, found = truth.astype(np.float64), found.astype(np.float64)  # of any dtype
    chosen = np.argpartition(-found, count - 1, axis=1)[:, :count]
    least = np.partition(truth, -count, axis=1)[:, -count]  # of those that are rightly chosen
    good = np.take_along_axis(truth, chosen, 1) >= least[:, None] - tolerance
    return float(good.all(1).mean())


def is_rescaled(truth: np.ndarray, array: np.ndarray, may_leave: float = RESCALED) -> bool:
    """Say whether a factor and an offset per channel, the last axis, explain most of the error.

    Args:
        truth: Shape (..., C).
        array: The same shape.
        may_leave: How much of the root mean square error they may leave.
    """
    x, y = (a.reshape(-1, a.shape[-1]).astype(np.float64) for a in (truth, array))
    if len(x) < 4:
        return False
    dx, dy = x - x.mean(0), y - y.mean(0)
    power = (dx**2).sum(0)
    factor = np.where(power > 0, (dx * dy).sum(0) / np.where(power > 0, power, 1.0), 1.0)
    left = np.sqrt(np.mean((dy - factor * dx) ** 2))
    return bool(left <= may_leave * np.sqrt(np.mean((y - x) ** 2)))
