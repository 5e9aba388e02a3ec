"""Model file + data file -> the same model with new batch-norm statistics, and what moved."""

import dataclasses
from pathlib import Path
from typing import Any

from keras_bn.reporting import jsonable
from keras_bn.statistics.population import (
    StatisticsReport,
    adapt_statistics,
    estimate_population_statistics,
)

from ...errors import ExportError
from ...files.keras_file import write_keras_model
from ...files.provenance import SourceFile, versions
from .trial import Subject, refusing_data, run_once

__all__ = ["Recalibration", "recalibrate_subject"]


@dataclasses.dataclass(frozen=True)
class Recalibration:
    """What new statistics changed, with its origin.

    Attributes:
        model: The model file that was read.
        data: The data file.
        out: The model file that was written.
        bytes: Its size.
        report: How far each layer moved.
        batch_size: Samples a batch.
        inputs: Names of the arrays that the model took.
        notes: What a reader should know besides, such as a loss that could not be kept.
        command: The command that made it.
        versions: Versions of what it was made with, by name.
    """

    model: SourceFile
    data: SourceFile
    out: str
    bytes: int
    report: StatisticsReport
    batch_size: int
    inputs: tuple[str, ...]
    notes: tuple[str, ...]
    command: str
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data; a number that is not finite is None."""
        ready: dict[str, Any] = jsonable(vars(self))
        return ready

    def __str__(self) -> str:
        lines = [str(self.report), *self.notes, f"{self.out}: {self.bytes:,} bytes"]
        return "\n".join(lines)


def recalibrate_subject(
    subject: Subject,
    out: Path,
    temporary: Path,
    *,
    strength: float | None,
    command: str,
    **options: Any,
) -> Recalibration:
    """Write a model file with new statistics.

    Args:
        subject: The model and its data.
        out: The `.keras` file that the result will be, for the report.
        temporary: Where to write it for now.
        strength: None to estimate the statistics anew, else that of `adapt_statistics`.
        command: The command that asks for it, for the report.
        options: What both functions take.

    Returns:
        How far the statistics moved.

    Raises:
        ExportError: If the model, the data or an option cannot be used, or no layer was changed.
    """
    model, x = subject.model, (subject.data.x,)
    options |= {"batch_size": subject.batch_size, "verbose": 0}
    with refusing_data():
        run_once(subject, with_loss=False)
        if strength is None:
            report = estimate_population_statistics(model, x, **options)
        else:
            report = adapt_statistics(model, x, strength=strength, **options)
    if not report.layers:
        reasons = "; ".join(f"{path}: {why}" for path, why in report.unchanged.items())
        raise ExportError(
            f"a layer must have new statistics for the file to be written. Received: {reasons}. "
            "--include-frozen takes frozen layers, too."
        )
    written = write_keras_model(model, temporary)
    missing = subject.missing
    notes = () if model.compiled and missing is None else (f"The new file: {missing}.",)
    return Recalibration(
        *subject.sources,
        str(out),
        written,
        report,
        batch_size=subject.batch_size,
        inputs=subject.data.inputs,
        notes=notes,
        command=command,
        versions=versions(),
    )
