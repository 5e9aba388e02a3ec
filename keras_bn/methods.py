"""Give layers, or modules, other functions for the time of a block, and their own back after it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["call_of", "replaced_methods"]


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
