"""Fold the batch norms of an ONNX model, whoever made it.

    folded, report = fold_batch_norms("resnet.onnx")

opens a model (`opening.py`), sees what of it is left whole (`whole.py`), makes the rest ready and
takes that back afterwards (`working_copy.py`); in between is the walk of `stages/folding/fold.py`.
A model in which nothing folds is given back as it is, to the last byte.
"""

import os
from typing import overload

import onnx
import onnx_ir as ir

from ..errors import ExportError
from ..files.wire import skeleton
from ..stages.folding.fold import fold
from ..stages.folding.report import FoldReport
from .opening import Opened, open_model
from .origin import invalid_model
from .whole import refusals_in, refusals_in_functions, why_whole
from .working_copy import WorkingCopy

__all__ = ["fold_batch_norms", "fold_opened"]


@overload
def fold_batch_norms(model: onnx.ModelProto) -> tuple[onnx.ModelProto, FoldReport]: ...
@overload
def fold_batch_norms(model: ir.Model | str | os.PathLike[str]) -> tuple[ir.Model, FoldReport]: ...
def fold_batch_norms(
    model: onnx.ModelProto | ir.Model | str | os.PathLike[str],
) -> tuple[onnx.ModelProto | ir.Model, FoldReport]:
    """Fold every batch norm, and every constant Mul, Add, Sub or Div, that exact algebra lets go.

    Names, types, shapes and order of the graph's inputs and outputs stay, and so do its metadata,
    opsets, functions and documentation; there are never more nodes than before.

    Args:
        model: An ONNX model from any exporter, opset 9 or newer: a path, an `onnx.ModelProto` or
            an `onnx_ir.Model`. Stays unchanged.

    Returns:
        The folded model, of the kind given, an `onnx_ir.Model` for a path; the one given itself if
        nothing was folded. And one row for each affine operator found: folded, or left and why.

    Raises:
        TypeError: If `model` is something else.
        ExportError: If the model cannot be read, or is not a whole and valid ONNX model.
        ExportError: If a weight is in a file outside the model's folder, or that is too short.
        ExportError: If `model` is a path, and `onnx_ir` cannot hold what is in the file.

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
    folded, report = fold_opened(opened)
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


def fold_opened(opened: Opened) -> tuple[ir.Model | None, FoldReport]:
    """Fold a model that has been opened.

    Args:
        opened: The model; stays unchanged.

    Returns:
        A folded copy, or None if nothing was folded; and the report.

    Raises:
        ExportError: If the model turns out not to be valid.
    """
    whole = why_whole(opened)
    if whole is not None:
        # What is lost leaves tensors behind that nothing makes, which cannot be copied.
        model = opened.model if opened.lost else opened.model.clone()
        return None, FoldReport((), tuple(refusals_in(model, *whole)))
    try:
        work = WorkingCopy.of(opened.model)
        folded, report = fold(work.model)
    except Exception as e:  # an attribute of the wrong type, an operator with too few inputs, ...
        _require_valid(opened, e)
        raise
    refusals = (*report.refusals, *refusals_in_functions(opened.model))
    report = FoldReport(report.folds, refusals)
    return (work.restored(folded) if report.folds else None), report


def _require_valid(opened: Opened, error: Exception) -> None:
    """Raise what `onnx.checker` says of a model, if it has something to say."""
    try:
        onnx.checker.check_model(skeleton(opened.model, {}).checked, full_check=True)
    except Exception as e:
        raise invalid_model(opened.source, str(e).strip().splitlines()[0]) from error
