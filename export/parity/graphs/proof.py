"""A folded ONNX model -> the report that it agrees with the original, or `ParityError`."""

from typing import Any

from ..report import ParityError, ParityReport
from .check_files import check_files
from .side import OnnxSource

__all__ = ["prove_fold"]


def prove_fold(original: OnnxSource, folded: OnnxSource, **options: Any) -> ParityReport:
    """Compare a folded model with what it was folded from.

    Args:
        original: The original.
        folded: What became of it.
        options: As for `check_files`.

    Raises:
        ExportError: If the two cannot be compared, such as where ONNX Runtime lacks an operator.
        ParityError: If they differ.
    """
    report = check_files(original, folded, **options)
    if not report.passed:
        found = str(report).replace("\n", "; ")
        raise ParityError(
            "fold: the folded model must compute what the original does. "
            f"Received: {found}. Nothing was written. Please report this with the model; "
            "`check=False` or --no-check leaves the proof out.",
            report,
        )
    return report
