"""An `Inspection` as one HTML page that needs nothing else: no network, no scripts, no other file.

The template, `templates/inspection.html.j2`, decides how it looks; here the figures become
positions on the axes, in percent, and words. The axes are logarithmic: a layer that was never
updated can be off a thousand times as far as the next one, and both should be seen.

Every text is escaped, because a stranger may have named the layers.
"""

import importlib.resources
import math
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from keras_bn.diagnosis import NOTABLE_GAP, NOTABLE_NOISE, Cause

from .inspection import Inspection

__all__ = ["render_page"]

TEMPLATE = "templates/inspection.html.j2"
LONGEST_RANKING = 15  # layers in the picture of the shift; the table has them all
MOST_LABELS = 6  # of an axis
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

MEANING = {
    Cause.NOT_FINITE: "In inference these layers give NaN, whatever their input; so does all that "
    "comes after them.",
    Cause.OUTPUT_NOT_FINITE: "The batch norms are in order; something behind them is not.",
    Cause.NEVER_UPDATED: "In inference these layers normalise by the statistics that they "
    "were made with, mean 0 and variance 1 by default: training did not reach them.",
    Cause.MOMENTUM_TOO_HIGH: "The stored statistics follow the batches slowly, and training ended "
    "before they had arrived. The weights may be good; the statistics are not.",
    Cause.BATCHES_TOO_SMALL: "Each batch has a mean and a variance of its own, so the layers add "
    "noise in training that inference does not have.",
    Cause.DATA_DIFFER: "The stored statistics have settled, but on other inputs than these: other "
    "preprocessing, another domain, or an accident in training.",
    Cause.OUTLIER_BATCH: "One odd batch is enough to spoil running statistics, and it distorts "
    "every other sample in its batch.",
}


def render_page(inspection: Inspection) -> str:
    """Return an inspection as an HTML page.

    Args:
        inspection: What was measured.

    Returns:
        The whole page, in UTF-8 as it declares.
    """
    source = importlib.resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": _figure, "percent": _percent}
    return environment.from_string(source).render(
        inspection=inspection,
        gap=inspection.gap,
        shift=inspection.shift,
        causes=_causes(inspection),
        gap_axis=_gap_axis(inspection),
        gap_rows=_gap_rows(inspection),
        shift_axis=_shift_axis(inspection),
        shift_rows=_shift_rows(inspection),
        rows=_table_rows(inspection),
        left_out=_left_out(inspection),
        notable_gap=NOTABLE_GAP,
        notable_noise=NOTABLE_NOISE,
    )


class _Axis:
    """A logarithmic axis of whole decades."""

    def __init__(self, low: float, high: float) -> None:
        self.first = math.floor(math.log10(low))
        self.last = max(math.ceil(math.log10(high)), self.first + 1)

    def position(self, value: float) -> float | None:
        """Return where a value is, in percent; at the axis's beginning if below it."""
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
            (_power(i) if (i - self.first) % step == 0 else "", self.position(10.0**i))
            for i in range(self.first, self.last + 1)
        ]


def _power(exponent: int) -> str:
    if -2 <= exponent <= 2:
        return f"{10.0**exponent:g}"
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"


def _figure(value: float | None) -> str:
    """Return a number with some four digits, as people write it.

    Example:
        >>> [_figure(v) for v in (0.00002, 0.0004, 0.52, 48.331, 3832.8, 4.2e9, float("inf"))]
        ['<0.0001', '0.0004', '0.520', '48.33', '3,833', '4.2·10⁹', '∞']
    """
    if value is None or math.isnan(value):
        return "" if value is None else "NaN"
    size = abs(value)
    if math.isinf(size):
        return "∞"
    if size >= 1e7:
        exponent = math.floor(math.log10(size))
        return f"{value / 10.0**exponent:.1f}·10{str(exponent).translate(SUPERSCRIPTS)}"
    if size >= 10:
        return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"
    if size >= 1e-3 or value == 0:
        return f"{value:.3f}"
    return f"{value:.4f}" if size >= 1e-4 else "<0.0001"


def _percent(value: float) -> str:
    return f"{_figure(100 * value)} %"


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value) and value > 0]


def _gap_axis(inspection: Inspection) -> _Axis:
    return _Axis(0.01, max([1.0, *_finite(layer.gap for layer in inspection.gap.layers)]))


def _gap_rows(inspection: Inspection) -> list[dict[str, Any]]:
    axis = _gap_axis(inspection)
    blamed = {
        layer: "noisy" if diagnosis.cause == Cause.BATCHES_TOO_SMALL else "wrong"
        for diagnosis in sorted(
            inspection.gap.diagnoses, key=lambda d: d.cause != Cause.BATCHES_TOO_SMALL
        )
        for layer in diagnosis.layers
    }
    return [
        {
            "layer": layer.layer,
            "state": blamed.get(layer.layer, "fine"),
            "value": layer.gap,
            "gap": axis.position(layer.gap),
            "stored": axis.position(layer.stored_gap),
            "noise": axis.position(layer.batch_noise),
        }
        for layer in inspection.gap.layers
    ]


def _shift_axis(inspection: Inspection) -> _Axis:
    layers = inspection.shift.layers
    seen = _finite(
        figure for layer in layers for figure in (layer.mean_divergence, layer.sampling_divergence)
    )
    return _Axis(min(max(min(seen, default=0.01), 1e-6), 0.01), max([1.0, *seen]))


def _shift_rows(inspection: Inspection) -> list[dict[str, Any]]:
    axis = _shift_axis(inspection)
    return [
        {
            "layer": layer.layer,
            "state": "shifted" if layer.is_shifted.any() else "fine",
            "value": layer.mean_divergence,
            "shift": axis.position(layer.mean_divergence),
            "chance": axis.position(layer.sampling_divergence),
            "channels": f"{np.count_nonzero(layer.is_shifted)} of {len(layer.is_shifted)}",
        }
        for layer in inspection.shift.ranking[:LONGEST_RANKING]
    ]


def _table_rows(inspection: Inspection) -> list[dict[str, Any]]:
    """Return what is known of each layer, in calling order."""
    gaps = {layer.layer: layer for layer in inspection.gap.layers}
    shifts = {layer.layer: layer for layer in inspection.shift.layers}
    return [
        {"layer": path, "gap": gaps.get(path), "shift": _channels(shifts.get(path))}
        for path in dict.fromkeys([*shifts, *gaps])
    ]


def _channels(layer: Any) -> dict[str, Any] | None:
    if layer is None:
        return None
    return {
        "divergence": layer.mean_divergence,
        "chance": layer.sampling_divergence,
        "mean": float(np.abs(layer.mean_difference).max()),
        "variance": float(np.abs(layer.log_variance_ratio).max()),
        "shifted": np.count_nonzero(layer.is_shifted),
        "channels": len(layer.is_shifted),
        "worst": int(np.argmax(layer.divergence)),
    }


def _left_out(inspection: Inspection) -> list[tuple[str, str, str]]:
    """Return path, which measurement, and why."""
    gap, shift = inspection.gap.unchanged, inspection.shift.unchanged
    rows = []
    for path in dict.fromkeys([*gap, *shift]):
        if gap.get(path) == shift.get(path):
            rows.append((path, "both", gap[path]))
            continue
        rows += [(path, "gap", gap[path])] if path in gap else []
        rows += [(path, "shift", shift[path])] if path in shift else []
    return rows


def _causes(inspection: Inspection) -> list[dict[str, Any]]:
    model = Path(inspection.model.path)
    renewed = model.with_name(f"{model.stem}-recalibrated.keras")
    renew = shlex.join(["keras-bn", "recalibrate", str(model), str(renewed), "--data"])
    from_training = f"{renew} TRAINING.npz --batch-size {inspection.batch_size}"
    from_data = f"{renew} {shlex.quote(inspection.data.path)} --strength 1"
    commands = {
        Cause.NOT_FINITE: ("Command", from_training),
        Cause.NEVER_UPDATED: ("Command", from_training),
        Cause.MOMENTUM_TOO_HIGH: ("Command", from_training),
        Cause.DATA_DIFFER: ("To adapt", from_data),
    }
    return [
        {
            "cause": diagnosis.cause,
            "meaning": MEANING.get(diagnosis.cause, ""),
            "evidence": diagnosis.evidence,
            "advice": diagnosis.advice,
            "command": commands.get(diagnosis.cause),
            "layers": diagnosis.layers,
        }
        for diagnosis in inspection.gap.diagnoses
    ]
