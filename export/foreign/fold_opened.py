"""An opened model, folded: what is found in its graphs, between ready and restored.

What of a model is left whole is seen first (`whole.py`); the rest is made ready, and that is taken
back afterwards (`working_copy.py`). In between, clamps and the scalar arithmetic around them become
HardSigmoid (`stages/simplify/hard_sigmoid.py`), and `stages/folding/fold.py` walks.
"""

from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..errors import invalid_model, one_line
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
from .opening import Opened
from .whole import refusals_in, refusals_in_functions, why_whole
from .working_copy import WorkingCopy

__all__ = ["fold_opened", "why_invalid"]


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
