"""Give layers, or modules, other functions for a block's time, and tell how TensorFlow runs it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

__all__ = [
    "call_of",
    "current_graph",
    "eager_functions",
    "is_compiled_by_xla",
    "is_in_vectorized_map",
    "replaced_methods",
]


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
