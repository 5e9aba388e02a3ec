"""Why a file does not agree: which stage of the export, which layer.

The model is exported anew and the graph behind each stage compared with the truth: Keras, unfolded
ONNX, folded ONNX. The first that differs names the stage. If all agree, the file is no export of
the model as it is; if that agrees too with ONNX Runtime's optimisations off, those are at fault.
The graph of that stage, or the file, is then searched for the layer (`localise.py`).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir

from keras_bn.version import __version__

from ...errors import ExportError
from ...files.metadata import CHANNELS_SECOND, channels_second
from ...files.onnx_file import write
from ...files.whole_file import scratch_folder
from ...runtime.session import Samples
from ...signature import Signature
from ...stages.conversion import Converted, convert
from ...stages.folding.report import FoldReport
from ...stages.tracing.trace import DEFAULT_OPSET, OPSETS
from ..expected import Case, Expected, judge
from ..report import Fault, LayerParity, OutputParity, Stage, StageParity
from ..rule import FLOAT64
from ..samples.samples import samples_of
from .alignment import aligned
from .fault import AT_FAULT, fault_of
from .localise import Layers, compare_layers
from .stored import fault_of_content

__all__ = ["Explanation", "explain", "is_batch_free", "worst_samples"]

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
    model: keras.Model,
    signature: Signature,
    path: Path,
    expected: Expected,
    outputs: Sequence[OutputParity],
    *,
    input_signature: Any,
    inputs: Any,
    precision: Any,
) -> Explanation:
    """Compare the stages of a fresh export, and the layers of the first graph that differs.

    Args:
        model: The model.
        signature: What it is called with.
        path: The file.
        expected: What Keras makes of the inputs.
        outputs: How the file compares, on one execution provider.
        input_signature: As for `export_onnx`.
        inputs: Given samples; None if they were drawn.
        precision: As for `export_onnx`.
    """
    wrong = [row for row in outputs if not row.passed]
    kinds = {row.case for row in wrong} or {expected.cases[0].name}
    looked_at = dataclasses.replace(
        expected, cases=[case for case in expected.cases if case.name in kinds]
    )
    in_file = [row for row in outputs if row.case in kinds]
    notes: list[str] = []
    graphs: list[_Graph] = []
    layers, complete = Layers((), ()), False
    opset, metadata = _told(path)
    made_by = metadata.get("keras_bn.version"), metadata.get("keras_bn.keras")
    # A fresh export by the same versions is the same.
    of_this_version = made_by == (__version__, keras.__version__)
    second = {key: metadata[key] for key in CHANNELS_SECOND if key in metadata}
    with scratch_folder() as folder:
        try:
            for converted in _exported(model, opset, input_signature, inputs, precision, second):
                target = folder / f"{converted.stage}.onnx"
                as_traced = converted.stage == "tracing"  # channels last, whatever the file has
                names = {} if as_traced else second
                write(converted.graph, target, external_data=True, metadata=names)
                rows = judge(target, looked_at, outputs[0].provider)
                stage = _stage(converted.stage, rows, plain=True)
                graphs.append(_Graph(stage, target, converted.fold))
                del converted  # several graphs at once would be several times the weights
            complete = True
        except ExportError as e:
            notes.append(f"the stages could not be compared: {e}")
        fold = graphs[-1].fold if graphs else FoldReport((), ())
        graphs.append(_Graph(_stage("file", in_file, plain=True), path, fold))
        at = len(graphs) - 1
        if wrong:  # else the file is right, whatever has become of the export since
            at = next((i for i, graph in enumerate(graphs) if not graph.stage.passed), at)
        # The file is like the last of all stages, and like no other.
        before = graphs[at - 1] if at and (complete or at < len(graphs) - 1) else None
        # The file under the names that its layers have now.
        named = aligned(path, graphs[-2].path, folder, second) if complete else path
        if named is not None:
            graphs[-1] = dataclasses.replace(graphs[-1], path=named)
        try:
            graph = dataclasses.replace(graphs[at], path=_light(graphs[at].path, folder))
            trusted = of_this_version and at == len(graphs) - 1 and named is not None
            layers = _compared(model, signature, looked_at, wrong, graph, before, trusted)
        except ExportError as e:
            notes.append(f"the layers could not be compared: {e}")
        fault = None
        agreeing = complete and all(graph.stage.passed for graph in graphs)
        if agreeing and of_this_version and named is not None:
            fault = fault_of_content(model, named, graphs[-2].path, AT_FAULT["file"])
    stages = [*(graph.stage for graph in graphs), _stage("optimiser", in_file, plain=False)]
    failed = [stage.stage for stage in stages if not stage.passed]
    if failed and not wrong:
        notes.append(f"the file agrees, but a fresh export by these versions differs: {failed[0]}")
    if wrong or layers.first:
        overflown = precision != "keep" and any(np.isinf(row.onnx) for row in layers.first)
        unnamed: Stage = "precision" if overflown else "file"
        at_fault = failed[0] if wrong and failed else unnamed
        fault = fault_of(at_fault, layers, [row.name for row in wrong], graphs[at].fold)
        made = metadata.get("keras_bn.precision", precision)
        if made != precision:
            asked = f"The file says that it was exported with precision={made!r}. "
            fault = dataclasses.replace(fault, detail=asked + fault.detail)
    return Explanation(tuple(stages), layers.rows, fault, tuple(notes))


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


def _light(path: Path, folder: Path) -> Path:
    """Return a file of the same graph whose weights are apart, so that they stay on the disk."""
    if path.parent == folder or path.stat().st_size < HEAVY:
        return path
    light = folder / "file.onnx"
    write(ir.load(path), light, external_data=True)
    return light


def _compared(
    model: keras.Model,
    signature: Signature,
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
    return compare_layers(
        model,
        signature,
        graph.path,
        worst_samples(expected, wrong, signature),
        expected.epsilon,
        divisible=is_batch_free(signature),
        wrong_outputs={row.name for row in wrong},
        right=before.path if before is not None and alike else None,
        trusted=trusted,
        moved=graph.moved,
    )


def _exported(
    model: keras.Model,
    opset: int,
    input_signature: Any,
    inputs: Any,
    precision: Any,
    second: dict[str, str],
) -> Iterator[Converted]:
    """Export a model as the file was, stage by stage.

    `second` is what its metadata say under `CHANNELS_SECOND`.
    """
    inputs_second, outputs_second = channels_second(second)
    return convert(
        model,
        input_signature=input_signature,
        opset=opset,
        precision=precision,
        inputs_as_nchw=inputs_second,
        outputs_as_nchw=outputs_second,
        samples=lambda: samples_of(model, input_signature, inputs, inputs_second),
    )


def _told(path: Path) -> tuple[int, dict[str, str]]:
    """Return the opset to export with again, and the metadata, that a file tells of itself."""
    proto = onnx.load(path, load_external_data=False)
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    opset = versions[0] if versions and versions[0] in OPSETS else DEFAULT_OPSET
    return opset, {entry.key: entry.value for entry in proto.metadata_props}


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
    if count <= LAYER_SAMPLES or not is_batch_free(signature):
        return batch
    rows = [row % count, (row + 1) % count]
    return [array[rows] for array in batch]


def is_batch_free(signature: Signature) -> bool:
    """Say whether every input takes any number of samples."""
    return all(spec.shape.rank and spec.shape[0] is None for spec in signature.specs)
