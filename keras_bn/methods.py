"""Give layers other methods for the time of a block, and their own back, whatever happens."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["replaced_methods"]


@contextlib.contextmanager
def replaced_methods(methods: Iterable[tuple[Any, str, Callable[..., Any]]]) -> Iterator[None]:
    """Replace methods of layers for as long as the block runs.

    Args:
        methods: For each a layer, the method's name, and what is called instead.
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
