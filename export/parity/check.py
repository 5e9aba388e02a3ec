"""Keras model + ONNX file -> whether the file computes what the model does, and if not, where.

Keras runs in its own precision and in float64 (`reference/`, `expected.py`), on given or drawn
inputs (`samples/samples.py`, `samples/distributions.py`); ONNX Runtime runs the file with its
optimisations off, so that its own folding does not hide ours, and at their default
(`runtime/session.py`). `rule.py` judges.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx

from ..defaults import CPU
from ..errors import ExportError
from ..files.paths import require_file
from ..files.provenance import versions
from ..foreign.opening import open_model
from ..runtime.providers import require_providers
from ..runtime.session import by_position
from ..stages.converted import StageFiles
from ..stages.precision.report import require_precision
from .expected import Expected, expected_of, judge
from .explaining.explain import explain as explain_difference
from .explaining.explain import worst_samples
from .explaining.in_bits import layers_in_decibels
from .file_runs import FileRuns, run_file
from .quantised import UNCALIBRATED, notes_of_bits, quantised_operators, with_parts
from .report import OutputParity, ParityReport
from .samples.kinds import Drawn, by_kind
from .samples.samples import Sampling
from .surface import Surface

__all__ = ["check_samples"]


def check_samples(
    sampling: Sampling,
    onnx_path: str | os.PathLike[str],
    stages: StageFiles,
    *,
    providers: Sequence[str] = (CPU,),
    explain: bool | None = True,
    surface: Surface | None = None,
) -> ParityReport:
    """Do what `check_parity` does, with samples and stages that others look at, too.

    Args:
        sampling: What to compare the model on.
        onnx_path: As for `check_parity`.
        stages: The stages of the model's export; filled where they are needed and not there.
        providers: As for `check_parity`.
        explain: As for `check_parity`.
        surface: What the file says of itself, if it is open already.
    """
    model, precision = sampling.model, sampling.precision
    require_precision("check", precision)
    require_providers(providers)
    _require_options(
        onnx_path=onnx_path, inputs=sampling.inputs, ranges=sampling.ranges, explain=explain
    )
    path = Path(onnx_path)
    require_file(path, "MODEL.onnx")
    surface = surface or Surface.of(open_model(path, where="check"))

    # A model that is in 8 bits itself is a truth that the file has to meet.
    itself = any(getattr(part, "quantization_mode", None) for part in model._flatten_layers())
    bits = "" if itself else quantised_operators(onnx.load(path, load_external_data=False))

    def expect(found: Drawn) -> tuple[Expected, list[FileRuns], Drawn]:
        batches = [batch for batch in found[0] if not bits or batch.case not in UNCALIBRATED]
        kinds = by_kind(batches, precision)
        names = [spec.name for spec in sampling.signature.specs]
        # ONNX Runtime, in its one thread, beside Keras, which leaves a core idle for half the time.
        with ThreadPoolExecutor(1) as beside:
            running = [beside.submit(run_file, path, names, kinds, name) for name in providers]
            expected = expected_of(model, sampling.signature, kinds, precision)
            runs = [run.result() for run in running]
        return expected, runs, (batches, *found[1:])

    expected, runs, (batches, drawn, notes) = sampling.hand_to(expect)
    outputs = [
        row
        for name, ran in zip(providers, runs, strict=True)
        for row in judge(path, expected, name, quantised=bool(bits), runs=ran)
    ]
    notes = [*notes, *surface.notes(expected, precision)]
    if bits:
        there = by_position(expected.inputs, surface.inputs)
        notes += notes_of_bits(bits, outputs, onnx.load(path), there, expected.cases[0].batches[-1])
    report = ParityReport(
        str(model.name),
        str(path),
        int(sampling.seed) if sampling.inputs is None else None,
        sum(len(batch.arrays[0]) if batch.arrays[0].ndim else 1 for batch in batches),
        drawn,
        tuple(outputs),
        notes=(*notes, *expected.notes),
        versions=versions(),
    )
    if explain is False or (explain is None and report.passed):
        return report
    if bits:
        wrong = [row for row in outputs if not row.passed]
        batch = worst_samples(expected, wrong, sampling.signature)
        parts = layers_in_decibels(sampling.model, sampling.signature, path, batch)
        return with_parts(report, parts, "layer")
    doubtful = [row for row in outputs if row.provider == _doubtful(outputs)]
    found = explain_difference(sampling, path, expected, doubtful, stages)
    return dataclasses.replace(
        report,
        stages=found.stages,
        layers=found.layers,
        fault=found.fault,
        notes=(*report.notes, *found.notes),
    )


def _require_options(*, onnx_path: Any, inputs: Any, ranges: Any, explain: Any) -> None:
    """Raise `ExportError` unless these options of `check_parity` are of the right kind."""
    for name, value, rule, holds in (
        ("onnx_path", onnx_path, "be a path", isinstance(onnx_path, str | os.PathLike)),
        (
            "ranges",
            ranges,
            "be a dict of two numbers by input name",
            ranges is None or isinstance(ranges, Mapping),
        ),
        (
            "explain",
            explain,
            "be True, False or None",
            explain is None or isinstance(explain, bool),
        ),
    ):
        if not holds:
            raise ExportError(f"check: `{name}` must {rule}. Received: {name}={value!r}.")
    if inputs is not None and ranges:
        raise ExportError(
            "check: `ranges` must be left out where samples are given. "
            f"Received: ranges={dict(ranges)!r} and `inputs`."
        )


def _doubtful(outputs: Sequence[OutputParity]) -> str:
    """Return the first execution provider on which an output differs; the first one if none."""
    return next((row.provider for row in outputs if not row.passed), outputs[0].provider)
