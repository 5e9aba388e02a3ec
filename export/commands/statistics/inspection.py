"""Model file + data file -> what inference makes of them, as one report.

Two measurements: `train_inference_gap`, which ends in a diagnosis, and `measure_covariate_shift`.
Beside them stand what a reader needs to trust and repeat them: the files, the command, the
versions, and what was left out and why.
"""

import dataclasses
import datetime
from typing import Any

from keras_bn.reporting import jsonable
from keras_bn.statistics.gap import GapReport, train_inference_gap
from keras_bn.statistics.shift import CovariateShiftReport, measure_covariate_shift

from ...files.provenance import SourceFile, versions
from .trial import Subject, refusing_data, run_once, why_no_loss

__all__ = ["Inspection", "inspection_of"]


@dataclasses.dataclass(frozen=True)
class Inspection:
    """Both reports on a model, with their origin; prints with the verdict first.

    Attributes:
        model: The model file.
        data: The data file.
        gap: Batch statistics against stored statistics, with the diagnoses.
        shift: Inputs of the layers against stored statistics.
        batch_size: Samples a batch.
        inputs: Names of the arrays that the model took.
        targets: Names of those that its loss compared with.
        notes: What a reader should know besides, such as why there is no loss.
        command: The command that made this report.
        versions: Versions of what it was made with, by name.
        created: Date and time in UTC.
    """

    model: SourceFile
    data: SourceFile
    gap: GapReport
    shift: CovariateShiftReport
    batch_size: int
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    notes: tuple[str, ...]
    command: str
    versions: dict[str, str]
    created: str

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        count = len(self.gap.diagnoses)
        if count:
            return f"{count} {'cause' if count == 1 else 'causes'} for concern"
        return "no cause for concern" if self.gap.layers else "nothing to compare"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data; a number that is not finite is None."""
        ready: dict[str, Any] = jsonable({"verdict": self.verdict, **vars(self)})
        return ready

    def __str__(self) -> str:
        gap = self.gap
        lines = [
            f"{self.model.name} on {self.data.name}: {self.verdict}",
            f"{gap.samples} samples in {gap.batches} batches of {self.batch_size}, "
            f"{gap.skipped_batches} batches skipped",
            str(self.gap),
            "",
            "Inputs of the layers against the stored statistics",
            str(self.shift),
        ]
        if self.notes:
            lines += ["", "Notes", *(f"  {note}" for note in self.notes)]
        return "\n".join(lines)


def inspection_of(subject: Subject, command: str) -> Inspection:
    """Measure a model on data, and say what may be wrong with it.

    Args:
        subject: The model and its data.
        command: The command that asks for it, for the report.

    Returns:
        Both reports.

    Raises:
        ExportError: If the model cannot run on the data.
    """
    model, data, no_loss = subject.model, subject.data, why_no_loss(subject)
    how: dict[str, Any] = {"batch_size": subject.batch_size, "verbose": 0}
    with refusing_data():
        run_once(subject, with_loss=no_loss is None)
        gap = train_inference_gap(model, (data.x,) if no_loss else (data.x, data.y), **how)
        shift = measure_covariate_shift(model, (data.x,), **how)
    return Inspection(
        *subject.sources,
        gap,
        shift,
        batch_size=subject.batch_size,
        inputs=data.inputs,
        targets=() if no_loss else data.targets,
        notes=_notes(subject, no_loss),
        command=command,
        versions=versions(),
        created=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    )


def _notes(subject: Subject, no_loss: str | None) -> tuple[str, ...]:
    notes, missing, unused = [], subject.missing, subject.data.unused
    if no_loss:
        notes.append(f"The loss is not compared: {no_loss}.")
    if missing and missing != no_loss:
        notes.append(f"The number of training steps is not known: {missing}.")
    elif not missing and not int(subject.model.optimizer.iterations):
        notes.append("The optimizer has made no step, so the number of training steps is unknown.")
    if unused:
        notes.append(f"Arrays of the data file that were not used: {', '.join(unused)}.")
    return tuple(notes)
