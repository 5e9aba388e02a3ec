"""Why a file does not agree: which stage of the export, which layer.

The model is exported anew and the graph behind each stage compared with the truth: Keras, unfolded
ONNX, folded ONNX. The first that differs names the stage. If all agree, the file is no export of
the model as it is; if that agrees too with ONNX Runtime's optimisations off, those are at fault.
The graph of that stage, or the file, is then searched for the layer (`localise.py`).
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import onnx
import onnx_ir as ir

from keras_bn.version import __version__

from ...defaults import DEFAULT_OPSET, OPSETS
from ...errors import ExportError
from ...files.metadata import CHANNELS_SECOND, KERAS, PRECISION, VERSION, channels_second
from ...files.onnx_file import write
from ...files.whole_file import scratch_folder
from ...runtime.session import Samples
from ...signature import Signature
from ...stages.converted import StageFile, StageFiles
from ...stages.folding.report import FoldReport
from ..expected import Case, Expected, judge
from ..measure import errors_of, scale_of
from ..reference.keras_runs import in_keras
from ..report import Cause, Fault, LayerParity, OutputParity, Stage, StageParity
from ..rule import FLOAT64
from ..samples.samples import Sampling
from .alignment import aligned
from .fault import AT_FAULT, Layers, fault_of
from .localise import Searched, compare_layers
from .stored import fault_of_content

__all__ = ["Explanation", "explain", "worst_samples"]

LAYER_SAMPLES = 2
HEAVY = 2**24  # bytes
LIKE_BEFORE = ("file", "precision")  # whose tensors have the names of those in the graph before


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What was found.

    Attributes:
        stages: The stages of a fresh export, then the file.
        layers: The layers in the file, or in the graph of the stage that is at fault.
        fault: None if the file agrees.
        notes: What could not be looked at.
    """

    stages: tuple[StageParity, ...]
    layers: tuple[LayerParity, ...]
    fault: Fault | None
    notes: tuple[str, ...]


def explain(
    sampling: Sampling,
    path: Path,
    expected: Expected,
    outputs: Sequence[OutputParity],
    stages: StageFiles,
) -> Explanation:
    """Compare the stages of a fresh export, and the layers of the first graph that differs.

    Args:
        sampling: What the model was compared on.
        path: The file.
        expected: What Keras makes of the inputs.
        outputs: How the file compares, on one execution provider.
        stages: The stages of an export like the file's; exported here if they are not complete.
    """
    wrong = [row for row in outputs if not row.passed]
    kinds = {row.case for row in wrong} or {expected.cases[0].name}
    looked_at = dataclasses.replace(
        expected, cases=[case for case in expected.cases if case.name in kinds]
    )
    in_file = [row for row in outputs if row.case in kinds]
    told, notes, layers = _Told.of(path), [], Layers((), ())
    graphs = _Graphs(_Graph(_stage("file", in_file, plain=True), path, FoldReport((), ())))
    with scratch_folder() as folder:
        try:
            graphs.judge(_exported(sampling, told, stages), looked_at, outputs[0].provider)
        except ExportError as e:
            notes.append(f"the stages could not be compared: {e}")
        # The file under the names that its layers have now.
        like = graphs.stages[-1].path if graphs.complete else None
        named = path if like is None else aligned(path, like, folder, told.second)
        graphs.name(named or path)
        suspect, before = graphs.suspect(bool(wrong))
        trusted = told.is_of_this_version and named is not None
        try:
            light = dataclasses.replace(suspect, path=_light(suspect.path, folder))
            of_file = trusted and suspect is graphs.file
            layers = _compared(sampling, looked_at, wrong, light, before, of_file)
        except ExportError as e:
            notes.append(f"the layers could not be compared: {e}")
        fault = None
        if trusted and like is not None and graphs.agree and named is not None:
            fault = fault_of_content(sampling.model, named, like, AT_FAULT["file"])
    optimised = _stage("optimiser", in_file, plain=False)
    rows = (*(graph.stage for graph in (*graphs.stages, graphs.file)), optimised)
    failed = [stage.stage for stage in rows if not stage.passed]
    if failed and not wrong:
        notes.append(f"the file agrees, but a fresh export by these versions differs: {failed[0]}")
    if wrong or layers.first:
        overflown = sampling.precision != "keep" and any(np.isinf(r.onnx) for r in layers.first)
        unnamed: Stage = "precision" if overflown else "file"
        at_fault: Cause = failed[0] if wrong and failed else unnamed
        if at_fault == "tracing" and _depends_on_batch_size(sampling, expected, wrong):
            at_fault = "keras"
        fault = fault_of(at_fault, layers, [row.name for row in wrong], suspect.fold)
        made = told.metadata.get(PRECISION, sampling.precision)
        if made != sampling.precision:
            asked = f"The file says that it was exported with precision={made!r}. "
            fault = dataclasses.replace(fault, detail=asked + fault.detail)
    return Explanation(rows, layers.rows, fault, tuple(notes))


@dataclasses.dataclass(frozen=True)
class _Told:
    """What a file tells of itself: the opset to export with again, and its metadata."""

    opset: int
    metadata: dict[str, str]

    @classmethod
    def of(cls, path: Path) -> "_Told":
        proto = onnx.load(path, load_external_data=False)
        found = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
        opset = found[0] if found and found[0] in OPSETS else DEFAULT_OPSET
        return cls(opset, {entry.key: entry.value for entry in proto.metadata_props})

    @property
    def is_of_this_version(self) -> bool:
        """Whether a fresh export is the same, being one by the same versions."""
        made_by = self.metadata.get(VERSION), self.metadata.get(KERAS)
        return made_by == (__version__, keras.__version__)

    @property
    def second(self) -> dict[str, str]:
        """What the metadata say under `CHANNELS_SECOND`."""
        return {key: self.metadata[key] for key in CHANNELS_SECOND if key in self.metadata}


def _exported(sampling: Sampling, told: _Told, stages: StageFiles) -> Iterator[StageFile]:
    """Return the stages of an export; of one like the file's, if none has been made."""
    inputs_second, outputs_second = channels_second(told.second)
    return stages.converted(
        sampling.model,
        told.second,
        input_signature=sampling.input_signature,
        opset=told.opset,
        precision=sampling.precision,
        inputs_as_nchw=inputs_second,
        outputs_as_nchw=outputs_second,
        samples=lambda: sampling.of_float16_file(inputs_second),
    )


@dataclasses.dataclass(frozen=True)
class _Graph:
    """A graph that a stage made, or the file, and what was folded in it."""

    stage: StageParity
    path: Path
    fold: FoldReport

    @property
    def moved(self) -> set[str]:
        """Operators that a batch norm was moved through, or so went into: they are rescaled."""
        rows = [row for row in self.fold.folds if row.through]
        return {node for row in rows for node in (*row.into, *row.through)}


class _Graphs:
    """The graphs of a fresh export's stages, in order, and the file behind them.

    Attributes:
        stages: As many as there are.
        file: The file.
        complete: Whether the stages are all.
    """

    def __init__(self, file: _Graph) -> None:
        self.file = file
        self.stages: list[_Graph] = []
        self.complete = False

    def judge(self, stages: Iterable[StageFile], expected: Expected, provider: str) -> None:
        for made in stages:
            rows = judge(made.path, expected, provider)
            self.stages.append(_Graph(_stage(made.stage, rows, plain=True), made.path, made.fold))
            self.file = dataclasses.replace(self.file, fold=made.fold)
        self.complete = True

    def name(self, path: Path) -> None:
        """Take another file for the file, in which its nodes have other names."""
        self.file = dataclasses.replace(self.file, path=path)

    @property
    def agree(self) -> bool:
        return all(graph.stage.passed for graph in (*self.stages, self.file))

    def suspect(self, differs: bool) -> tuple[_Graph, _Graph | None]:
        """Return the graph to search for the layer, and the one before it if they are alike.

        It is the first that differs; the file, if that is right, whatever has become of the export.
        """
        graphs, at = [*self.stages, self.file], len(self.stages)
        if differs:
            at = next((i for i, graph in enumerate(graphs) if not graph.stage.passed), at)
        # The file is like the last of all stages, and like no other.
        alike = at > 0 and (self.complete or at < len(self.stages))
        return graphs[at], graphs[at - 1] if alike else None


def _light(path: Path, folder: Path) -> Path:
    """Return a file of the same graph whose weights are apart, so that they stay on the disk."""
    if path.parent == folder or path.stat().st_size < HEAVY:
        return path
    light = folder / "file.onnx"
    write(ir.load(path), light, external_data=True)
    return light


def _compared(
    sampling: Sampling,
    expected: Expected,
    wrong: list[OutputParity],
    graph: _Graph,
    before: _Graph | None,
    trusted: bool,
) -> Layers:
    """Compare the layers of a graph, by the one before it where that has the same tensors."""
    references = {case.reference for case in expected.cases}
    if references != {FLOAT64}:
        raise ExportError(f"the truth is not float64: {' and '.join(sorted(references))}")
    alike = before is not None and before.stage.passed and graph.stage.stage in LIKE_BEFORE
    right = before.path if before is not None and alike else None
    signature = sampling.signature
    return compare_layers(
        sampling.model,
        signature,
        Searched(graph.path, right, trusted, graph.moved),
        worst_samples(expected, wrong, signature),
        expected.epsilon,
        wrong_outputs={row.name for row in wrong},
    )


def _stage(name: Stage, rows: Sequence[OutputParity], *, plain: bool) -> StageParity:
    """Sum up how a graph compares, with ONNX Runtime's optimisations off or at their default."""

    def errors(row: OutputParity) -> float:
        return row.onnx.max if plain else row.optimised.max

    passed = all(
        row.allows(row.onnx if plain else row.optimised) and (plain or row.passed) for row in rows
    )
    worst = max(rows, key=lambda row: errors(row) / row.tolerance)
    return StageParity(name, errors(worst), worst.name, passed)


def worst_samples(expected: Expected, wrong: list[OutputParity], signature: Signature) -> Samples:
    """Return the sample with the largest error, and another one; a fixed batch as it is."""
    case: Case = expected.cases[0]
    row = 0
    if wrong:
        worst = max(wrong, key=lambda row: row.worst.max / row.tolerance)
        case = next(case for case in expected.cases if case.name == worst.case)
        row = worst.worst.index[0] if worst.worst.index else 0
    batches = case.batches
    for batch in batches:
        count = len(batch[0]) if batch[0].ndim else 1
        if row < count or batch is batches[-1]:
            break
        row -= count
    if count <= LAYER_SAMPLES or not signature.is_batch_free:
        return batch
    rows = [row % count, (row + 1) % count]
    return [array[rows] for array in batch]


def _depends_on_batch_size(
    sampling: Sampling, expected: Expected, wrong: Sequence[OutputParity]
) -> bool:
    """Say whether Keras's answer for a sample depends on there being another one like it."""
    if not sampling.signature.is_batch_free:
        return False
    one = [array[:1] for array in worst_samples(expected, list(wrong), sampling.signature)]
    run, _ = in_keras(sampling.model, sampling.signature)
    try:
        alone, beside = run(one), run([np.concatenate([array, array]) for array in one])
    except Exception:  # running a model runs the code of every layer
        return False
    tolerance = {row.name: row.tolerance for row in wrong}
    return any(
        a.shape[:1] != (1,) or errors_of(b[:1], a, scale_of(b)).max > tolerance[name]
        for name, a, b in zip(expected.outputs, alone, beside, strict=True)
        if name in tolerance
    )
