"""While a model is traced, layers have names that TensorFlow takes for scopes.

Keras lets a layer be called `conv block 1`; TensorFlow's scopes have letters, digits and `_.-/>`
alone. Any other character is an underscore there, and another underscore keeps two layers apart.
The file has the names that the author gave.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import keras

__all__ = ["plain_names"]

OTHER = re.compile(r"[^A-Za-z0-9_.\-/>]")
START = re.compile(r"[A-Za-z0-9.]")


@contextlib.contextmanager
def plain_names(model: keras.Model) -> Iterator[None]:
    """Let all layers have names that are scopes for as long as the block runs.

    Args:
        model: The model, which is a layer too.
    """
    layers = {id(layer): layer for layer in model._flatten_layers()}.values()
    taken = {layer.name for layer in layers}
    before: list[tuple[Any, str]] = []
    try:
        for layer in layers:
            name = OTHER.sub("_", layer.name)
            if layer is model and not START.match(name):
                name = f"model{name}"
            if name == layer.name:
                continue
            while name in taken:
                name += "_"
            taken.add(name)
            before.append((layer, layer.name))
            layer.name = name
        yield
    finally:
        for layer, name in before:
            layer.name = name
