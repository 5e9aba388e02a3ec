"""What an export did, as plain data: dataclasses that print, and turn into JSON.

Nothing here computes; the stages fill these in.
"""

import dataclasses
from typing import Any

from .folding.report import Fold, FoldReport, Reason, Refusal
from .precision.report import PrecisionReport

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
class OutputParity:
    """How far one output is from the truth; errors are relative to the output's scale.

    Attributes:
        name: Name of the output.
        scale: Largest magnitude of the truth, in the output's units.
        onnx_max_error: Largest error of ONNX Runtime with its optimisations off.
        optimised_max_error: Likewise with its default optimisations.
        onnx_rms_error: Root mean square error of ONNX Runtime with its optimisations off.
        keras_max_error: Largest error of Keras in the model's own precision.
        tolerance: What either largest error may be at most.
        bad_channel: A channel along the last axis whose error is too large for that channel's own
            magnitude, although it is small beside the whole output; None if there is none.
    """

    name: str
    scale: float
    onnx_max_error: float
    optimised_max_error: float
    onnx_rms_error: float
    keras_max_error: float
    tolerance: float
    bad_channel: int | None = None

    @property
    def passed(self) -> bool:
        """Whether ONNX Runtime is within the tolerance; an error that is NaN is not."""
        worst = max(self.onnx_max_error, self.optimised_max_error)
        return worst <= self.tolerance < float("inf") and self.bad_channel is None

    def __str__(self) -> str:
        text = (
            f"{'agrees' if self.passed else 'DIFFERS'}: output {self.name!r}, largest error "
            f"{self.onnx_max_error:.1e} of the output's scale {self.scale:.3g}, "
            f"{self.optimised_max_error:.1e} with ONNX Runtime's optimisations "
            f"(Keras itself {self.keras_max_error:.1e}, allowed {self.tolerance:.1e})"
        )
        if self.bad_channel is not None:
            text += f"; channel {self.bad_channel} is wrong for its own magnitude"
        if self.onnx_max_error <= self.tolerance < self.optimised_max_error:
            text += "; ONNX Runtime's own optimiser changes the result"
        return text


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """The verdict of `check_parity`.

    Attributes:
        reference: "float64", or why the truth had to be Keras in its own precision.
        samples: Number of samples compared.
        outputs: One entry for each output of the model.
    """

    reference: str
    samples: int
    outputs: tuple[OutputParity, ...]

    @property
    def passed(self) -> bool:
        """Whether every output is within its tolerance."""
        return all(output.passed for output in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data, with the verdict."""
        return {"passed": self.passed, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        lines = [*map(str, self.outputs), f"{self.samples} samples, truth: {self.reference}"]
        return "\n".join(lines)


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
