"""What an export did, as plain data: dataclasses that print, and turn into JSON.

Nothing here computes; the stages fill these in.
"""

import dataclasses
from typing import Any

from .parity.report import OutputParity, ParityReport
from .stages.folding.reason import Reason
from .stages.folding.report import Fold, FoldReport, Refusal
from .stages.precision.report import PrecisionReport

__all__ = [
    "ExportReport",
    "Fold",
    "FoldReport",
    "OutputParity",
    "ParityReport",
    "Reason",
    "Refusal",
]


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export_onnx` did.

    Attributes:
        path: The file written.
        bytes: Its size.
        seconds: Seconds for each stage, in order.
        fold: What was folded and what was not.
        precision: Which precision the file computes in, and what stays in float32.
        parity: The proof; None if it was not asked for.
    """

    path: str
    bytes: int
    seconds: dict[str, float]
    fold: FoldReport
    precision: PrecisionReport
    parity: ParityReport | None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data."""
        parity = self.parity.to_dict() if self.parity else None
        return {**dataclasses.asdict(self), "parity": parity}

    def __str__(self) -> str:
        parity = str(self.parity) if self.parity else "parity not checked"
        lines = [f"{self.path}: {self.bytes:,} bytes", str(self.fold)]
        if self.precision.precision != "keep":
            lines.append(str(self.precision))
        return "\n".join([*lines, parity])
