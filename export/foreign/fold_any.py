"""Fold the batch norms of an ONNX model, whoever made it, and prove the fold if that is asked for.

    folded, report = fold_batch_norms("resnet.onnx")

opens a model (`opening.py`) and folds it (`fold_opened.py`). A model in which nothing changes is
given back as it is, to the last byte.
"""

import os
from typing import overload

import onnx
import onnx_ir as ir

from ..errors import ExportError
from ..stages.folding.report import FoldReport
from .fold_opened import fold_opened
from .opening import open_model

__all__ = ["fold_batch_norms"]


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
