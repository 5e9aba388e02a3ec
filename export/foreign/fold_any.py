"""Fold the batch norms of an ONNX model, whoever made it.

    folded, report = fold_batch_norms("resnet.onnx")

opens a model (`opening.py`), sees what of it is left whole (`whole.py`), makes the rest ready and
takes that back afterwards (`working_copy.py`). In between, clamps and the scalar arithmetic around
them become HardSigmoid (`stages/simplify/hard_sigmoid.py`), and `stages/folding/fold.py` walks. A
model in which nothing changes is given back as it is, to the last byte.
"""

import os
from collections.abc import Iterator
from typing import overload

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..errors import ExportError, one_line
from ..files.wire import skeleton
from ..graph.operators import count_operators
from ..stages.folding.fold import fold
from ..stages.folding.report import Fold, FoldReport
from ..stages.folding.savings import saved_by
from ..stages.folding.tensors import name_of
from ..stages.simplify.editor import Editor
from ..stages.simplify.fused import fused
from ..stages.simplify.gated_sum import clamp_gated_sums
from ..stages.simplify.hard_sigmoid import Written, hard_sigmoids
from ..stages.simplify.pairs import cancel_pairs
from ..stages.simplify.runtime_traps import avoid_runtime_traps, avoid_slow_padding
from ..stages.simplify.shapes.inference import known_shapes
from .opening import Opened, open_model
from .origin import invalid_model
from .whole import refusals_in, refusals_in_functions, why_whole
from .working_copy import WorkingCopy

__all__ = ["fold_batch_norms", "fold_opened", "why_invalid"]


@overload
def fold_batch_norms(
    model: onnx.ModelProto, *, freeze: bool = ..., check: bool = ...
) -> tuple[onnx.ModelProto, FoldReport]: ...
@overload
def fold_batch_norms(
    model: ir.Model | str | os.PathLike[str], *, freeze: bool = ..., check: bool = ...
) -> tuple[ir.Model, FoldReport]: ...
def fold_batch_norms(
    model: onnx.ModelProto | ir.Model | str | os.PathLike[str],
    *,
    freeze: bool = False,
    check: bool = False,
) -> tuple[onnx.ModelProto | ir.Model, FoldReport]:
    """Fold every batch norm, and every constant Mul, Add, Sub or Div, that exact algebra lets go.

    Names, types, shapes and order of the graph's inputs and outputs stay, and so do its metadata,
    opsets, functions and documentation; there are never more nodes than before.

    Args:
        model: An ONNX model from any exporter, opset 9 or newer: a path, an `onnx.ModelProto` or
            an `onnx_ir.Model`. Stays unchanged.
        freeze: Whether weights that are inputs too, which a caller may replace from version 4 of
            the IR on, are constants from now on, and inputs no more.
        check: Whether to run both in ONNX Runtime and judge the folded one by the original in
            float64; see docs/parity.md.

    Returns:
        The folded model, of the kind given, an `onnx_ir.Model` for a path; the one given itself if
        nothing was changed. And one row for each affine operator found: folded, or left and why.

    Raises:
        TypeError: If `model` is something else.
        ExportError: If the model cannot be read, or is not a whole and valid ONNX model.
        ExportError: If a weight is in a file outside the model's folder, or that is too short.
        ExportError: If `model` is a path, and `onnx_ir` cannot hold what is in the file.
        ExportError: If `check` is asked for and ONNX Runtime cannot run the model.
        ParityError: If `check` is asked for and finds that the two differ.

    Example:
        >>> import onnx, keras_bn.export
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     g (float[N,1,8,8] x) => (float[N,2,8,8] y)
        ...     <float[2,1,1,1] w = {1, 2}, float[2,1,1] k = {3, 4}>
        ...     { c = Conv(x, w) y = Mul(c, k) }
        ... ''')
        >>> folded, report = keras_bn.export.fold_batch_norms(model)
        >>> [node.op_type for node in folded.graph.node], str(report.folds[0])
        (['Conv'], 'Mul y: backward into c')
    """
    opened = open_model(model)
    folded, report = fold_opened(opened, freeze=freeze)
    if check and folded is not None:
        from ..parity.graphs.proof import prove_fold  # imports ONNX Runtime

        prove_fold(model, folded)
    if isinstance(model, onnx.ModelProto):
        return (model if folded is None else _as_proto(folded, model)), report
    if folded is None and opened.lost:
        raise ExportError(
            f"fold: onnx_ir cannot hold {' and '.join(opened.lost)}. Received: {opened.source}, "
            "which has them. Pass onnx.load(path) instead of the path."
        )
    return (opened.model if folded is None else folded), report


def _as_proto(folded: ir.Model, given: onnx.ModelProto) -> onnx.ModelProto:
    """Serialise a folded model, without what onnx_ir adds or writes in another way."""
    proto = ir.to_proto(folded)
    described = {value.name for value in given.graph.value_info}
    added = {tensor.name for tensor in proto.graph.initializer} - described
    kept = [value for value in proto.graph.value_info if value.name not in added]
    del proto.graph.value_info[:], proto.functions[:]
    proto.graph.value_info.extend(kept)
    proto.functions.extend(given.functions)
    return proto


def fold_opened(opened: Opened, *, freeze: bool = False) -> tuple[ir.Model | None, FoldReport]:
    """Fold a model that has been opened.

    Args:
        opened: The model; stays unchanged.
        freeze: As for `fold_batch_norms`.

    Returns:
        A folded copy, or None if nothing was changed; and the report.

    Raises:
        ExportError: If the model turns out not to be valid, or its operators do not fit together.
    """
    whole = why_whole(opened)
    if whole is not None:
        # What is lost leaves tensors behind that nothing makes, which cannot be copied.
        model = opened.model if opened.lost else opened.model.clone()
        return None, FoldReport((), tuple(refusals_in(model, *whole)))
    try:
        work = WorkingCopy.of(opened.model, freeze=freeze)
        graphs = (work.model.graph, *work.model.graph.subgraphs())
        clamps = [
            clamp for graph in graphs for clamp in hard_sigmoids(Editor(graph, known_shapes(graph)))
        ]
        folded, report = fold(work.model, kept_in=fused)
        shorter = _tidy(folded)
        folds = (*(row for clamp in clamps for row in _rows(clamp)), *report.folds)
        result = work.restored(folded) if folds or clamps or shorter or work.frozen else None
    except Exception as e:  # an attribute of the wrong type, an operator with too few inputs, ...
        raise invalid_model(opened.source, _what_is_wrong(opened, e)) from e
    refusals = (*report.refusals, *refusals_in_functions(opened.model))
    before = count_operators(opened.model.graph)
    after = before if result is None else count_operators(result.graph)
    return result, FoldReport(folds, refusals, before, after, len(work.replaceable))


def _rows(clamp: Written) -> Iterator[Fold]:
    """Yield a row for each affine operator that a HardSigmoid takes the place of."""
    for node in clamp.gone:
        if node.op_type in ("Add", "Div", "Mul", "Sub"):
            into = (name_of(clamp.node),)
            yield Fold(name_of(node), node.op_type, None, "clamp", into, (), *saved_by(node))


def _tidy(model: ir.Model) -> bool:
    """Remove what a batch norm has stood between, and keep off what ONNX Runtime would make of it.

    Args:
        model: The folded model; changed.

    Returns:
        Whether it is shorter for more than the fold.
    """
    changed = shorter = False
    for graph in (model.graph, *model.graph.subgraphs()):
        editor = Editor(graph, known_shapes(graph))
        changed |= cancel_pairs(editor)
        shorter |= clamp_gated_sums(editor)
        avoid_runtime_traps(editor)
        avoid_slow_padding(editor)
    if changed or shorter:
        RemoveUnusedNodesPass()(model)  # what computed shapes; weights as they were
    return shorter


def why_invalid(opened: Opened) -> str | None:
    """Say in words what `onnx.checker` finds wrong with a model; None if it finds nothing."""
    try:
        onnx.checker.check_model(skeleton(opened.model, {}).checked, full_check=True)
    except Exception as e:
        return str(e).strip().splitlines()[0]
    return None


def _what_is_wrong(opened: Opened, error: Exception) -> str:
    """Say in words what is wrong with a model: as `onnx.checker` does, if it finds something."""
    found = why_invalid(opened)
    if found is not None:
        return found
    place = next(iter(getattr(error, "__notes__", ())), "its operators")
    return f"{place}: sizes, types or attributes do not fit together ({one_line(error)})"
