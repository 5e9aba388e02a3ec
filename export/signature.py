"""What a model takes and gives: the structure, names, shapes and dtypes of its inputs and outputs.

It refuses a model whose inputs are unknown.
"""

from typing import Any

import keras
import tensorflow as tf

from .errors import ExportError

__all__ = ["input_specs", "output_names"]


def input_specs(model: keras.Model) -> Any:
    """Return the inputs of a functional or sequential model as a structure of `tf.TensorSpec`.

    Args:
        model: A Keras model with known inputs.

    Returns:
        The structure that the model is called with; each leaf has the name, shape and dtype of
        a Keras input.

    Raises:
        ExportError: If `model` is no Keras model, or was never built, or is subclassed.
    """
    if not isinstance(model, keras.Model):
        raise ExportError(
            "`model` must be a keras.Model. "
            f"Received: model={model!r} of type {type(model).__name__}."
        )
    if not model.built or not hasattr(model, "inputs") or not model.inputs:
        kind = "subclassed" if model.built else "never built"
        raise ExportError(
            "`model` must be a built functional or sequential model. "
            f"Received: model {model.name!r}, which is {kind}. Begin it with a keras.Input, or "
            "wrap it: x = keras.Input(shape); model = keras.Model(x, model(x))."
        )
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name), structure
    )


def output_names(model: keras.Model) -> list[str]:
    """Return the names that Keras gives a model's outputs, in order.

    An output is called after the layer that makes it; they are numbered, `output_0`, where that
    name is repeated or is also an input's.
    """
    if isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    else:
        names = [str(name) for name in model.output_names]
    inputs = {tensor.name for tensor in model.inputs}
    if len(set(names) - inputs) == len(names):
        return names
    return [f"output_{i}" for i in range(len(names))]
