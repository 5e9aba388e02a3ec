"""Numbers -> what the pages show of them: places on a logarithmic axis, and figures in words.

The axes are logarithmic because what is compared spans decades, a rounding error and a fault, or a
layer that was never updated and the next one, and both should be seen.
"""

import math
from collections.abc import Iterable

__all__ = ["LogAxis", "error_figure", "figure", "percent", "positive"]

MOST_LABELS = 6  # of an axis
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class LogAxis:
    """A logarithmic axis of whole decades.

    Args:
        low: A value in the first decade, above 0.
        high: A value in the last one, above 0.
    """

    def __init__(self, low: float, high: float) -> None:
        self.first = math.floor(math.log10(low))
        self.last = max(math.ceil(math.log10(high)), self.first + 1)

    def position(self, value: float) -> float | None:
        """Return where a value is, in percent, at an end if beyond it; None if it is not finite."""
        if not math.isfinite(value):
            return None
        decades = math.log10(value) if value > 0 else self.first
        share = (decades - self.first) / (self.last - self.first)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    @property
    def ticks(self) -> list[tuple[str, float | None]]:
        """The decades, labelled, with their positions."""
        step = -(-(self.last - self.first + 1) // MOST_LABELS)
        return [
            (_decade(i) if (i - self.first) % step == 0 else "", self.position(10.0**i))
            for i in range(self.first, self.last + 1)
        ]


def positive(values: Iterable[float]) -> list[float]:
    """Return the values that have a place on a logarithmic axis."""
    return [value for value in values if math.isfinite(value) and value > 0]


def figure(value: float | None) -> str:
    """Return a number with some four digits, as people write it.

    Example:
        >>> [figure(v) for v in (0.00002, 0.0004, 0.52, 48.331, 3832.8, 4.2e9, float("inf"))]
        ['<0.0001', '0.0004', '0.520', '48.33', '3,833', '4.2·10⁹', '∞']
    """
    if value is None or not math.isfinite(value):
        return "" if value is None else _not_finite(value)
    size = abs(value)
    if size >= 1e7:
        return _scientific(value)
    if size >= 10:
        return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"
    if size >= 1e-3 or value == 0:
        return f"{value:.3f}"
    return f"{value:.4f}" if size >= 1e-4 else "<0.0001"


def error_figure(value: float) -> str:
    """Return an error with two digits, however small.

    Example:
        >>> [error_figure(v) for v in (0.0, 3.21e-7, 9.99e-5, 0.052, 1.25, 3e8, float("nan"))]
        ['0', '3.2·10⁻⁷', '1.0·10⁻⁴', '0.052', '1.2', '3.0·10⁸', 'NaN']
    """
    if not math.isfinite(value):
        return _not_finite(value)
    if value == 0 or 0.01 <= abs(value) < 100:
        return f"{value:.2g}"
    return _scientific(value)


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{figure(100 * share)} %"


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}·{_power(int(exponent))}"


def _decade(exponent: int) -> str:
    return f"{10.0**exponent:g}" if -2 <= exponent <= 2 else _power(exponent)


def _power(exponent: int) -> str:
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"
