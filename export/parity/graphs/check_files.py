"""Two ONNX files -> whether the second computes what the first does, and if not, where it begins.

Both run in ONNX Runtime, with its optimisations off and at their default, on the same inputs, and
the first also in float64 (`float64.py`), which is the truth; `rule.py` judges the second as it does
an export, with the first file in Keras's place. Imports no TensorFlow.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx

from ...defaults import CPU
from ...errors import ExportError, UnfitSizesError
from ...files.provenance import OF_ONNX, versions
from ...runtime.providers import require_providers
from ...runtime.session import LEVELS, Samples, by_position
from ..measure import errors_of, scale_of
from ..quantised import UNCALIBRATED, as_read, notes_of_bits, quantised_operators, with_parts
from ..report import Fault, OutputParity, ParityReport
from ..rule import MULTIPLE, TRUTHS, Standard, compare
from ..samples.given import split
from ..samples.kinds import (
    LARGEST_BATCH,
    Batch,
    Drawn,
    NothingFiniteError,
    by_kind,
    draw_kinds,
    drawn_for,
    require_finite,
)
from .caveats import caveats
from .draws import distributions_of_graph, inputs_of
from .first_difference import first_difference
from .float64 import Arrays
from .in_bits import tensors_in_decibels
from .side import OnnxSource, Side
from .truth import GraphTruth
from .widening import coarsest_epsilon

__all__ = ["cannot_run", "check_files"]

GATES = ("HardSigmoid", "LogSoftmax", "Sigmoid", "Softmax")
LARGEST_COPY = 2**30  # bytes


def check_files(
    first: OnnxSource,
    second: OnnxSource,
    *,
    inputs: np.ndarray | dict[str, np.ndarray] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    providers: Sequence[str] = (CPU,),
) -> ParityReport:
    """Measure whether an ONNX model computes what another one does.

    Args:
        first: What the other is compared with: a path, an `onnx.ModelProto` or an `onnx_ir.Model`.
        second: What is judged, likewise. Inputs and outputs as in `first`, under the same names or
            in the same order.
        inputs: Samples, as for `check_parity`; None draws them.
        input_shapes: Sizes of some inputs, by name, for the draws; None leaves free ones to them.
        seed: Seed of the draws, at least 0.
        ranges: Smallest and largest value to draw for some inputs, by name.
        providers: ONNX Runtime's execution providers, by name.

    Returns:
        The errors of every output and the verdict; where they differ, the first tensor of the
        second, among those that bear a name of the first, that does.

    Raises:
        ExportError: If a model cannot be read or run, or they have other inputs or outputs.
        ExportError: If an option has a value that it cannot have.
    """
    require_providers(providers)
    sides = [
        Side(first, "the first file", "the samples"),
        Side(second, "the second file", "the first file"),
    ]
    known = list(caveats(sides[0].proto, sides[1].proto))
    _watch_behind_gates(*sides)
    specs = inputs_of(sides[0].proto, input_shapes, told=True)
    names = [spec.name for spec in specs]
    truth = GraphTruth(sides[0].proto)
    epsilon = max(coarsest_epsilon(side.proto) for side in sides)
    bits = quantised_operators(sides[1].proto)
    plain = sides[0].runtime(LEVELS[0], CPU).runner(names, truth.graph.outputs)

    def judged(drawn: Drawn) -> tuple[list[OutputParity], list[str], Drawn]:
        batches = [batch for batch in drawn[0] if not bits or batch.case not in UNCALIBRATED]
        rows, notes = _judged(sides, names, truth, batches, epsilon, providers, bits)
        return rows, notes, (batches, *drawn[1:])

    if inputs is None:
        rows, notes, (batches, drawn, more) = drawn_for(
            judged,
            lambda limits: draw_kinds(
                specs,
                distributions_of_graph(sides[0].proto, specs, ranges or {}, limits),
                plain,
                cannot_run,
                seed=seed,
            ),
        )
    else:
        if input_shapes or ranges:
            raise ExportError(
                "check: `input_shapes` and `ranges` must be left out where samples are given. "
                f"Received: {dict(input_shapes or {})!r} and {dict(ranges or {})!r}."
            )
        given = list(split(inputs, specs, lambda _: LARGEST_BATCH))
        rows, notes, (batches, drawn, more) = judged((given, {}, []))
    fault = None
    wrong = [row for row in rows if not row.passed]
    if bits:
        there = _names_there(names, sides[1])
        notes += notes_of_bits(bits, rows, sides[1].proto, there, batches[-1].arrays)
    elif wrong:
        batch = next(b for b in batches if b.case == wrong[0].case)
        fault = _fault(sides, names, truth, batch, epsilon, wrong)
    report = ParityReport(
        sides[0].name,
        sides[1].name,
        int(seed) if inputs is None else None,
        sum(
            len(batch.arrays[0]) if batch.arrays and batch.arrays[0].ndim else 1
            for batch in batches
        ),
        drawn,
        tuple(rows),
        notes=(*known, *more, *notes),
        fault=fault,
        versions=versions(OF_ONNX),
    )
    if not bits or truth.missing is not None:
        return report
    fed = dict(zip(names, batches[0].arrays, strict=True))
    others = dict(zip(_names_there(names, sides[1]), batches[0].arrays, strict=True))
    read = as_read(sides[1].proto)
    parts = tensors_in_decibels(truth.graph, sides[1], fed, others, read)
    return with_parts(report, parts, "tensor")


def cannot_run(shapes: Iterable[Iterable[int]], error: Exception) -> ExportError:
    """Return what to raise where the first file does not run on samples of some shapes."""
    return UnfitSizesError(
        "check: the first file must run on the samples. Received: "
        f"{[tuple(shape) for shape in shapes]}: "
        f"{str(error).rpartition('Received: ')[2]}. "
        "Give samples by --input, or sizes by --input-shape."
    )


def _watch_behind_gates(first: Side, second: Side) -> None:
    """Let what the same gate at the end of both reads be compared, too."""
    if max(first.proto.ByteSize(), second.proto.ByteSize()) > LARGEST_COPY:
        return
    ends = [[value.name for value in side.proto.graph.output] for side in (first, second)]
    gates = [_gates(side.proto) for side in (first, second)]
    pairs = [
        (gates[0][one][1], gates[1][other][1])
        for one, other in zip(*ends, strict=False)
        if one in gates[0] and other in gates[1] and gates[0][one][0] == gates[1][other][0]
    ]
    pairs = [pair for pair in pairs if pair[0] not in ends[0] and pair[1] not in ends[1]]
    others = [other for _, other in pairs]
    names = [one for one, _ in pairs]
    if len({*names}) == len({*others}) == len(pairs) and (
        by_position([*ends[0], *names], [*ends[1], *others]) == [*ends[1], *others]
    ):
        first.watch(names)
        second.watch(others)


def _gates(proto: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """Return the operator and what it reads of each tensor that a gate makes."""
    made = {name for node in proto.graph.node for name in node.output}
    return {
        node.output[0]: (node.op_type, node.input[0])
        for node in proto.graph.node
        if node.op_type in GATES and node.input[0] in made
    }


def _judged(
    sides: list[Side],
    names: list[str],
    truth: GraphTruth,
    batches: list[Batch],
    epsilon: float,
    providers: Sequence[str],
    bits: str,
) -> tuple[list[OutputParity], list[str]]:
    """Run both files on every kind of inputs; return how the second compares, and notes."""
    kinds = by_kind(batches)
    rows, notes = [], []
    for provider in providers:
        first, second = (
            side.outputs(names, truth.graph.outputs, kinds, provider) for side in sides
        )
        for kind, arrays in kinds.items():
            fed = [dict(zip(names, batch, strict=True)) for batch in arrays]
            try:
                both = first[kind], second[kind]
                rows += _compared(truth, fed, (kind, provider), *both, epsilon, bits)
            except NothingFiniteError:
                if kind == batches[0].case:
                    raise
                notes.append(f"{kind} inputs were left out: an output has no finite value on them")
    limit = float(np.sqrt(epsilon))
    notes += [
        f"output {row.name!r} on {row.case} inputs: the first file itself misses float64 by "
        f"{row.keras.max:.1e}, so that small faults cannot be seen there"
        for row in rows
        if row.reference in TRUTHS and row.keras.max > limit
    ]
    return rows, list(dict.fromkeys(notes))


def _compared(
    truth: GraphTruth,
    fed: list[Arrays],
    where: tuple[str, str],
    first: list[Samples],
    second: list[Samples],
    epsilon: float,
    bits: str,
) -> list[OutputParity]:
    """Judge every output on one kind of inputs, on one execution provider."""
    outputs = truth.graph.outputs
    true, reference = truth.of(fed, first[0])
    require_finite(outputs, true, where[0], "the first file")

    @functools.cache
    def rounded() -> list[Samples]:
        return truth.rounded(fed, MULTIPLE * epsilon, first[0])

    rows = []
    for i, name in enumerate(outputs):
        errors = [errors_of(true[i], level[i], scale_of(true[i])).max for level in first]
        own = first[int(errors[1] > errors[0])][i]  # the first file as badly as it may run
        of_output = functools.partial(_of_output, rounded, i)
        standard = Standard(true[i], reference, own, "the first file", epsilon, of_output)
        found = [level[i] for level in second]
        rows.append(compare(name, *where, standard, found, quantised=bool(bits)))
    return rows


def _of_output(rounded: Callable[[], list[Samples]], i: int) -> list[np.ndarray]:
    return [outputs[i] for outputs in rounded()]


def _names_there(names: list[str], second: Side) -> list[str]:
    """Return what the second file calls the inputs of the first."""
    return by_position(names, [spec.name for spec in inputs_of(second.proto)])


def _fault(
    sides: list[Side],
    names: list[str],
    truth: GraphTruth,
    batch: Batch,
    epsilon: float,
    wrong: list[OutputParity],
) -> Fault:
    """Name the first tensor that differs."""
    if truth.missing is not None:
        return Fault("file", (), None, f"What differs first is not known: {truth.missing}.")
    second = sides[1].proto
    there = _names_there(names, sides[1])
    called = by_position(truth.graph.outputs, [value.name for value in second.graph.output])
    inputs = dict(zip(names, batch.arrays, strict=True))
    others = dict(zip(there, batch.arrays, strict=True))
    return first_difference(
        truth.graph,
        second,
        first_values=functools.partial(sides[0].values, inputs=inputs),
        second_values=functools.partial(sides[1].values, inputs=others),
        inputs=inputs,
        ends={called[truth.graph.outputs.index(row.name)] for row in wrong},
        epsilon=epsilon,
    )
