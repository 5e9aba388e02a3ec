"""An input of a model -> the layers that read it, and whether they expect pixels from 0 to 255.

Nested models are looked through, and so are layers and operations that pass values on as they are,
in inference: resizing, cropping, padding, augmentation, Dropout, Reshape, Flatten and the like.
Pixels are what a Rescaling reads, or a line of code that does the same, such as `x / 255.0` or a
`preprocess_input` of `keras.applications`.
"""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

__all__ = ["expects_pixels", "readers_of"]

AUGMENTING = "AlphaDropout AugMix CutMix Dropout GaussianDropout GaussianNoise MixUp".split()
RESHAPING = "CenterCrop Flatten Identity Permute RepeatVector Reshape Resizing".split()
PASSING_LAYERS = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if name.startswith(("Cropping", "Rand", "SpatialDropout", "ZeroPadding"))
    or name in AUGMENTING + RESHAPING
)
PASSING_OPERATIONS = frozenset({"Cast", "GetItem", "Reshape", "Stack", "Transpose"})
DIVISORS = 100.0, 256.0  # the smallest and the largest that turn pixels into numbers around 1
MEANS = 60.0, 200.0  # likewise of a channel's pixels


def readers_of(model: Any) -> dict[str, tuple[Any, ...]]:
    """Return the layers and operations that read each input, by its name, in the model's order.

    Args:
        model: Any model; of one that is not functional or sequential nothing is known.
    """
    functional = _functional(model)
    if functional is None:
        return {}
    return {
        str(tensor.name): tuple(_follow(tensor, functional.operations)[0])
        for tensor in keras.tree.flatten(functional.inputs)
    }


def expects_pixels(reader: Any) -> bool:
    """Say whether a layer or operation was made for numbers from 0 to 255."""
    if isinstance(reader, keras.layers.Rescaling):
        return True
    if isinstance(reader, keras.layers.Layer):
        return False
    arguments = reader._inbound_nodes[0].arguments
    first, *_ = operands = keras.tree.flatten((arguments.args, arguments.kwargs))
    constants = [
        np.abs(np.asarray(value, np.float64))
        for value in operands
        if not isinstance(value, keras.KerasTensor) and np.asarray(value).dtype.kind in "if"
    ]
    match type(reader).__name__:
        case "Divide" | "TrueDivide":
            return isinstance(first, keras.KerasTensor) and _within(constants, DIVISORS)
        case "Multiply":
            with np.errstate(divide="ignore"):
                return _within([1.0 / values for values in constants], DIVISORS)
        case "Add" | "Subtract":
            return _within(constants, MEANS)
    return False


def _within(constants: list[np.ndarray], limits: tuple[float, float]) -> bool:
    low, high = limits
    return bool(constants) and all(np.all((low <= c) & (c <= high)) for c in constants)


def _functional(model: Any) -> Any:
    """Return a model that has its operations listed; None if it has not."""
    functional = getattr(model, "_functional", None) or model  # a Sequential holds one
    known = getattr(functional, "inputs", None) and getattr(functional, "operations", None)
    return functional if known else None


def _follow(tensor: Any, operations: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Return what reads a tensor, and all tensors that hold its values, itself the first."""
    readers: list[Any] = []
    reached = [tensor]
    nodes = [(operation, node) for operation in operations for node in operation._inbound_nodes]
    for held in reached:  # which grows
        for operation, node in nodes:
            if not any(value is held for value in node.input_tensors):
                continue
            inner = _functional(operation) if isinstance(operation, keras.Model) else None
            if inner is not None and _is_called_as_built(inner, node):
                given = _given(inner, node)
                for place in (i for i, value in enumerate(given) if value is held):
                    found, passed = _follow(inner.inputs[place], inner.operations)
                    readers += found
                    outputs = zip(inner.outputs, node.output_tensors, strict=True)
                    reached += [outer for own, outer in outputs if any(own is t for t in passed)]
            elif _passes(operation):
                reached += [t for t in node.output_tensors if not any(t is r for r in reached)]
            else:
                readers.append(operation)
    return readers, reached


def _is_called_as_built(inner: Any, node: Any) -> bool:
    """Say whether a call has as many inputs and outputs as the model: its `call` may be another."""
    sizes = (node.input_tensors, inner.inputs), (node.output_tensors, inner.outputs)
    return all(len(outside) == len(inside) for outside, inside in sizes)


def _given(inner: Any, node: Any) -> Any:
    """Return the tensors that a model is called with, in the order of its inputs."""
    structure = node.arguments.args[0] if node.arguments.args else None
    names = [tensor.name for tensor in inner.inputs]
    if isinstance(structure, dict) and set(structure) == set(names):
        return [structure[name] for name in names]  # sorted by key otherwise
    return node.input_tensors


def _passes(operation: Any) -> bool:
    if isinstance(operation, keras.layers.Layer):
        return isinstance(operation, PASSING_LAYERS)
    return type(operation).__name__ in PASSING_OPERATIONS
