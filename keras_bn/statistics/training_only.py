"""Run a model's first batches with dropout and the like on, as in training.

Dropout in front of a batch norm changes the variance that training saw (Li et al. 2019,
arXiv:1801.05134), so that stored statistics can fit the training data and yet not the same data in
inference. Whether that is why is measured: the moments with those layers on, against what is
stored.
"""

from typing import Any

import keras

from keras_bn.statistics.layer_gap import ObservedLayer
from keras_bn.statistics.observe import ObservedModel

__all__ = ["TrainingRun", "training_only_layers"]

MOST_BATCHES = 8  # enough for a gap that matters, and few enough to keep


def training_only_layers(model: Any) -> list[Any]:
    """Return the layers that draw random numbers and know whether they train, at any depth.

    Dropout, noise and augmentation, Keras's and others'. Those of recurrent layers are left out:
    they draw once for a whole series, and keep what they drew.
    """
    layers = model._flatten_layers
    recurrent = {
        id(inner)
        for layer in layers()
        if isinstance(layer, keras.layers.RNN)
        for inner in layer._flatten_layers()
    }
    return [
        layer
        for layer in layers()
        if layer._seed_generators
        and layer._call_has_training_arg
        and id(layer) not in recurrent
        and layer is not model
    ]


class TrainingRun:
    """The model as it is in training, to be run if need be.

    Attributes:
        acting: Names of the layers that act in training only.
    """

    def __init__(self, where: str, model: Any, found: dict[str, Any]) -> None:
        """Prepare to run a model.

        Args:
            where: Name of the function that was called, for messages.
            model: The model.
            found: Its batch-norm layers by path.
        """
        self._where, self._model, self._found = where, model, found
        self._layers = training_only_layers(model)
        self.acting = tuple(layer.name for layer in self._layers)
        self._kept: list[tuple[int, Any]] = []

    def keep(self, batch: int, inputs: Any) -> None:
        """Keep a batch, if it may be needed."""
        if self._layers and len(self._kept) < MOST_BATCHES:
            self._kept.append((batch, inputs))

    def observe(self) -> dict[str, ObservedLayer]:
        """Return the batch-norm layers by path, with what enters them in training."""
        if not self._kept:
            return {}
        run = ObservedModel(
            self._where,
            self._model,
            list(self._found.values()),
            by_batch=True,
            in_training=self._layers,
        )
        seen = [ObservedLayer(path, layer) for path, layer in self._found.items()]
        for batch, inputs in self._kept:
            for layer, uses in zip(seen, run(inputs)[1], strict=True):
                layer.add(batch, uses)
        for index in run.observed:
            seen[index].finish()
        return {seen[index].path: seen[index] for index in run.observed}
