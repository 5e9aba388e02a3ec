"""What Keras makes of each kind of inputs: in float64, the truth, and in its own precision.

Where Keras runs over and float64 does not, such as in exp(100), the file is to do as Keras does.
Where the model cannot run in float64, the truth is Keras in its own precision, whose error is then
unknown. `Case.reference` says so.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ..defaults import CPU
from ..errors import one_line
from ..runtime.session import Samples, by_position, require_as_many, run_batches
from ..signature import Signature
from .file_runs import FileRuns, run_file
from .measure import errors_of, scale_of
from .reference.float64_weights import Float64Weights
from .reference.keras_runs import in_keras
from .reference.refused import StoodIn
from .reference.rounded_runs import run_rounded
from .report import OutputParity
from .rule import MULTIPLE, TRUTHS, Standard, compare
from .samples.kinds import Kinds, NothingFiniteError, require_finite
from .samples.refusal import cannot_run

__all__ = ["Case", "Expected", "epsilon_of", "expected_of", "judge"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of inputs, and what Keras makes of them.

    Attributes:
        name: The kind.
        batches: The inputs.
        own: The outputs in the model's own precision, all batches joined.
        truth: Likewise the true ones.
        reference: One of `TRUTHS`, or why the truth had to be `own`.
        rounded: Returns a few sets of outputs that rounding at random gives.
    """

    name: str
    batches: list[Samples]
    own: Samples
    truth: Samples
    reference: str
    rounded: Callable[[], list[Samples]]

    def standard(self, output: int, epsilon: float) -> Standard:
        """Return what an output is judged by."""

        def rounded() -> list[np.ndarray]:
            return [_following(outputs, self.own)[output] for outputs in self.rounded()]

        truth, own = self.truth[output], self.own[output]
        return Standard(truth, self.reference, own, "Keras", epsilon, rounded)


@dataclasses.dataclass(frozen=True)
class Expected:
    """All kinds of inputs.

    Attributes:
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        cases: An entry for each kind.
        epsilon: Spacing at 1 of the coarsest dtype that may be computed in.
        stood_in: What TensorFlow refuses to compute on this CPU in the model's own precision.
        left_out: Kinds on which an output has no finite value.
    """

    inputs: list[str]
    outputs: list[str]
    cases: list[Case]
    epsilon: float
    stood_in: StoodIn
    left_out: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What the truth says about the model."""
        limit = float(np.sqrt(self.epsilon))
        notes = self.stood_in.notes
        notes += [
            f"{kind} inputs were left out: an output has no finite value on them"
            for kind in self.left_out
        ]
        for case in self.cases:
            for name, truth, own in zip(self.outputs, case.truth, case.own, strict=True):
                error = errors_of(truth, own, scale_of(truth)).max
                if case.reference in TRUTHS and error > limit:
                    notes.append(
                        f"output {name!r} on {case.name} inputs: Keras itself misses float64 by "
                        f"{error:.1e}, so that small faults cannot be seen there"
                    )
        return notes


def expected_of(model: keras.Model, signature: Signature, kinds: Kinds, precision: str) -> Expected:
    """Run Keras on all batches.

    Args:
        model: The model; its state stays as it is.
        signature: What it is called with.
        kinds: The batches of each kind, as `by_kind` returns them.
        precision: "keep", or what a file computes in.

    Raises:
        ExportError: If Keras cannot run on a batch.
        NothingFiniteError: If no value of an output is finite on the first kind of inputs.
    """
    stood_in = StoodIn()
    run, names = in_keras(model, signature, stood_in=stood_in)
    weights = Float64Weights(model)
    wide, _ = in_keras(model, signature, weights)
    epsilon = epsilon_of(model) if precision == "keep" else float(np.finfo(precision).eps)
    cases: list[Case] = []
    left_out = []
    for kind, arrays in kinds.items():
        try:
            own = run_batches(run, arrays)
        except Exception as e:  # running a model runs the code of every layer
            raise cannot_run([array.shape for array in arrays[0]], e) from e
        truth, reference = _truth(wide, arrays, own)
        try:
            require_finite(names, truth, kind)
        except NothingFiniteError:
            if not cases:
                raise
            left_out.append(kind)
            continue
        rounded = functools.partial(run_rounded, model, signature, arrays, MULTIPLE * epsilon)
        cases.append(Case(kind, arrays, own, truth, reference, functools.cache(rounded)))
    return Expected(
        [spec.name for spec in signature.specs], names, cases, epsilon, stood_in, tuple(left_out)
    )


def _truth(run: Any, batches: list[Samples], own: Samples) -> tuple[Samples, str]:
    """Return the outputs in float64 and which of `TRUTHS`, or Keras's own and why they must do."""
    try:
        truth = run_batches(run, batches)
    except Exception as e:  # running a model runs the code of every layer
        return own, f"Keras itself; it cannot run in float64: {one_line(e)}"
    for wide, narrow in zip(truth, own, strict=True):
        if wide.dtype.kind == "f" and wide.dtype != np.float64:
            return own, f"Keras itself; in float64 it still gives {wide.dtype.name}"
        if wide.shape != narrow.shape:
            return own, "Keras itself; in float64 its outputs have other shapes"
        if (np.isfinite(narrow) & ~np.isfinite(wide)).any():
            return own, "Keras itself; in float64 it is not finite where it is"
    followed = _following(truth, own)
    same = all(np.array_equal(*pair, equal_nan=True) for pair in zip(truth, followed, strict=True))
    return followed, TRUTHS[0 if same else 1]


def _following(values: Samples, own: Samples) -> Samples:
    """Return values with those of Keras itself wherever these are not finite."""
    pairs = zip(values, own, strict=True)
    return [np.where(np.isfinite(narrow), wide, narrow) for wide, narrow in pairs]


def epsilon_of(model: keras.Model) -> float:
    """Return the spacing at 1 of the coarsest dtype that a model computes in."""
    dtypes = {layer.compute_dtype for layer in model._flatten_layers()} | {"float32"}
    known = [dtype for dtype in dtypes if dtype and keras.backend.is_float_dtype(dtype)]
    return max(2.0**-7 if dtype == "bfloat16" else float(np.finfo(dtype).eps) for dtype in known)


def judge(
    path: Any,
    expected: Expected,
    provider: str = CPU,
    *,
    quantised: bool = False,
    runs: FileRuns | None = None,
) -> tuple[OutputParity, ...]:
    """Compare a file with what is expected of it.

    Args:
        path: The file.
        expected: What Keras makes of the inputs.
        provider: ONNX Runtime's execution provider.
        quantised: Whether the file computes in 8 bits.
        runs: What comes of the file; None runs it.

    Returns:
        An entry for each kind of inputs and each output.

    Raises:
        ExportError: If it cannot be loaded or run, or has other inputs or outputs.
    """
    kinds = {case.name: case.batches for case in expected.cases}
    runs = runs or run_file(path, expected.inputs, kinds, provider)
    require_as_many("outputs", expected.outputs, runs.outputs)
    places = [runs.outputs.index(name) for name in by_position(expected.outputs, runs.outputs)]
    return tuple(
        compare(
            name,
            case.name,
            provider,
            case.standard(i, expected.epsilon),
            [outputs[places[i]] for outputs in runs.kinds[case.name]],
            quantised=quantised,
        )
        for case in expected.cases
        for i, name in enumerate(expected.outputs)
    )
