"""Swap Keras's batch-norm layers for this package's, and back, in place.

A layer keeps its identity: only its class changes. Weights, names, trainable flags, the optimizer
and every reference to the layer stay, and subclassed models, nested models and wrapped layers are
reached as well, which rebuilding a model from its config does not.

It refuses, and says so, what is not exactly one of the two classes, layers that are not built yet,
and layers with options that Keras's layer does not have.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_bn.activations import merge_activations as merge
from keras_bn.activations import split_activations
from keras_bn.layer import BatchNormalization

__all__ = ["ConversionReport", "use_fused_batch_norm", "use_keras_batch_norm"]

# The options of this package's layer, at the values that a converted layer gets.
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(BatchNormalization.__init__).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}

# Keras ties the `build` of the original class to an instance when it makes it.
NOT_BUILT = "it is not built yet; call the model on data first"


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        changed: Paths of the layers that have another class now.
        unchanged: Path and reason for each batch-norm layer that was left alone.
        merged: Paths of the activations that a batch norm applies now.
    """

    changed: tuple[str, ...]
    unchanged: dict[str, str]
    merged: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{len(self.changed)} batch-norm layers converted, {len(self.unchanged)} left alone"
        ]
        if self.merged:
            lines.append(f"  {len(self.merged)} activations merged into them")
        return "\n".join([*lines, *(f"  {path}: {why}" for path, why in self.unchanged.items())])


def use_fused_batch_norm(
    model: keras.Model, *, bessel_correction: bool = True, merge_activations: bool = False
) -> ConversionReport:
    """Turn every `keras.layers.BatchNormalization` of a model into this package's layer, in place.

    Args:
        model: A functional, sequential, nested or subclassed Keras model. Layers that are not
            built yet stay as they are; call a model without an Input on data first.
        bessel_correction: As for the layer. False keeps the running variance of stock Keras.
        merge_activations: Let each batch norm apply the activation that alone reads it, where both
            are layers of a functional model (`Activation`, `ReLU`, `LeakyReLU`). A training step
            is faster and keeps one tensor less. The output of that batch norm, such as
            `model.get_layer("bn").output`, is the activation's from then on.

    Returns:
        What was changed and what was not. Training, evaluation and prediction functions of the
        model are rebuilt when they are next used; it stays compiled.

    Raises:
        TypeError: If `model` is not a Keras layer or model.

    Example:
        >>> import keras, keras_bn
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(name="a")])
        >>> keras_bn.use_fused_batch_norm(model).changed
        ('sequential/a',)
    """

    def why_not(layer: keras.layers.BatchNormalization) -> str | None:
        if isinstance(layer, BatchNormalization):
            return "it is this package's layer already"
        if type(layer) is not keras.layers.BatchNormalization:
            return f"its class, {type(layer).__name__}, is derived from Keras's and may override it"
        return None if layer.built else NOT_BUILT

    def convert(layer: Any) -> None:
        layer.__class__ = BatchNormalization
        for name, value in DEFAULTS.items():
            setattr(layer, name, value)
        layer.bessel_correction = bool(bessel_correction)
        layer.batches_seen = None
        layer.start_counting_skips()

    report = _convert(model, why_not, convert)
    if not merge_activations:
        return report
    return replace(report, merged=tuple(merge(model, BatchNormalization)))


def use_keras_batch_norm(model: keras.Model) -> ConversionReport:
    """Turn every batch-norm layer of this package into Keras's own, in place.

    For handing a model to code that does not have this package. Inference stays the same; further
    training uses the biased running variance of stock Keras. Merged activations are layers of their
    own again.

    Args:
        model: A functional, sequential, nested or subclassed Keras model. Layers that are not
            built yet stay as they are; call a model without an Input on data first.

    Returns:
        What was changed and what was not: layers with `momentum=None`, `ghost_batch_size` or an
        `activation` of their own have no counterpart.

    Raises:
        TypeError: If `model` is not a Keras layer or model.
    """

    def why_not(layer: keras.layers.BatchNormalization) -> str | None:
        if not isinstance(layer, BatchNormalization):
            return "it is not this package's layer"
        if type(layer) is not BatchNormalization:
            return f"its class, {type(layer).__name__}, is derived from ours and may override it"
        if layer.momentum is None or layer.ghost_batch_size is not None:
            return "Keras's layer has no `momentum=None` and no `ghost_batch_size`"
        if layer.activation is not None:
            return "Keras's layer has no `activation`"
        return None if layer.built else NOT_BUILT

    def convert(layer: Any) -> None:
        vars(layer).setdefault("renorm", False)  # so far its class's, and Keras's has none
        layer.__class__ = keras.layers.BatchNormalization
        for name in (*DEFAULTS, "batches_seen", "_skips"):
            delattr(layer, name)

    if isinstance(model, keras.Layer):
        split_activations(model)
    return _convert(model, why_not, convert)


def _convert(
    model: keras.Model, why_not: Callable[[Any], str | None], convert: Callable[[Any], None]
) -> ConversionReport:
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"convert: `model` must be a keras.Model or layer. Received: {type(model).__name__}."
        )
    changed, unchanged = [], {}
    for layer in list(model._flatten_layers()):
        if isinstance(layer, keras.Model):  # compiled functions hold the old class's graph
            layer.train_function = layer.test_function = layer.predict_function = None
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        path, reason = layer.path or layer.name, why_not(layer)  # no path before it is built
        if reason is not None:
            unchanged[path] = reason
            continue
        convert(layer)
        layer._call_signature = inspect.signature(layer.call)  # Keras took it from the old class
        changed.append(path)
    return ConversionReport(tuple(changed), unchanged)
