"""An `Inspection` as one HTML page that needs nothing else.

The template, `templates/inspection.html.j2`, decides how it looks; here the figures become
positions on the axes, in percent, and words.
"""

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from keras_bn.statistics.diagnosis import NOTABLE_GAP, NOTABLE_NOISE, Cause

from ..statistics.inspection import Inspection
from .figures import LogAxis, positive
from .rendering import render

__all__ = ["render_page"]

LONGEST_RANKING = 15  # layers in the picture of the shift; the table has them all

MEANING = {
    Cause.NOT_FINITE: "In inference these layers give NaN, whatever their input; so does all that "
    "comes after them.",
    Cause.OUTPUT_NOT_FINITE: "The batch norms are in order; something behind them is not.",
    Cause.NEVER_UPDATED: "In inference these layers normalise by the statistics that they "
    "were made with, mean 0 and variance 1 by default: training did not reach them.",
    Cause.TRAINING_ONLY: "The statistics were taken with dropout, noise or augmentation on. In "
    "inference that is off, and the variance another.",
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
    return render(
        "inspection.html.j2",
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


def _gap_axis(inspection: Inspection) -> LogAxis:
    return LogAxis(0.01, max([1.0, *positive(layer.gap for layer in inspection.gap.layers)]))


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


def _shift_axis(inspection: Inspection) -> LogAxis:
    layers = inspection.shift.layers
    seen = positive(
        figure for layer in layers for figure in (layer.mean_divergence, layer.sampling_divergence)
    )
    return LogAxis(min(max(min(seen, default=0.01), 1e-6), 0.01), max([1.0, *seen]))


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
