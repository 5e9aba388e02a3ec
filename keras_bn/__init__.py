"""Batch normalisation for Keras 3 on TensorFlow: fused, unbiased, and foldable on export.

Importing this package registers the layer with Keras, so that `keras.models.load_model` finds it.
It imports neither onnx nor tf2onnx nor onnxruntime; those belong to `keras_bn.export`.
"""

import os
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

__all__ = [
    "BatchNormalization",
    "ConversionReport",
    "__version__",
    "use_fused_batch_norm",
    "use_keras_batch_norm",
]

__version__ = version("keras-bn")

# Python imports this package before the command line's own module. TensorFlow takes seconds to
# import, and `keras-bn --help` or a misspelt file name should not wait for it: in a process that
# was started as the tool, the layer is imported on first use. `sys.argv[0]` is "-m" only while
# `python -m MODULE` looks its module up; another package's module may import this one meanwhile.
_PROGRAM = os.path.basename((sys.argv or [""])[0])
_STARTED_AS_TOOL = _PROGRAM in ("keras-bn", "keras-bn.exe") or (
    _PROGRAM == "-m" and any(word.split(".")[0] == "keras_bn" for word in sys.orig_argv[1:4])
)

if TYPE_CHECKING or not _STARTED_AS_TOOL:
    from keras_bn.convert import ConversionReport, use_fused_batch_norm, use_keras_batch_norm
    from keras_bn.layer import BatchNormalization
else:

    def __getattr__(name: str) -> object:
        if name in __all__:
            from keras_bn import convert

            return getattr(convert, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
