"""When ONNX Runtime agrees: the rule and all its constants.

The truth is the Keras model evaluated in float64. Keras in the model's own precision misses it by
some error e, which that precision alone explains. ONNX Runtime adds in another order, so it may
miss by a little more, but not by much more. With epsilon the spacing at 1 of the coarsest dtype
that is computed in, and errors relative to the output's largest magnitude,

    max error(ONNX Runtime)  <=  MULTIPLE * max e + FLOOR * epsilon
    rms error(ONNX Runtime)  <=  RMS_MULTIPLE * rms e + RMS_FLOOR * epsilon

If that does not hold, Keras may have been lucky: MULTIPLE * e is then what rounding alone does in
float64, at MULTIPLE times epsilon (`reference/rounded_runs.py`), where that is more. A network that
enlarges errors, or jumps from class to class because of them, is so allowed what it needs.

A file that computes in 8 bits is judged by the power of its error beside that of the truth alone:

    rms error(ONNX Runtime)  <=  10^(-SIGNAL_TO_NOISE / 20) * rms truth

The same holds for each channel by itself with wider constants, so that a small channel cannot hide
behind a large one. docs/parity.md has the measurements that the constants rest on.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from .array_errors import Errors
from .measure import (
    argmax_agreement,
    channel_errors,
    decibels,
    errors_of,
    root_mean_square,
    scale_of,
    top5_agreement,
)
from .report import OutputParity

__all__ = [
    "FLOAT64",
    "FLOOR",
    "MULTIPLE",
    "TRUTHS",
    "Standard",
    "bad_channel",
    "compare",
    "tolerances",
]

FLOAT64 = "float64"  # what a reference is called that is the truth
# And one that is the truth but where Keras runs over, in which it is to be followed.
TRUTHS = (
    FLOAT64,
    *(
        f"float64; {own} itself where that is not finite and float64 is"
        for own in ("Keras", "the first file")
    ),
)

MULTIPLE, FLOOR = 4.0, 16.0
RMS_MULTIPLE, RMS_FLOOR = 4.0, 4.0
CHANNEL_MULTIPLE, CHANNEL_FLOOR = 32.0, 256.0
CHANNEL_ABSOLUTE = 2.0  # of the whole output's scale: ONNX Runtime's Sigmoid has an absolute error
# Where the truth has to be Keras itself, whose own error is then unknown.
FALLBACK, RMS_FALLBACK = 128.0, 32.0
# A channel is judged by itself if this many of its values reach 1/16 of its largest: a channel that
# is active once says nothing about the size of Keras's error.
CHANNEL_VALUES = 4
SIGNAL_TO_NOISE = 20.0  # dB: what a file in 8 bits must have at least


def tolerances(keras: Errors, rounded: Sequence[Errors], epsilon: float) -> tuple[float, float]:
    """Return what the largest and the root mean square error of ONNX Runtime may be.

    Args:
        keras: Errors of Keras in the model's own precision.
        rounded: Errors that rounding makes, at `MULTIPLE` times epsilon.
        epsilon: Spacing at 1 of the coarsest dtype that is computed in.
    """
    largest = [MULTIPLE * keras.max, *(errors.max for errors in rounded)]
    rms = [RMS_MULTIPLE * keras.rms, *(errors.rms for errors in rounded)]
    return max(largest) + FLOOR * epsilon, max(rms) + RMS_FLOOR * epsilon


@dataclasses.dataclass(frozen=True)
class Standard:
    """What one output is judged by, on one kind of inputs.

    Attributes:
        truth: The truth, shape (N, ...).
        reference: One of `TRUTHS`, or why the truth had to be `own`.
        own: The model in its own precision.
        whose: Whose `own` is: "Keras", or "the first file" where two files are compared.
        epsilon: Spacing at 1 of the coarsest dtype that is computed in.
        rounded: Returns what rounding at `MULTIPLE` times epsilon makes of the output; called only
            if it differs.
    """

    truth: np.ndarray
    reference: str
    own: np.ndarray
    whose: str
    epsilon: float
    rounded: Callable[[], list[np.ndarray]]


def compare(
    name: str,
    case: str,
    provider: str,
    standard: Standard,
    found: Sequence[np.ndarray],
    *,
    quantised: bool = False,
) -> OutputParity:
    """Judge one output on one kind of inputs.

    Args:
        name: Name of the output.
        case: The kind of inputs.
        provider: ONNX Runtime's execution provider.
        standard: What it is judged by.
        found: What ONNX Runtime gives with its optimisations off, and at their default.
        quantised: Whether the file computes in 8 bits.
    """
    truth, epsilon = standard.truth, standard.epsilon
    plain, optimised = found
    scale = scale_of(truth)
    keras = errors_of(truth, standard.own, scale)
    off, on = errors_of(truth, plain, scale), errors_of(truth, optimised, scale)
    worst = plain if off.max >= on.max else optimised

    def judged(noise: list[np.ndarray]) -> OutputParity:
        if quantised:
            signal = root_mean_square(truth) / scale
            largest, rms = 1.0, max(signal * 10 ** (-SIGNAL_TO_NOISE / 20), RMS_FALLBACK * epsilon)
            channel = None
        elif standard.reference in TRUTHS:
            explained = [errors_of(truth, array, scale) for array in noise]
            largest, rms = tolerances(keras, explained, epsilon)
            channel = bad_channel(truth, standard.own, noise, found, epsilon)
        else:
            # Of two files, the first may not be the same at both of its levels.
            largest = max(FALLBACK * epsilon, MULTIPLE * keras.max)
            rms, channel = max(RMS_FALLBACK * epsilon, RMS_MULTIPLE * keras.rms), None
        alike = 0.0 if quantised else 2 * largest * scale
        return OutputParity(
            name,
            case,
            provider,
            standard.reference,
            len(truth),
            scale,
            keras,
            off,
            on,
            difference=errors_of(plain, optimised, scale).max,
            tolerance=largest,
            rms_tolerance=rms,
            argmax_agreement=argmax_agreement(truth, worst, alike),
            top5_agreement=top5_agreement(truth, worst, alike),
            bad_channel=channel if max(off.max, on.max) <= largest else None,
            own=standard.whose,
            signal_to_noise=decibels(truth, scale, max(off.rms, on.rms)) if quantised else None,
        )

    row = judged([])
    finite = np.isfinite(off.max) and np.isfinite(on.max)
    if row.passed or standard.reference not in TRUTHS or not finite or quantised:
        return row
    return judged(standard.rounded())


def bad_channel(
    truth: np.ndarray,
    own: np.ndarray,
    rounded: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    epsilon: float,
) -> int | None:
    """Return a channel, along the last axis, that is beyond its own tolerance; None if all hold.

    Args:
        truth: The truth, shape (N, ..., C).
        own: The same shape: Keras in the model's own precision.
        rounded: The same shape: what rounding at `MULTIPLE` times epsilon makes of it.
        found: The same shape: what is judged.
        epsilon: Spacing at 1 of the coarsest dtype that is computed in.
    """
    if truth.ndim < 2 or any(array.shape != truth.shape for array in found):
        return None
    magnitude = np.abs(np.where(np.isfinite(truth), truth, 0.0)).reshape(-1, truth.shape[-1])
    scale = magnitude.max(0, initial=0.0)
    judged = (scale > 0) & ((magnitude >= scale / 16).sum(0) >= CHANNEL_VALUES)
    if not judged.any():
        return None
    noise = [channel_errors(truth, array) / MULTIPLE for array in rounded]
    explained = np.max([channel_errors(truth, own), *noise], axis=0)
    with np.errstate(over="ignore"):  # a channel that holds next to nothing is allowed all
        absolute = CHANNEL_ABSOLUTE * scale.max() / np.where(scale > 0, scale, 1.0)
    allowed = CHANNEL_MULTIPLE * explained + (CHANNEL_FLOOR + absolute) * epsilon
    beyond = [channel_errors(truth, array) > allowed for array in found]
    bad = np.any(beyond, axis=0) & judged
    return int(bad.argmax()) if bad.any() else None
