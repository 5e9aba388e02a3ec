"""What every layer of a Keras model gives while the model runs.

For the time of a run each layer has a `call` of its own that notes what it returns and which noted
tensors it was given; afterwards the layers are as they were. Only the values that are asked for are
kept, so that a large network can be looked at part by part.

Layers inside a recurrent or TimeDistributed layer run once a step, on tensors that an ONNX file
does not have; they are left out, and so is a layer that passes on what one inside it returns.
"""

import contextlib
import dataclasses
import weakref
from collections.abc import Callable, Container, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_bn.interception import call_of, replaced_methods

from ...graph.layer_paths import LayerPaths

__all__ = ["Intermediate", "Recorder"]

STEPWISE = (keras.layers.RNN, keras.layers.TimeDistributed)


@dataclasses.dataclass(frozen=True)
class Intermediate:
    """One tensor that one call of a layer returned.

    Attributes:
        layer: Path of the layer.
        kind: Its class.
        shape: Shape of the tensor.
        sources: Places, in the record, of the tensors that the call was given.
        values: The tensor; None if it was not asked for, or holds no floats.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    sources: tuple[int, ...]
    values: np.ndarray | None

    @property
    def bytes(self) -> int:
        """Its size in float64."""
        return 8 * int(np.prod(self.shape))


class Recorder:
    """Notes what the layers of a model return.

    Args:
        model: The model.
    """

    def __init__(self, model: keras.Model) -> None:
        stepwise = {
            id(inner)
            for layer in model._flatten_layers()
            if isinstance(layer, STEPWISE)
            for inner in layer._flatten_layers(include_self=False)
        }
        self.layers = {
            path: layer
            for path, layer in LayerPaths(model).layers().items()
            if id(layer) not in stepwise and not isinstance(layer, keras.layers.InputLayer)
        }

    @contextlib.contextmanager
    def recording(self, wanted: Container[int]) -> Iterator[list[Intermediate]]:
        """Let the layers note what they return for as long as the block runs.

        Args:
            wanted: Places, in the record, of the tensors whose values are kept.

        Yields:
            The record, which fills in the order of the calls' ends: the same in every run.
        """
        record: list[Intermediate] = []
        places: dict[int, tuple[Any, int]] = {}
        calls = [
            (layer, call_of(layer), _noting(path, layer, record, places, wanted))
            for path, layer in self.layers.items()
        ]
        with replaced_methods(calls):
            yield record


def _noting(
    path: str,
    layer: Any,
    record: list[Intermediate],
    places: dict[int, tuple[Any, int]],
    wanted: Container[int],
) -> Callable[..., Any]:
    """Return a layer's `call` that also notes what it returns."""
    original = getattr(layer, call_of(layer))

    def place_of(tensor: Any) -> int | None:
        found = places.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = original(*args, **kwargs)
        given = (place_of(tensor) for tensor in keras.tree.flatten((args, kwargs)))
        sources = tuple(place for place in given if place is not None)
        for tensor in keras.tree.flatten(outputs):
            if not isinstance(tensor, tf.Tensor) or not hasattr(tensor, "numpy"):
                continue  # such as a symbol, inside a loop
            if place_of(tensor) is not None:
                continue
            place = len(record)
            kept = tensor.dtype.is_floating and place in wanted
            values = keras.ops.convert_to_numpy(tensor) if kept else None
            places[id(tensor)] = weakref.ref(tensor), place
            shape = tuple(tensor.shape)
            record.append(Intermediate(path, type(layer).__name__, shape, sources, values))
        return outputs

    return call
