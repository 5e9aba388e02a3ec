"""A parity check with its origin as one HTML page that needs nothing else.

The template, `templates/parity.html.j2`, decides how it looks; here the errors become positions on
logarithmic axes, in percent. Errors of a layer that are not finite stand at the upper end, those
that are 0 at the lower one, and so do limits that are not finite, since they allow nothing.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...files.provenance import SourceFile
from ...parity.array_errors import QUANTILES
from ...parity.report import LayerParity, OutputParity, ParityReport
from ...runtime.latency import Latency
from ...stages.folding.report import FoldReport
from .figures import LogAxis, positive
from .rendering import render

__all__ = ["ParityDocument", "render_parity_page"]

LOWEST = 1e-12  # where an axis of errors may begin
MOST_NAMES = 24  # layers that have their names below the picture; more have numbers
MOST_NUMBERS = 8  # of them
NUMBER_STEPS = (5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)
SCALE_WIDTH, COLUMN_WIDTH = 3, 8  # of a picture of few layers, in rem
MOST_FAILURES = 5  # that the verdict names

STAGES = {
    "tracing": "the Keras model as a graph, nothing else done to it",
    "layout": "with the channels where ONNX wants them",
    "folding": "with batch norms folded into weights",
    "precision": "in the precision of the file",
    "file": "the file that was checked",
    "optimiser": "that file with ONNX Runtime's optimisations",
}


@dataclasses.dataclass(frozen=True)
class ParityDocument:
    """A parity report and all that is needed to read it and to redo it.

    Attributes:
        report: The verdict.
        model: The Keras model's file.
        file: The ONNX file; None if it was not written, because it differs.
        fold: What was folded; None if nobody knows.
        latency: How long a run takes; None if nobody measured.
        command: The command that made this document.
        created: Date and time in UTC.
    """

    report: ParityReport
    model: SourceFile
    file: SourceFile | None
    fold: FoldReport | None
    latency: Latency | None
    command: str
    created: str

    @property
    def verdict(self) -> str:
        """The result in a word."""
        return "agrees" if self.report.passed else "differs"

    @property
    def file_name(self) -> str:
        """Last part of the ONNX file's path, also where it was not written."""
        return Path(self.report.path).name


def render_parity_page(document: ParityDocument) -> str:
    """Return a parity check as an HTML page.

    Args:
        document: What was measured, and on which files.

    Returns:
        The whole page, in UTF-8 as it declares.
    """
    report = document.report
    names = [row.name for row in report.outputs]
    rows = sorted(report.outputs, key=lambda row: names.index(row.name))
    failed = [row for row in rows if not row.passed]
    return render(
        "parity.html.j2",
        document=document,
        report=report,
        rows=rows,
        nearest=max(rows, key=_nearness),
        failed=failed[:MOST_FAILURES],
        more_failed=len(failed[MOST_FAILURES:]),
        fallbacks=_fallbacks(report),
        providers=list(dict.fromkeys(row.provider for row in rows)),
        output_axis=_error_axis(_errors_of_outputs(rows)),
        agreements=_agreements(rows),
        quantiles=QUANTILES,
        stage_meaning=STAGES,
        growth=_growth(report.layers) if report.layers else None,
        timings=_timings(document.latency),
    )


def _nearness(row: OutputParity) -> tuple[bool, float]:
    """Order by how far a row has gone towards its tolerance, and beyond."""
    share = row.worst.max / row.tolerance if row.tolerance > 0 else math.inf
    return not row.passed, math.inf if math.isnan(share) else share


def _fallbacks(report: ParityReport) -> list[tuple[str, str]]:
    """Return the kinds of inputs whose truth is not in float64, and why."""
    rows = ((row.case, row.reference) for row in report.outputs if row.reference != "float64")
    return list(dict.fromkeys(rows))


def _agreements(rows: Sequence[OutputParity]) -> list[tuple[str, list[float | None]]]:
    """Return the columns that say how many samples are classified alike, where any says so."""
    columns = [
        ("same class", [row.argmax_agreement for row in rows]),
        ("same top 5", [row.top5_agreement for row in rows]),
    ]
    return [column for column in columns if any(share is not None for share in column[1])]


def _errors_of_outputs(rows: Sequence[OutputParity]) -> list[float]:
    return [
        error
        for row in rows
        for error in (row.keras.max, row.onnx.max, row.optimised.max, row.tolerance)
    ]


def _error_axis(errors: Sequence[float]) -> LogAxis:
    seen = [max(error, LOWEST) for error in positive(errors)] or [LOWEST]
    return LogAxis(min(seen), max(seen))


def _growth(layers: Sequence[LayerParity]) -> dict[str, Any]:
    """Return the picture of the errors by layer: columns from left to right, lines through them."""
    axis = _error_axis([e for layer in layers for e in (layer.keras, layer.onnx, layer.tolerance)])
    names = len(layers) <= MOST_NAMES
    step = 1 if names else _number_step(len(layers))
    differing = [i for i, layer in enumerate(layers) if layer.status == "differs"]
    width = 100 / len(layers)
    return {
        "axis": axis,
        "width": round(width, 4),
        "columns": [
            {
                "layer": layer,
                "left": round(i * width, 4),
                "place": _height(axis, layer.onnx),
                "label": layer.layer if names else str(i + 1) if (i + 1) % step == 0 else "",
                "is_first": i == min(differing, default=None),
            }
            for i, layer in enumerate(layers)
        ],
        "named": names,
        "most_width": SCALE_WIDTH + max(len(layers), 3) * COLUMN_WIDTH,
        "differing": len(differing),
        "first": differing[0] if differing else None,
        "states": {layer.status for layer in layers},
        "onnx": _line(
            [
                ((i + 0.5) * width, _height(axis, layer.onnx))
                for i, layer in enumerate(layers)
                if layer.status != "rescaled"
            ]
        ),
        "keras": _steps([_height(axis, layer.keras) for layer in layers]),
        "tolerance": _steps([axis.position(layer.tolerance) or 0.0 for layer in layers]),
    }


def _number_step(count: int) -> int:
    fitting = (step for step in NUMBER_STEPS if count / step <= MOST_NUMBERS)
    return next(fitting, -(-count // MOST_NUMBERS))


def _height(axis: LogAxis, error: float) -> float:
    place = axis.position(error)
    return 100.0 if place is None else place


def _line(points: Sequence[tuple[float, float]]) -> str:
    """Return the points of an SVG polyline in a box of 100 by 100, whose y goes down."""
    return " ".join(f"{x:.2f},{100 - y:.2f}" for x, y in points)


def _steps(heights: Sequence[float]) -> str:
    """Return a line that is level over each column."""
    width = 100 / len(heights)
    return _line(
        [point for i, y in enumerate(heights) for point in ((i * width, y), ((i + 1) * width, y))]
    )


def _timings(latency: Latency | None) -> list[dict[str, Any]]:
    """Return the contestants on an axis from 0, with their ratios to the first."""
    if latency is None or not latency.timings:
        return []
    first = latency.timings[0].median
    longest = max(max(timing.median, timing.high) for timing in latency.timings)
    per_cent = 100 / longest if longest > 0 else 0.0
    return [
        {
            "timing": timing,
            "ratio": timing.median / first if first > 0 else math.nan,
            "median": round(timing.median * per_cent, 2),
            "low": round(timing.low * per_cent, 2),
            "spread": round((timing.high - timing.low) * per_cent, 2),
        }
        for timing in latency.timings
    ]
