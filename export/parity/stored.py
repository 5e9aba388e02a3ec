"""The weights in a file, beside those of a fresh export of the same model -> a fault, or none.

Samples show little of a large table, and nothing of a weight that meets only zeros; the weights
themselves show both. Only a file by the same versions can be asked: others may store other weights.
"""

from pathlib import Path

import keras
import numpy as np
import onnx_ir as ir

from ..naming import LayerPaths
from .measure import errors_of, scale_of
from .report import Fault
from .rule import FLOOR

__all__ = ["fault_of_weights"]


def fault_of_weights(model: keras.Model, path: Path, right: Path, sentence: str) -> Fault | None:
    """Return a fault that names the first weight that differs; None if all agree.

    Args:
        model: The model.
        path: The file.
        right: The same model, exported anew. Weights in other dtypes or shapes are not compared.
        sentence: What the fault says first.
    """
    weights, fresh = (ir.load(file).graph.initializers for file in (path, right))
    for name in [name for name in weights if name in fresh]:
        error = _error(fresh[name].const_value, weights[name].const_value)
        if error:
            layer = name.rpartition("/")[0]
            layers = (layer,) if layer in LayerPaths(model).layers() else ()
            detail = (
                f"{sentence}. On the samples it agrees, but weight {name!r} differs from that of "
                f"the fresh export by {error:.1e} of its scale."
            )
            return Fault("file", layers, name, detail)
    return None


def _error(right: ir.TensorProtocol | None, stored: ir.TensorProtocol | None) -> float:
    """Return the largest error relative to the scale; 0 if rounding explains it."""
    if right is None or stored is None:
        return 0.0
    truth, found = right.numpy(), stored.numpy()
    if found.dtype != truth.dtype or found.dtype.kind != "f" or found.shape != truth.shape:
        return 0.0
    error = errors_of(truth, found, scale_of(truth)).max
    return error if error > FLOOR * np.finfo(found.dtype).eps else 0.0
