"""What the layer accepts, and the one message for each thing that it does not.

BatchNormalization: `ARGUMENT` must RULE. Received: ARGUMENT=VALUE.
"""

import inspect
import math
from typing import Any

import keras

__all__ = ["check_options", "check_shape", "refusal", "renorm_arguments"]

KERAS_HAS_RENORM = "renorm" in inspect.signature(keras.layers.BatchNormalization).parameters


def refusal(argument: str, rule: str, **received: Any) -> ValueError:
    """Return the error for an argument that breaks a rule.

    Args:
        argument: Name of the argument.
        rule: Completes "must ...".
        **received: What was received, by name.
    """
    values = ", ".join(f"{name}={value}" for name, value in received.items())
    return ValueError(f"BatchNormalization: `{argument}` must {rule}. Received: {values}.")


def renorm_arguments(renorm: bool, **others: Any) -> dict[str, Any]:
    """Return those arguments of batch renormalisation that the installed Keras takes.

    Args:
        renorm: Whether to use it.
        **others: The arguments that mean something only with it.

    Returns:
        All of them, or none where Keras's layer does not have them: before 3.14.

    Raises:
        ValueError: If `renorm` is asked of a Keras that does not have it.
    """
    if KERAS_HAS_RENORM:
        return {"renorm": renorm, **others}
    if renorm:
        rule = "be False with a Keras older than 3.14, which brought it"
        raise refusal("renorm", rule, renorm=renorm, keras=keras.__version__)
    return {}


def check_options(layer: Any) -> None:
    """Refuse options of a layer that are out of range or make no sense together.

    Args:
        layer: The layer, with its options as attributes.

    Raises:
        TypeError: If an option that is a switch has another value.
        ValueError: If a number is out of range, or a combination has no meaning.
    """
    for name in ("bessel_correction", "skip_nonfinite", "fused"):
        value = getattr(layer, name)
        if not isinstance(value, bool) and not (name == "fused" and value is None):
            rule = "be None, True or False" if name == "fused" else "be True or False"
            raise TypeError(str(refusal(name, rule, **{name: repr(value)})))
    momentum, ghosts = layer.momentum, layer.ghost_batch_size
    if momentum is not None and not 0.0 <= momentum <= 1.0:  # also False for NaN
        raise refusal("momentum", "be None or in [0, 1]", momentum=momentum)
    if momentum is None and layer.renorm:
        raise refusal("momentum", "be a number where `renorm` is True", momentum=momentum)
    if not (math.isfinite(layer.epsilon) and layer.epsilon > 0.0):
        raise refusal("epsilon", "be finite and > 0", epsilon=layer.epsilon)
    if ghosts is None:
        return
    if not isinstance(ghosts, int) or ghosts < 1:
        raise refusal("ghost_batch_size", "be None or an int >= 1", ghost_batch_size=ghosts)
    if layer.renorm or layer.synchronized:
        raise refusal(
            "ghost_batch_size",
            "be None where `renorm` or `synchronized` is True",
            ghost_batch_size=ghosts,
            renorm=layer.renorm,
            synchronized=layer.synchronized,
        )


def check_shape(layer: Any, input_shape: Any) -> None:
    """Refuse an input shape that a layer cannot normalise.

    Args:
        layer: The layer, with its options as attributes.
        input_shape: Shape of the inputs, None for unknown sizes.

    Raises:
        ValueError: If `axis` is out of range, of unknown size, or, with ghost batches, the batch's.
    """
    shape, rank = tuple(input_shape), len(input_shape)
    if not -rank <= layer.axis < rank:
        rule = f"be in [{-rank}, {rank - 1}] for inputs of rank {rank}"
        raise refusal("axis", rule, axis=layer.axis, input_shape=shape)
    if shape[layer.axis] is None:
        rule = "be a dimension of known size; give the model an Input with its channels"
        raise refusal("axis", rule, axis=layer.axis, input_shape=shape)
    if layer.ghost_batch_size is not None and layer.axis % rank == 0:
        rule = "be None where `axis` is the batch axis"
        raise refusal("ghost_batch_size", rule, ghost_batch_size=layer.ghost_batch_size)
