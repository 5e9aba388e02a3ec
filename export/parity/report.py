"""What a parity check found, as plain data: dataclasses that print, and turn into JSON.

All errors are relative to the scale of what they are errors of, the largest magnitude that it has
in the truth, so that 1e-6 means the same everywhere. docs/parity.md describes the JSON.
"""

import dataclasses
from typing import Any, Literal

from keras_bn.reporting import counted, jsonable

from .array_errors import Errors

__all__ = [
    "KINDS",
    "SCHEMA",
    "Cause",
    "Fault",
    "LayerParity",
    "OutputParity",
    "ParityError",
    "ParityReport",
    "StageParity",
]

SCHEMA = 1  # version of the JSON; rises when a field changes its meaning or goes
# Of a file in 8 bits: the share of the samples that must have the same class, of how many or more.
SAME_CLASS, ENOUGH_SAMPLES = 0.9, 20

KINDS = {  # of drawn samples (`samples/kinds.py`), for a reader
    "drawn": "as the inputs' distributions have it",
    "another size": "likewise, with other free sizes",
    "constant": "every value of a sample alike",
    "out of range": "ten times as far out as expected",
}

Stage = Literal["tracing", "layout", "folding", "precision", "file", "optimiser"]
Cause = Stage | Literal["keras"]


@dataclasses.dataclass(frozen=True)
class OutputParity:
    """One output of a model on one kind of inputs.

    Attributes:
        name: Name of the output.
        case: The kind of inputs: "given", or one of those that are drawn.
        provider: ONNX Runtime's execution provider.
        reference: "float64", or why the truth had to be Keras in its own precision.
        samples: Number of samples compared.
        scale: Largest magnitude of the truth, in the output's units.
        keras: Errors of Keras in the model's own precision.
        onnx: Errors of ONNX Runtime with its optimisations off.
        optimised: Likewise with its default optimisations.
        difference: Largest difference that its optimisations make.
        tolerance: What the largest error of ONNX Runtime may be.
        rms_tolerance: Likewise its root mean square error.
        argmax_agreement: Share of the samples whose largest value is at the same place as in the
            truth, or at one that is as large within the tolerance; None if it is no classifier's.
        top5_agreement: Likewise of those that have the same five largest.
        signal_to_noise: Of a file that computes in 8 bits, by which it is judged: 20 log10 of the
            root mean square of the truth to that of the error, in dB, at the worse level of
            optimisation; None for any other file.
        own: Whose errors `keras` are: "Keras", or "the first file" where two files are compared.
        bad_channel: A channel along the last axis whose error is too large for that channel's own
            magnitude, although it is small beside the whole output; None if there is none.
    """

    name: str
    case: str
    provider: str
    reference: str
    samples: int
    scale: float
    keras: Errors
    onnx: Errors
    optimised: Errors
    difference: float
    tolerance: float
    rms_tolerance: float
    argmax_agreement: float | None = None
    top5_agreement: float | None = None
    bad_channel: int | None = None
    own: str = "Keras"
    signal_to_noise: float | None = None

    @property
    def worst(self) -> Errors:
        """The errors of ONNX Runtime at whichever level of optimisation they are larger."""
        return max(self.onnx, self.optimised, key=lambda errors: errors.max)

    @property
    def passed(self) -> bool:
        """Whether ONNX Runtime is within the tolerances; an error that is NaN is not."""
        return (
            all(self.allows(errors) for errors in (self.onnx, self.optimised))
            and self.bad_channel is None
            and not self._classes_differ
        )

    @property
    def _classes_differ(self) -> bool:
        """Whether a file in 8 bits gives too many of enough samples another class."""
        of_bits = self.signal_to_noise is not None and self.samples >= ENOUGH_SAMPLES
        share = self.argmax_agreement
        return of_bits and share is not None and share < SAME_CLASS

    def allows(self, errors: Errors) -> bool:
        """Say whether errors are within the tolerances."""
        return errors.max <= self.tolerance < float(
            "inf"
        ) and errors.rms <= self.rms_tolerance < float("inf")

    def __str__(self) -> str:
        text = (
            f"{'agrees' if self.passed else 'DIFFERS'}: output {self.name!r}, largest error "
            f"{self.onnx.max:.1e} of the output's scale {self.scale:.3g}, "
            f"{self.optimised.max:.1e} with ONNX Runtime's optimisations "
            f"({self.own} itself {self.keras.max:.1e}, allowed {self.tolerance:.1e}), "
            f"on {self.case} inputs"
        )
        worst = self.worst
        if worst.max <= self.tolerance < float("inf") and worst.rms > self.rms_tolerance:
            text += f"; root mean square {worst.rms:.1e}, allowed {self.rms_tolerance:.1e}"
        if not self.passed and worst.index:
            text += (
                f"; worst at {list(worst.index)}: {worst.found:.6g} instead of {worst.expected:.6g}"
            )
        if self.signal_to_noise is not None:
            text += f"; signal to noise {self.signal_to_noise:.1f} dB"
            if self.argmax_agreement is not None:
                text += f", {self.argmax_agreement:.0%} of the samples in the same class"
        if self.bad_channel is not None:
            text += f"; channel {self.bad_channel} is wrong for its own magnitude"
        return text


@dataclasses.dataclass(frozen=True)
class StageParity:
    """The graph behind one stage of a fresh export, or the file, against the truth.

    Attributes:
        stage: What made the graph: "tracing", "layout", "folding", "precision"; "file" is the file
            that was checked, "optimiser" that file under ONNX Runtime's default optimisations.
        error: Largest error of any output.
        output: That output.
        passed: Whether all outputs are within their tolerances.
    """

    stage: Stage
    error: float
    output: str
    passed: bool


@dataclasses.dataclass(frozen=True)
class LayerParity:
    """A tensor of a file that holds the output of a Keras layer.

    Attributes:
        layer: Path of the Keras layer.
        kind: The layer's class, such as "Conv2D".
        value: Name of the tensor in the file.
        folded: Paths of the layers before this one whose outputs the file does not have any more.
        scale: Largest magnitude of the layer's output in the truth.
        keras: Largest error of Keras in the model's own precision.
        onnx: Largest error of ONNX Runtime with its optimisations off.
        tolerance: What that would be allowed if it were an output.
        status: "agrees"; "differs"; or "rescaled": the tensor is the layer's output times a factor
            and plus an offset per channel, which a later layer makes up for if a batch norm was
            moved through the layer.
    """

    layer: str
    kind: str
    value: str
    folded: tuple[str, ...]
    scale: float
    keras: float
    onnx: float
    tolerance: float
    status: Literal["agrees", "differs", "rescaled"]


@dataclasses.dataclass(frozen=True)
class Fault:
    """Where a file that does not agree goes wrong.

    Attributes:
        stage: The first stage whose graph does not agree; "keras" if Keras's own answer depends on
            how many samples there are.
        layers: Paths of the Keras layers that the fault can be in: the first one beyond its
            tolerance, and before it those whose outputs the file does not have.
        value: The tensor of the file that differs first; None if no layer could be named.
        detail: What is known of it, in a sentence.
    """

    stage: Cause
    layers: tuple[str, ...]
    value: str | None
    detail: str


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """The verdict of `check_parity`.

    Attributes:
        model: Name of the Keras model.
        path: The file.
        seed: Seed of the drawn inputs; None if they were given.
        samples: Number of samples compared.
        drawn: What was drawn for each input, in words, by name; empty if inputs were given.
        outputs: An entry for each output, kind of inputs and execution provider.
        notes: What a reader should know besides.
        stages: The stages of a fresh export, in order; empty unless they were looked at.
        layers: The layers, in the file's order; empty unless they were looked at.
        signal_to_noise: Of a file that computes in 8 bits, that of each layer, by path, or, where
            two files are compared, of each tensor that both name; in dB. Empty unless looked at.
        fault: Where the file goes wrong; None if it agrees, or nobody looked.
        versions: Versions of what it was measured with, by name.
    """

    model: str
    path: str
    seed: int | None
    samples: int
    drawn: dict[str, str]
    outputs: tuple[OutputParity, ...]
    notes: tuple[str, ...] = ()
    stages: tuple[StageParity, ...] = ()
    layers: tuple[LayerParity, ...] = ()
    signal_to_noise: dict[str, float] = dataclasses.field(default_factory=dict)
    fault: Fault | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every output is within its tolerances, and no layer is known to be wrong."""
        return all(output.passed for output in self.outputs) and self.fault is None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data; a number that is not finite is None."""
        ready: dict[str, Any] = jsonable(
            {"schema": SCHEMA, "passed": self.passed, **dataclasses.asdict(self)}
        )
        return ready

    def headline(self, name: str) -> OutputParity:
        """Return the entry of an output that is nearest to its tolerance, or furthest beyond."""
        rows = [row for row in self.outputs if row.name == name]
        return max(rows, key=lambda row: (not row.passed, row.worst.max / row.tolerance))

    @property
    def measured_on(self) -> list[str]:
        """The samples and the truth, in words, and what the kinds of drawn samples are."""
        references = ", ".join(dict.fromkeys(row.reference for row in self.outputs))
        kinds = list(dict.fromkeys(row.case for row in self.outputs))
        meanings = "; ".join(f"{kind}: {KINDS[kind]}" for kind in kinds if kind in KINDS)
        whole = f"{counted(self.samples, 'sample')} ({', '.join(kinds)}), truth: {references}"
        return [whole, meanings] if meanings else [whole]

    def __str__(self) -> str:
        lines = [str(self.headline(name)) for name in dict.fromkeys(r.name for r in self.outputs)]
        lines += self.measured_on
        if self.fault is not None:
            lines.append(self.fault.detail)
        return "\n".join([*lines, *self.notes])


class ParityError(RuntimeError):
    """The exported graph computes something else than the Keras model; nothing was written.

    Attributes:
        report: The measurements, a `ParityReport`.
    """

    def __init__(self, message: str, report: "ParityReport") -> None:
        super().__init__(message)
        self.report = report
