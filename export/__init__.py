"""Keras model -> ONNX file with every batch norm folded, and proof that the two agree.

    export_onnx(model, "model.onnx")

runs the stages of `stages/conversion.py`, writes the file and checks it (`pipeline.py`). The names
below are imported on first use, so that `import keras_bn.export` stays cheap.
"""

from typing import TYPE_CHECKING

from keras_bn.importing import attribute, why_not_found

if TYPE_CHECKING:
    from .errors import ExportError
    from .foreign.fold_any import fold_batch_norms
    from .parity.report import ParityError
    from .pipeline import check_parity, export_onnx
    from .report import ExportReport, Fold, FoldReport, OutputParity, ParityReport, Reason, Refusal

__all__ = [
    "ExportError",
    "ExportReport",
    "Fold",
    "FoldReport",
    "OutputParity",
    "ParityError",
    "ParityReport",
    "Reason",
    "Refusal",
    "check_parity",
    "export_onnx",
    "fold_batch_norms",
]

_MODULE_OF = {
    "ExportError": "errors",
    "ParityError": "parity.report",
    "check_parity": "pipeline",
    "export_onnx": "pipeline",
    "fold_batch_norms": "foreign.fold_any",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return attribute(__name__, _MODULE_OF.get(name, "report"), name)
    except ModuleNotFoundError as e:
        needed = why_not_found(e, "export")
        raise ModuleNotFoundError(f"keras_bn.export.{name} needs {needed}", name=e.name) from e
