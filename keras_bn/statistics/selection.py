"""Which batch-norm layers of a model can be observed and given new statistics.

Left alone, each with its reason: layers that are not built, whose class overrides `call`, that are
frozen (unless asked for), or that run inside the loop of a recurrent layer.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from keras_bn.interception import has_batch_norm_call

__all__ = ["FROZEN", "HIDDEN", "Layers", "batch_norm_layers"]

FROZEN = "it is frozen (`trainable=False`)"
HIDDEN = "it runs inside a loop or a branch of the graph, where its input cannot be seen"

Layers = Sequence[Any] | Callable[[Any], bool] | None


def batch_norm_layers(
    where: str,
    model: Any,
    *,
    layers: Layers = None,
    include_frozen: bool = True,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Find the batch-norm layers of a model, Keras's and this package's, at any depth.

    Args:
        where: Name of the function that was called, for messages.
        model: Any Keras model that is built.
        layers: Which ones: None for all; names, paths or the layers themselves; or a function of a
            layer that says whether it is wanted.
        include_frozen: Whether to take layers with `trainable=False` too.

    Returns:
        The layers by path, and the reason for each that is left alone. A path that several layers
        share gets "#2", "#3", ... .

    Raises:
        TypeError: If `model` is not a Keras model, or `layers` nothing that names layers.
        ValueError: If the model is not built, has no batch-norm layer, or `layers` names one that
            it does not have.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"{where}: `model` must be a keras.Model. Received: {type(model).__name__}."
        )
    found: dict[str, Any] = {}
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            path = layer.path or layer.name
            same = sum(known.split("#")[0] == path for known in found)
            found[f"{path}#{same + 1}" if same else path] = layer
    if not found or not any(layer.built for layer in found.values()):
        have = "it has none" if not found and model.built else "it is not built yet"
        raise ValueError(
            f"{where}: `model` must have batch-norm layers. Received: {model.name!r}, {have}. "
            "A model without an Input is built by calling it on data."
        )
    wanted = _selected(where, found, layers)
    if not wanted:
        raise ValueError(
            f"{where}: `layers` must choose at least one batch-norm layer. Received: none of "
            f"{', '.join(found)}."
        )
    looped = {
        id(layer)
        for loop in model._flatten_layers()
        if isinstance(loop, keras.layers.RNN) and not loop.unroll
        for layer in loop._flatten_layers()
    }
    taken, left = {}, {}
    for path in wanted:
        reason = _why_left_alone(found[path], include_frozen)
        if id(found[path]) in looped:
            reason = HIDDEN  # the cell is called once in the open too, for its output's shape
        if reason is None:
            taken[path] = found[path]
        else:
            left[path] = reason
    return taken, left


def _selected(where: str, found: dict[str, Any], layers: Layers) -> list[str]:
    if layers is None:
        return list(found)
    if callable(layers) and not isinstance(layers, keras.Layer):
        return [path for path, layer in found.items() if layers(layer)]
    wanted = []
    choices = [layers] if isinstance(layers, str | keras.Layer) else layers
    if not isinstance(choices, Iterable):
        raise TypeError(
            f"{where}: `layers` must be None, a list of names, paths or layers, or a function of a "
            f"layer. Received: layers={layers!r}."
        )
    for choice in choices:
        paths = [
            path
            for path, layer in found.items()
            if (choice in (path, layer.name) if isinstance(choice, str) else choice is layer)
        ]
        if not paths:
            name = choice if isinstance(choice, str) else getattr(choice, "name", choice)
            raise ValueError(
                f"{where}: `layers` must name batch-norm layers of the model. Received: {name!r}. "
                f"It has {', '.join(found)}."
            )
        wanted += paths
    return [path for path in found if path in wanted]


def _why_left_alone(layer: Any, include_frozen: bool) -> str | None:
    if not has_batch_norm_call(layer):
        return f"its class, {type(layer).__name__}, has a `call` of its own"
    if not layer.built:
        return "it is not built yet; call the model on data first"
    return None if layer.trainable or include_frozen else FROZEN
