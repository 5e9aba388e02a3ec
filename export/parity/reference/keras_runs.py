"""A Keras model on batches, as it is or in float64.

A function from the arrays of a batch, in the model's order, to the arrays of its outputs, in the
model's order, as `runtime/session.py` makes one of an ONNX file.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras

from keras_bn.interception import eager_functions, replaced_methods

from ...runtime.session import Run, Samples
from ...signature import Signature, output_names
from .float64_weights import Float64Weights, computing_in_float64
from .refused import StoodIn, standing_in

__all__ = ["in_keras"]

DATA_LAYER = keras.layers.Rescaling.__base__  # called otherwise by other versions of Keras


def in_keras(
    model: keras.Model,
    signature: Signature,
    weights: Float64Weights | None = None,
    within: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    stood_in: StoodIn | None = None,
) -> tuple[Run, list[str]]:
    """Return a function that runs a model in inference and leaves its state alone.

    Args:
        model: The model.
        signature: What it is called with.
        weights: Its weights in float64, to run it in float64; None runs it as it is.
        within: Makes a context for each run.
        stood_in: Takes which of its operators TensorFlow refuses on this CPU.

    Returns:
        The function, and a list that holds the names of the outputs once it has run.
    """
    names: list[str] = []

    def run(batch: Samples) -> Samples:
        tensors = [keras.ops.convert_to_tensor(array) for array in batch]
        wide = contextlib.nullcontext() if weights is None else computing_in_float64(model)
        scope = keras.StatelessScope() if weights is None else weights.scope()
        # The trace of a function that was built by its own first call keeps the weights of then.
        standing = standing_in(model, stood_in or StoodIn())
        data = _casting_data(model)
        with eager_functions(), _whole_tracebacks(), wide, scope, standing, data, within():
            outputs = model(*signature.pack(tensors), training=False)
        names[:] = output_names(model, [spec.name for spec in signature.specs], outputs)
        return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]

    return run, names


def _casting_data(model: keras.Model) -> AbstractContextManager[None]:
    """Let preprocessing layers cast what they are given, as they do in a graph and so in `predict`.

    Called eagerly, a Resizing of integers returns integers, although it declares floats.
    """

    def casting(layer: Any) -> Callable[..., Any]:
        call = layer.call

        def called(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            given = keras.tree.map_structure(
                lambda x: keras.ops.cast(x, layer.compute_dtype), inputs
            )
            return call(given, *args, **kwargs)

        return called

    layers = {id(part): part for part in model._flatten_layers() if isinstance(part, DATA_LAYER)}
    return replaced_methods([(layer, "call", casting(layer)) for layer in layers.values()])


@contextlib.contextmanager
def _whole_tracebacks() -> Iterator[None]:
    """Let errors keep the frames of Keras, which say whose they are, and their own words."""
    filtered = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        yield
    finally:
        if filtered:
            keras.config.enable_traceback_filtering()
