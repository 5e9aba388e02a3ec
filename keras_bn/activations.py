"""Activations that a batch norm applies itself, and those that the native kernel has inside.

`merge_activations` gives a batch norm the activation that alone reads it, in a model in place: the
activation's layer then passes its input on, as `InBatchNorm`, until `split_activations` undoes it.
What it leaves alone: batch norms that something else reads too, or that are an output of the model;
activations with several inputs, of another dtype, or with weights; layers outside a functional
model, whose readers nobody knows.
"""

from typing import Any

import keras
import tensorflow as tf

__all__ = [
    "InBatchNorm",
    "activation_function",
    "kernel_activation",
    "merge_activations",
    "split_activations",
]

# In the order of `LOOPS` in native/loops.inc, after no activation.
INSIDE = ("relu", "relu6", "leaky_relu", "silu", "hard_silu")
MERGED_LAYERS = (keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU)
# What those layers keep of their arguments.
ATTRIBUTES = ("activation", "negative_slope", "max_value", "threshold")


def kernel_activation(activation: Any) -> tuple[int, float] | None:
    """Return the number by which the native kernel knows an activation, and its slope below 0.

    Args:
        activation: A function of `keras.activations`, another function, a layer, or None.

    Returns:
        (0, 0.0) for None; None where the kernel does not have it.
    """
    if activation is None:
        return 0, 0.0
    for number, name in enumerate(INSIDE, 1):
        if activation is getattr(keras.activations, name):
            return number, 0.2 if name == "leaky_relu" else 0.0
    if type(activation) is keras.layers.LeakyReLU:
        return INSIDE.index("leaky_relu") + 1, float(activation.negative_slope)
    return None


def activation_function(number: int, negative_slope: float) -> Any:
    """Return the activation of a number as TensorFlow's operators."""
    return (
        tf.identity,
        tf.nn.relu,
        tf.nn.relu6,
        lambda x: tf.nn.leaky_relu(x, negative_slope),
        tf.nn.silu,
        keras.activations.hard_silu,
    )[number]


@keras.saving.register_keras_serializable(package="keras_bn")
class InBatchNorm(keras.layers.Layer):  # type: ignore[misc]
    """What stands where an activation was that a batch norm now applies: its input goes through.

    Args:
        merged: Config of the layer that stood here, as Keras serialises layers.
        **kwargs: As for every Keras layer.
    """

    def __init__(self, merged: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.merged = merged
        self.supports_masking = True
        self._build_at_init()

    def call(self, inputs: Any) -> Any:
        """Return the inputs."""
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild this layer."""
        return {**super().get_config(), "merged": self.merged}


def merge_activations(model: Any, cls: Any) -> list[str]:
    """Give each batch norm of a class the activation that alone reads it, in place.

    Args:
        model: A Keras model.
        cls: `BatchNormalization` of this package; its subclasses are left alone.

    Returns:
        The paths of the activations' layers.
    """
    layers = list(model._flatten_layers())
    outputs = {
        id(tensor._keras_history.operation)
        for part in layers
        if isinstance(part, keras.Model) and getattr(part, "outputs", None)
        for tensor in keras.tree.flatten(part.outputs)
    }
    merged = []
    for norm in layers:
        if type(norm) is not cls or not norm.built:
            continue
        if norm.activation is not None or id(norm) in outputs:
            continue
        reader = _only_reader(norm)
        if reader is None:
            continue
        vars(norm)["activation"] = _activation_of(reader)  # Keras tracks no layer after `build`
        config = keras.saving.serialize_keras_object(reader)
        reader.__class__ = InBatchNorm
        reader.merged = config
        merged.append(reader.path or reader.name)
    return merged


def split_activations(model: Any) -> None:
    """Undo `merge_activations`: every activation is a layer of its own again."""
    for layer in list(model._flatten_layers()):
        if type(layer) is not InBatchNorm or not layer._inbound_nodes:
            continue
        original = keras.saving.deserialize_keras_object(layer.merged)
        vars(layer._inbound_nodes[0].parent_nodes[0].operation)["activation"] = None
        layer.__class__ = type(original)
        del layer.merged
        for name in ATTRIBUTES:
            if hasattr(original, name):
                setattr(layer, name, getattr(original, name))


def _only_reader(norm: Any) -> Any:
    """Return the activation's layer that alone reads a batch norm, or None."""
    readers = {id(node.operation): node.operation for node in norm._outbound_nodes}
    if len(readers) != 1:
        return None
    (reader,) = readers.values()
    if type(reader) not in MERGED_LAYERS or _activation_of(reader) is None:
        return None
    sources = [parent for node in reader._inbound_nodes for parent in node.parent_nodes]
    if len(sources) != len(reader._inbound_nodes):  # an input of a model is no node's parent
        return None
    alone = all(node.operation is norm for node in sources)
    return reader if alone and reader.compute_dtype == norm.compute_dtype else None


def _activation_of(layer: Any) -> Any:
    """Return what a layer applies, as an activation of a batch norm; None where there is none."""
    if type(layer) is keras.layers.Activation:
        found = layer.activation
        return (
            None if found is keras.activations.linear or isinstance(found, keras.Layer) else found
        )
    if type(layer) is keras.layers.LeakyReLU:
        return keras.layers.LeakyReLU(layer.negative_slope, dtype=layer.dtype_policy)
    if layer.threshold or layer.negative_slope:
        return None
    known = {None: keras.activations.relu, 6.0: keras.activations.relu6}
    return known.get(layer.max_value)
