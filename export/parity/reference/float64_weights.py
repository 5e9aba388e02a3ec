"""A Keras model evaluated in float64: the very same layers, for the time of a call.

While the call runs, every layer's dtype policy is float64, or quantised from float64, the inputs of
functional models are declared float64, and a `keras.StatelessScope` holds float64 copies of the
variables. No layer is built again or copied, so that nested, shared, subclassed and custom layers
compute what they always do, also those that could not be made from their config. All is put back
when the call ends, be it by an error or an interrupt; the variables are never touched.

What TensorFlow does not compute in float64 itself has a stand-in (`kernels.py`, `refused.py`). What
a layer casts itself, such as a Lambda that says "float32", stays in that precision.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common.variables import AutocastScope

from keras_bn.interception import replaced_methods

from .kernels import resize

__all__ = ["Float64Weights", "computing_in_float64"]

NARROW = ("float16", "bfloat16", "float32")


class Float64Weights:
    """Copies of a model's floating variables in float64.

    Args:
        model: The model.
    """

    def __init__(self, model: keras.Model) -> None:
        self.values = [
            (variable, keras.ops.cast(variable.value, "float64"))
            for variable in model.variables
            if variable.dtype in NARROW
        ]

    def scope(self) -> keras.StatelessScope:
        """Return a scope in which the variables have these values."""
        scope = keras.StatelessScope()
        # Given to the scope's constructor they would be cast to the variable's own dtype.
        scope.state_mapping.update({id(variable): value for variable, value in self.values})
        return scope


@contextlib.contextmanager
def computing_in_float64(model: keras.Model) -> Iterator[None]:
    """Let the layers of a model compute in float64 for as long as the block runs.

    Args:
        model: The model; as it was, afterwards.
    """
    layers = {id(layer): layer for layer in _all_layers(model)}.values()
    tensors = {
        id(tensor): tensor
        for layer in layers
        for tensor in keras.tree.flatten(getattr(layer, "_inputs", None) or [])
        if isinstance(tensor, keras.KerasTensor) and tensor.dtype in NARROW
    }.values()
    policies = [vars(layer)["_dtype_policy"] for layer in layers]
    dtypes = [tensor.dtype for tensor in tensors]
    default = keras.config.floatx()
    try:
        keras.config.set_floatx("float64")
        for layer in layers:
            vars(layer)["_dtype_policy"] = _policy_in_float64(layer)
        for tensor in tensors:
            tensor._dtype = "float64"
        # Else a variable says that it is float32, whatever its value in a StatelessScope is.
        resizing = (tf.image, "resize", functools.partial(resize, tf.image.resize))
        with replaced_methods([resizing]), AutocastScope("float64"):
            yield
    finally:
        keras.config.set_floatx(default)
        for layer, policy in zip(layers, policies, strict=True):
            vars(layer)["_dtype_policy"] = policy
        for tensor, dtype in zip(tensors, dtypes, strict=True):
            tensor._dtype = dtype


def _policy_in_float64(layer: Any) -> Any:
    """Return a layer's policy in float64; quantised weights mean nothing to one that is not."""
    policy = vars(layer)["_dtype_policy"]
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        policy = policy[layer.path or ""]  # no path before it is built
    if policy.quantization_mode is None:
        return keras.DTypePolicy("float64")
    return type(policy).from_config({**policy.get_config(), "source_name": "float64"})


def _all_layers(model: Any) -> Iterator[Any]:
    """Yield a model's layers, and the functional model that a sequential one keeps inside."""
    for layer in model._flatten_layers():
        yield layer
        inner = getattr(layer, "_functional", None)
        if inner is not None:
            yield inner
