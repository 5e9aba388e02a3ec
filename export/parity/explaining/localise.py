"""A file that does not agree -> the first layer that differs, and how the error grows up to it.

The model runs on two samples, or one if it is large, in Keras in both precisions and in ONNX
Runtime. Each tensor that leaves a layer in the file (`taps.py`) is compared with what Keras's
layers return (`reference/intermediates.py`; `matching.py` says which of them it holds).

A batch norm that was moved through other layers leaves them with rescaled outputs on purpose. So a
graph that is known to be right, a fresh export of the same model, is asked, if there is one, what
each tensor should hold: what then differs from it and from the truth is wrong beyond doubt, also
where no output shows it. So is a tensor that is infinite where the truth is not: on a CPU, ONNX
Runtime computes much of a float16 graph in float32, and the outputs may be right. Else the search
goes back from an output that differs, through tensors that differ, to the first one that is
computed from nothing but tensors that agree.

Not every tensor that leaves a layer is its output: a recurrent layer's initial state has the shape
of one, too. What differs from an output that another tensor holds, or differs from it in a right
graph as well, is left out.

Values are looked at in portions of at most `PORTION` bytes, a run of everything for each.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Set
from pathlib import Path

import keras
import numpy as np

from ...runtime.session import Samples, by_position
from ...signature import Signature
from ..measure import errors_of, scale_of
from ..reference.float64_weights import Float64Weights
from ..reference.intermediates import Intermediate, Recorder
from ..reference.keras_runs import in_keras
from ..report import LayerParity
from ..samples.refusal import cannot_run
from .fault import Layers
from .matching import Match, Record, best_match, candidates, compared, folded_before
from .taps import Taps, first_wrong, known_before

__all__ = ["KerasSide", "Searched", "Side", "compare_layers", "portions"]

PORTION = 64 * 2**20
LARGEST_PAIR = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class Searched:
    """A file in which to look for a fault.

    Attributes:
        path: The file.
        right: A graph with the same names that computes the right outputs, if there is one.
        trusted: Whether the file should hold the very same as `right`, so that a tensor that does
            not is wrong also where no output shows it.
        moved: Names of the operators whose outputs may be rescaled.
    """

    path: Path
    right: Path | None
    trusted: bool
    moved: Set[str]


def compare_layers(
    model: keras.Model,
    signature: Signature,
    searched: Searched,
    batch: Samples,
    epsilon: float,
    *,
    wrong_outputs: Set[str],
) -> Layers:
    """Compare the layers of a model in a file.

    Args:
        model: The model.
        signature: What it is called with.
        searched: The file.
        batch: Inputs to run; the first sample alone, if the layers' outputs are more than
            `LARGEST_PAIR` bytes and the signature leaves the batch free.
        epsilon: Spacing at 1 of the coarsest dtype that may be computed in.
        wrong_outputs: Names, in the model, of the outputs from which to search; none if the file
            agrees.
    """
    keras_side = KerasSide(model, signature, batch)
    shapes = keras_side.record(set())
    if signature.is_batch_free and sum(item.bytes for item in shapes) > LARGEST_PAIR:
        batch = [array[:1] for array in batch]
        keras_side = KerasSide(model, signature, batch)
        shapes = keras_side.record(set())
    inputs = [spec.name for spec in signature.specs]
    file, right = Side(Taps(searched.path, model), shapes, inputs, batch), searched.right
    twin = None if right is None else Side(Taps(right, model), shapes, inputs, batch)
    found = _Findings()
    for portion in portions(file.offers, twin.offers if twin else {}, shapes):
        offers = [*file.offers_of(portion), *(twin.offers_of(portion) if twin else [])]
        wanted = {place for places in offers for place in places}
        record = Record(keras_side.record(wanted, wide=True), keras_side.record(wanted), epsilon)
        rights = twin.values(portion) if twin else {}
        for value, array in file.values(portion).items():
            match = best_match(array, file.offers[value], record)
            if match is None:
                continue
            row = compared(value, array, match, record)
            if row.status == "agrees":
                found.held.add(match.place)
            elif twin is not None and value in rights:
                match = best_match(rights[value], twin.offers[value], record) or match
                row = found.judge(
                    array, rights[value], match, record, value, trusted=searched.trusted
                )
            elif not (row.status == "rescaled" and value.partition(":")[0] in searched.moved):
                found.bad.add(value)
            if np.isinf(row.onnx):  # too large for float16, say: right for no graph
                found.bad.add(value)
                found.proven.add(value)
            found.rows[value], found.holds[value] = row, match.place
    there = by_position(keras_side.outputs, file.taps.outputs)
    wrong = {there[keras_side.outputs.index(name)] for name in wrong_outputs}
    return _judged(file.taps, found, wrong, shapes)


def _judged(taps: Taps, found: "_Findings", wrong: Set[str], shapes: list[Intermediate]) -> Layers:
    """Return the tensors that were compared, and which of them are at fault."""
    found.leave_out(found.as_intended())
    if not wrong and not found.proven:  # it is right, whatever these hold
        found.leave_out(found.differing())
    known = set(found.rows)
    first = first_wrong(taps, known, found.bad, found.proven or wrong)
    last = set() if first else known_before(taps, known, wrong)
    found.leave_out(found.beside() - found.proven - first - last)
    before = folded_before(found.holds, found.held, shapes)
    rows = {v: dataclasses.replace(row, folded=before[v]) for v, row in found.rows.items()}
    for value in first:  # a fault may look like a factor
        rows[value] = dataclasses.replace(rows[value], status="differs")
    in_order = [value for value in taps.taps if value in rows]
    return Layers(
        tuple(rows[value] for value in in_order),
        tuple(rows[value] for value in in_order if value in first),
        tuple(rows[value] for value in in_order if value in last),
    )


class _Findings:
    """What is known of the tensors of a file, by name.

    Attributes:
        rows: How each compares.
        holds: The place of what each holds, or should.
        held: Places of what some tensor holds.
        bad: Those that are not as they should be.
        proven: Those of them that are wrong whatever the outputs say.
    """

    def __init__(self) -> None:
        self.rows: dict[str, LayerParity] = {}
        self.holds: dict[str, int] = {}
        self.held: set[int] = set()
        self.bad: set[str] = set()
        self.proven: set[str] = set()

    def judge(
        self,
        array: np.ndarray,
        right: np.ndarray,
        match: Match,
        record: Record,
        value: str,
        *,
        trusted: bool,
    ) -> LayerParity:
        """Judge a tensor that differs from the truth by the same one of a right graph."""
        row = compared(value, array, match, record)
        if compared(value, right, match, record).status == "agrees":
            self.held.add(match.place)
        if errors_of(right, array, scale_of(right)).max <= row.tolerance:
            return row
        self.bad.add(value)
        if not trusted:
            return row
        self.proven.add(value)
        return dataclasses.replace(row, status="differs")

    def as_intended(self) -> set[str]:
        """Return the tensors that hold no layer's output, in a right graph no more than here."""
        return self.differing() - self.bad

    def beside(self) -> set[str]:
        """Return the tensors that differ from an output which another tensor holds."""
        return {value for value in self.differing() if self.holds[value] in self.held}

    def leave_out(self, values: Set[str]) -> None:
        for value in values:
            del self.rows[value], self.holds[value]

    def differing(self) -> set[str]:
        """Return the tensors that are not what a layer returns, nor a factor of it."""
        return {value for value, row in self.rows.items() if row.status == "differs"}


class Side:
    """A graph, what its tensors may hold, and their values on one batch."""

    def __init__(
        self, taps: Taps, shapes: list[Intermediate], inputs: list[str], batch: Samples
    ) -> None:
        self.taps, self.offers = taps, candidates(taps, shapes)
        self._inputs, self._batch = inputs, batch

    def offers_of(self, values: list[str]) -> list[list[int]]:
        """Return the places of what each of some tensors may hold."""
        return [self.offers[value] for value in values if value in self.offers]

    def values(self, names: list[str]) -> dict[str, np.ndarray]:
        """Compute those of some tensors that may hold anything."""
        wanted = [name for name in names if name in self.offers]
        if not wanted:
            return {}
        arrays = self.taps.runner(wanted, self._inputs)(self._batch)
        return dict(zip(wanted, arrays, strict=True))


class KerasSide:
    """A model that runs on one batch, as often as is asked, and notes what its layers return.

    Attributes:
        outputs: Names of its outputs, once it has run.
    """

    def __init__(self, model: keras.Model, signature: Signature, batch: Samples) -> None:
        self._model, self._signature, self._batch = model, signature, batch
        self._recorder = Recorder(model)
        self._weights = Float64Weights(model)
        self.outputs: list[str] = []

    def record(self, wanted: set[int], *, wide: bool = False) -> list[Intermediate]:
        """Return what the layers return, with the values of some, in float64 if `wide`."""
        notes: list[Intermediate] = []

        @contextlib.contextmanager
        def noting() -> Iterator[None]:
            with self._recorder.recording(wanted) as found:
                yield
            notes.extend(found)

        weights = self._weights if wide else None
        try:
            run, self.outputs = in_keras(self._model, self._signature, weights, noting)
            run(self._batch)
        except Exception as e:  # a part of a batch is something new to the model
            raise cannot_run([array.shape for array in self._batch], e) from e
        return notes


def portions(
    offered: dict[str, list[int]], intended: dict[str, list[int]], shapes: list[Intermediate]
) -> Iterator[list[str]]:
    """Cut tensors into portions of `PORTION` bytes; each has at least one.

    Args:
        offered: The places of what each may hold, by name.
        intended: Likewise in a right graph.
        shapes: What the layers return.
    """
    portion: list[str] = []
    places: set[int] = set()
    for value, offers in offered.items():
        own = {*offers, *intended.get(value, ())}
        together = places | own
        if portion and sum(shapes[place].bytes for place in together) > PORTION:
            yield portion
            portion, together = [], own
        portion, places = [*portion, value], together
    if portion:
        yield portion
