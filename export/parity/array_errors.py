"""How far one array is from the truth, as plain data; `measure.py` finds it."""

import dataclasses

__all__ = ["QUANTILES", "Errors"]

QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclasses.dataclass(frozen=True)
class Errors:
    """How far values are from the truth, relative to the truth's scale.

    Attributes:
        max: Largest error; infinite where only one of the two is NaN, or infinite.
        rms: Root mean square error.
        quantiles: Of the magnitudes of the errors, at `QUANTILES`.
        index: Where the largest error is, batch first.
        expected: The true value there, in the output's units.
        found: The value there.
    """

    max: float
    rms: float
    quantiles: tuple[float, ...]
    index: tuple[int, ...]
    expected: float
    found: float
