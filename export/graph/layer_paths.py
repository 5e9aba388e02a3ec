"""The paths of Keras layers, from the scopes that they open in TensorFlow's graph.

While Keras calls a layer it opens a scope of its name, which TensorFlow makes unique by a number:
the operators of layer `conv` of model `net` are called `net_1/conv_1/...`. This goes that way back.
"""

import re
from collections import Counter
from typing import Any

__all__ = ["LayerPaths"]

NUMBER = re.compile(r"_\d+$")  # that TensorFlow adds


class LayerPaths:
    """The Keras layers of a model, found by the scopes that they open.

    Args:
        model: A Keras model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._children: dict[int, dict[str, Any]] = {}
        self._uses = Counter(getattr(layer, "path", None) for layer in model._flatten_layers())

    def of(self, operator: str) -> str | None:
        """Return the path of the innermost layer that an operator's name says it is from.

        Args:
            operator: A name such as "net_1/block_1/conv_1/convolution".

        Returns:
            A path such as "block/conv", as in the paths of the layer's variables unless several
            layers share that; None if the operator is from no layer of the model.
        """
        root, *scopes = operator.split("/")
        layer, chain = self._model, []
        if NUMBER.sub("", root) != layer.name:
            return None
        for scope in scopes:
            inner = self._children_of(layer).get(NUMBER.sub("", scope))
            if inner is not None:
                layer = inner
                chain.append(layer.name)
        return self._path(layer, chain)

    def layers(self) -> dict[str, Any]:
        """Return all layers inside the model by the path that `of` gives to their operators."""
        found: dict[str, Any] = {}

        def collect(layer: Any, chain: list[str]) -> None:
            for child in self._children_of(layer).values():
                inner = [*chain, child.name]
                found.setdefault(self._path(child, inner), child)
                collect(child, inner)

        collect(self._model, [])
        return found

    def _path(self, layer: Any, chain: list[str]) -> str:
        path = getattr(layer, "path", None) if chain else None
        path = path if self._uses[path] == 1 else None
        return str(path or "/".join(chain) or layer.name)

    def _children_of(self, layer: Any) -> dict[str, Any]:
        if id(layer) not in self._children:
            inner = layer._flatten_layers(include_self=False, recursive=False)
            self._children[id(layer)] = {child.name: child for child in inner}
        return self._children[id(layer)]
