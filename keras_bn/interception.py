"""Give layers, or modules, other functions for a block's time, and tell how TensorFlow runs it.

What stands in for the `call` of batch norm must not take the place of what a subclass does: a layer
is recognised by its `call`, Keras's own or one that this package has declared.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import keras
import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

__all__ = [
    "batch_norm_call",
    "call_of",
    "current_graph",
    "eager_functions",
    "has_batch_norm_call",
    "is_compiled_by_xla",
    "is_in_vectorized_map",
    "replaced_methods",
]

_BATCH_NORM_CALLS: list[Any] = [keras.layers.BatchNormalization.call]
Call = TypeVar("Call", bound=Callable[..., Any])


def batch_norm_call(call: Call) -> Call:
    """Declare a method to be what batch norm does, by which a layer is recognised as one."""
    _BATCH_NORM_CALLS.append(call)
    return call


def has_batch_norm_call(layer: Any) -> bool:
    """Say whether a layer is batch norm, Keras's or this package's, without a `call` of its own."""
    call = getattr(type(layer), "call", None)
    return any(call is known for known in _BATCH_NORM_CALLS)


@contextlib.contextmanager
def replaced_methods(methods: Iterable[tuple[Any, str, Callable[..., Any]]]) -> Iterator[None]:
    """Replace methods of layers, or functions of modules, for as long as the block runs.

    Args:
        methods: For each a layer or module, the name, and what is called instead.
    """
    before: list[tuple[Any, str, Any]] = []
    try:
        for layer, name, method in methods:
            before.append((layer, name, vars(layer).get(name)))
            vars(layer)[name] = method
        yield
    finally:
        for layer, name, method in reversed(before):
            if method is None:
                vars(layer).pop(name, None)
            else:
                vars(layer)[name] = method


def call_of(layer: Any) -> str:
    """Return the name of the method that Keras calls to run a layer."""
    return "call" if layer.quantization_mode is None else "quantized_call"


def current_graph() -> Any:
    """Return the graph that TensorFlow is tracing; None while it runs eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def is_compiled_by_xla() -> bool:
    """Say whether the code that runs is being traced for XLA (`jit_compile=True`)."""
    return bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def is_in_vectorized_map() -> bool:
    """Say whether the body of a `tf.vectorized_map` is being traced, which has no graph of its own.

    Keras's TimeDistributed uses one for series of unknown length.
    """
    return any(p.startswith("loop_body") for p in tf.get_current_name_scope().split("/"))


@contextlib.contextmanager
def eager_functions() -> Iterator[None]:
    """Let the functions of a model run, or be traced, as part of what calls them."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
