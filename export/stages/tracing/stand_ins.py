"""While a model is traced, layers that ONNX has an operator for leave a stand-in in the graph.

Batch norm, for one, is a single operator in ONNX and ten in TensorFlow, and a recurrent layer is a
loop there. So for the time of the trace such layers have a method of their own (`feedforward.py`,
`recurrent.py`), which puts down the ONNX operator itself, and so have Keras's functions that
convolve (`convolutions.py`). Stock batch norm and this package's are therefore the same graph.

A layer of a subclass that overrides the method is traced as it is, and so is what runs inside a
vectorised loop. Threads other than the tracing one see no stand-in.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_bn.interception import is_in_vectorized_map, replaced_methods

from .convolutions import convolution_functions
from .feedforward import feedforward_method
from .recurrent import recurrent_method

__all__ = ["stand_ins"]


@contextlib.contextmanager
def stand_ins(model: keras.Model) -> Iterator[None]:
    """Let layers with an ONNX operator leave stand-ins for as long as the block runs.

    Args:
        model: The model about to be traced, in this thread.
    """
    replaced = []
    for layer in {id(layer): layer for layer in model._flatten_layers()}.values():
        found = feedforward_method(layer) or recurrent_method(layer)
        if found is not None:
            name, method = found
            replaced.append((layer, name, _in_this_thread(method, getattr(layer, name))))
    for module, name, function in convolution_functions():
        replaced.append((module, name, _in_this_thread(function, getattr(module, name))))
    with replaced_methods(replaced):
        yield


def _in_this_thread(method: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `method` for the thread that traces, and `original` where that cannot do."""
    tracing = threading.get_ident()

    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == tracing and not tf.executing_eagerly():
            result = None if is_in_vectorized_map() else method(*args, **kwargs)
            if result is not None:
                return result
        return original(*args, **kwargs)

    return call
