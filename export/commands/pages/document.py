"""A parity check with its origin: the report, the files, what was folded, and how long a run takes.

It is what a page of the check holds; nothing here computes.
"""

import dataclasses
from pathlib import Path

from ...files.provenance import SourceFile
from ...parity.report import ParityReport
from ...runtime.latency import Latency
from ...stages.folding.report import FoldReport

__all__ = ["ParityDocument"]


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
