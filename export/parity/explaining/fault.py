"""The stage at fault and the first layers that differ -> the fault, in a sentence."""

import dataclasses
from collections.abc import Iterable, Sequence

from ...stages.folding.report import FoldReport
from ..report import Cause, Fault, LayerParity

__all__ = ["AT_FAULT", "Layers", "fault_of"]

AT_FAULT: dict[Cause, str] = {
    "tracing": "Tracing is at fault: the graph that TensorFlow's operators become differs already",
    "layout": "Simplifying or layout is at fault: the graph agrees before and differs behind them",
    "folding": "Folding is at fault: the graph agrees unfolded and differs folded",
    "precision": "The precision is at fault: the graph agrees before its values become float16",
    "file": "The file is at fault: a fresh export of this model agrees, so it was changed, or "
    "comes from other weights, another model or another tool",
    "optimiser": "ONNX Runtime's optimisations are at fault: without them the file agrees",
    "keras": "Keras itself answers otherwise for a sample alone than beside its copy, so no file "
    "of a free batch size can agree: state `input_signature` with a batch size, or write sums with "
    "a tensor that is broadcast so that Keras does not take it for a bias",
}


@dataclasses.dataclass(frozen=True)
class Layers:
    """Every tensor of a file that was compared.

    Attributes:
        rows: In the file's order.
        first: Those that are wrong and are computed from nothing that is.
        last: Where there is none, those from which outputs that differ are computed.
    """

    rows: tuple[LayerParity, ...]
    first: tuple[LayerParity, ...]
    last: tuple[LayerParity, ...] = ()


def fault_of(stage: Cause, layers: Layers, outputs: Sequence[str], fold: FoldReport) -> Fault:
    """Return what is wrong, and where.

    Args:
        stage: What is at fault.
        layers: How the layers of its graph compare.
        outputs: Names of the outputs that differ.
        fold: What was folded in that graph.
    """
    sentence = AT_FAULT[stage]
    if stage in ("optimiser", "keras"):
        return Fault(stage, (), None, f"{sentence}.")
    if layers.first:
        row, *others = layers.first
        operator = row.value.partition(":")[0]
        moved = [f.layer for f in fold.folds if operator in (*f.into, *f.through)]
        names = tuple(dict.fromkeys((*row.folded, row.layer, *filter(None, moved))))
        beside = f", and {len(others)} others beside it" if others else ""
        detail = (
            f"{sentence}. The first layer that differs is {_either(names)}{beside}: tensor "
            f"{row.value!r} has an error of {row.onnx:.1e} of its scale {row.scale:.3g} (Keras "
            f"itself {row.keras:.1e}, allowed {row.tolerance:.1e}); all that it is computed from "
            "agrees."
        )
        return Fault(stage, names, row.value, detail)
    if layers.last:
        names = tuple(dict.fromkeys(row.layer for row in layers.last))
        detail = (
            f"{sentence}. All tensors of layers agree, up to {_either(names)}: what is wrong "
            f"stands between these and output {_either(dict.fromkeys(outputs))}, or outputs are "
            "exchanged."
        )
        return Fault(stage, names, outputs[0], detail)
    return Fault(stage, (), None, f"{sentence}; no layer could be named.")


def _either(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)
