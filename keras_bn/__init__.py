"""Batch normalisation for Keras 3 on TensorFlow: fused, unbiased, and foldable on export.

Importing this package registers the layer with Keras, so that `keras.models.load_model` finds it.
It imports neither onnx nor tf2onnx nor onnxruntime; those belong to `keras_bn.export`.
"""

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING

from keras_bn.importing import attribute
from keras_bn.version import __version__

if TYPE_CHECKING:
    from keras_bn.convert import ConversionReport, use_fused_batch_norm, use_keras_batch_norm
    from keras_bn.kernels import Kernel, kernel
    from keras_bn.layer import BatchNormalization
    from keras_bn.statistics.diagnosis import Cause
    from keras_bn.statistics.gap import GapReport, train_inference_gap
    from keras_bn.statistics.importance import ImportanceWeights, importance_weights
    from keras_bn.statistics.monitor import CovariateShiftMonitor
    from keras_bn.statistics.population import (
        StatisticsReport,
        adapt_statistics,
        estimate_population_statistics,
    )
    from keras_bn.statistics.shift import CovariateShiftReport, measure_covariate_shift

__all__ = [
    "BatchNormalization",
    "Cause",
    "ConversionReport",
    "CovariateShiftMonitor",
    "CovariateShiftReport",
    "GapReport",
    "ImportanceWeights",
    "Kernel",
    "StatisticsReport",
    "__version__",
    "adapt_statistics",
    "estimate_population_statistics",
    "importance_weights",
    "kernel",
    "measure_covariate_shift",
    "train_inference_gap",
    "use_fused_batch_norm",
    "use_keras_batch_norm",
]

_MODULE_OF = {
    "BatchNormalization": "layer",
    "Cause": "statistics.diagnosis",
    "ConversionReport": "convert",
    "CovariateShiftMonitor": "statistics.monitor",
    "CovariateShiftReport": "statistics.shift",
    "GapReport": "statistics.gap",
    "ImportanceWeights": "statistics.importance",
    "Kernel": "kernels",
    "StatisticsReport": "statistics.population",
    "adapt_statistics": "statistics.population",
    "estimate_population_statistics": "statistics.population",
    "importance_weights": "statistics.importance",
    "kernel": "kernels",
    "measure_covariate_shift": "statistics.shift",
    "train_inference_gap": "statistics.gap",
    "use_fused_batch_norm": "convert",
    "use_keras_batch_norm": "convert",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return attribute(__name__, _MODULE_OF[name], name)


# Python imports this package before the command line's own module. TensorFlow takes seconds to
# import, and `keras-bn --help` or a misspelt file name should not wait for it: in a process that
# was started as the tool, the layer is imported on first use. `sys.argv[0]` is "-m" only while
# `python -m MODULE` looks its module up; another package's module may import this one meanwhile.
_PROGRAM = os.path.basename((sys.argv or [""])[0])
_STARTED_AS_TOOL = _PROGRAM in ("keras-bn", "keras-bn.exe") or (
    _PROGRAM == "-m" and any(word.split(".")[0] == "keras_bn" for word in sys.orig_argv[1:4])
)

# Without Keras there is nothing to register with, and ONNX files can still be folded and checked.
if not _STARTED_AS_TOOL and importlib.util.find_spec("keras") is not None:
    importlib.import_module("keras_bn.layer")  # registers it with Keras
