"""A parity check with its origin: the report, the files, what was folded, and how long a run takes.

It is what a page or a JSON file of the check holds; nothing here computes.
"""

import dataclasses
from typing import Any

from keras_bn.reporting import jsonable

from ..folding.report import FoldReport
from ..inspection import SourceFile
from ..latency import Latency
from .report import ParityReport

__all__ = ["ParityDocument"]


@dataclasses.dataclass(frozen=True)
class ParityDocument:
    """A parity report and all that is needed to read it and to redo it.

    Attributes:
        report: The verdict.
        model: The Keras model's file.
        file: The ONNX file.
        fold: What was folded; None if nobody knows.
        latency: How long a run takes; None if nobody measured.
        command: The command that made this document.
        created: Date and time in UTC.
    """

    report: ParityReport
    model: SourceFile
    file: SourceFile
    fold: FoldReport | None
    latency: Latency | None
    command: str
    created: str

    @property
    def verdict(self) -> str:
        """The result in a word."""
        return "agrees" if self.report.passed else "differs"

    def to_dict(self) -> dict[str, Any]:
        """Return the document as JSON-compatible data; a number that is not finite is None."""
        fields = {
            "verdict": self.verdict,
            "report": self.report.to_dict(),
            "model": dataclasses.asdict(self.model),
            "file": dataclasses.asdict(self.file),
            "fold": self.fold.to_dict() if self.fold is not None else None,
            "latency": dataclasses.asdict(self.latency) if self.latency is not None else None,
            "command": self.command,
            "created": self.created,
        }
        ready: dict[str, Any] = jsonable(fields)
        return ready
