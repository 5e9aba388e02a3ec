"""Why a model that trains well predicts badly: batch statistics against stored statistics.

The same data run through the model twice: with every batch normalised by its own moments, as in
training, and with the stored statistics, as in inference. The outputs and the loss are compared,
and each layer, in the run with batch statistics: there every layer has the input that it had in
training, so that one layer's error does not show up as the next one's. `layer_gap.py` has the
layers' figures, `diagnosis.py` what they say about the cause.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_bn.reporting import DataReport, jsonable, table
from keras_bn.statistics.batches import check_data
from keras_bn.statistics.diagnosis import NOTABLE_GAP, Cause, Diagnosis, diagnose
from keras_bn.statistics.layer_gap import LayerGap, ObservedLayer
from keras_bn.statistics.observe import ObservedModel
from keras_bn.statistics.selection import batch_norm_layers
from keras_bn.statistics.tally import Tally
from keras_bn.statistics.training_only import TrainingRun

__all__ = ["GapReport", "OutputGap", "train_inference_gap"]

MEANING = (
    "gap: a layer's outputs by batch against those by stored statistics; 1 is all of the signal",
    "stored: of the average batch; batch noise: of a batch from the average one",
)


@dataclasses.dataclass(frozen=True)
class OutputGap:
    """How far one output with batch statistics is from that with stored statistics.

    Attributes:
        name: Name of the output.
        rms: Root mean square difference over the root mean square of the output.
        largest: Largest difference, in the output's units.
    """

    name: str
    rms: float
    largest: float


@dataclasses.dataclass(frozen=True)
class GapReport(DataReport):
    """What batch statistics change, and why; prints as a diagnosis with its evidence.

    Attributes:
        outputs: One entry for each output of the model.
        loss_with_batch_statistics: None if the model has no loss or the data have no targets.
        loss_with_stored_statistics: Likewise.
        layers: The layers in the order in which the model calls them.
        diagnoses: Likely causes; none if the two modes agree.
    """

    outputs: tuple[OutputGap, ...]
    loss_with_batch_statistics: float | None
    loss_with_stored_statistics: float | None
    layers: tuple[LayerGap, ...]
    diagnoses: tuple[Diagnosis, ...]

    @property
    def first(self) -> LayerGap | None:
        """The first layer that the model calls whose stored gap is notable; None if none is."""
        return next((layer for layer in self.layers if not layer.stored_gap <= NOTABLE_GAP), None)

    @property
    def worst(self) -> LayerGap | None:
        """The layer with the largest gap, NaN being the largest; None without layers."""
        return max(
            self.layers, key=lambda layer: np.nan_to_num(layer.gap, nan=np.inf), default=None
        )

    @property
    def _all_clear(self) -> str:
        if not self.layers:
            return "nothing to compare: no layer normalises by the batch in training"
        return "no cause for concern: at every layer, the stored statistics fit the batches"

    def _draw(self) -> Any:
        from keras_bn.statistics.plots import plot_gap

        return plot_gap(self.layers, NOTABLE_GAP)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data."""
        first, worst = self.first, self.worst
        data: dict[str, Any] = jsonable(dataclasses.asdict(self))
        return {**data, "first": first and first.layer, "worst": worst and worst.layer}

    def __str__(self) -> str:
        lines = [f"* {diagnosis}" for diagnosis in self.diagnoses]
        if not self.diagnoses:
            lines.append(f"* {self._all_clear}")
        lines += [
            f"output {output.name!r}: batch and stored statistics differ by {output.rms:.3g} of "
            f"its root mean square, {output.largest:.3g} at most"
            for output in self.outputs
        ]
        if self.loss_with_batch_statistics is not None:
            lines.append(
                f"loss: {self.loss_with_batch_statistics:.4g} with batch statistics, "
                f"{self.loss_with_stored_statistics:.4g} with stored statistics"
            )
        if self.worst is not None:
            first = self.first.layer if self.first else f"none above {NOTABLE_GAP}"
            lines.append(f"first layer to part: {first}; worst: {self.worst.layer}")
        rows = [
            (g.layer, f"{g.gap:.3f}", f"{g.stored_gap:.3f}", f"{g.batch_noise:.3f}")
            for g in self.layers
        ]
        lines += table(("layer", "gap", "stored", "batch noise"), rows, MEANING)
        return "\n".join([*lines, *self.left_alone()])


def train_inference_gap(
    model: keras.Model,
    data: Any,
    *,
    steps: int | None = None,
    batch_size: int = 32,
    verbose: int = 1,
) -> GapReport:
    """Run data with batch statistics and with stored statistics, and say why they differ.

    Frozen layers use their stored statistics in training too and are left out. Dropout is off in
    both runs; whether it is the cause is told by a third, of at most 8 batches, if there is one to
    be found. Memory grows by 12 bytes for each channel and batch; some 50 batches are enough, and
    with fewer than 4 an unusual batch or a too small one cannot be told.

    Args:
        model: A built Keras model with batch-norm layers of Keras or of this package. Compiled, its
            loss is compared as well, and its optimizer's step count is evidence.
        data: Arrays, `(x, y)` or `(x, y, sample_weight)` of arrays, a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, or an iterable of batches.
        steps: Number of batches to take; None for all.
        batch_size: Samples a batch, where `data` are arrays. Give that of training.
        verbose: 1 for a progress bar, 0 for none.

    Returns:
        Differences of outputs, loss and layers, and a diagnosis.

    Raises:
        TypeError: If `model` is not a Keras model, or `data` nothing that holds batches.
        ValueError: If the model has no batch-norm layers that are built, an option is out of range,
            or the data are empty, shorter than `steps` or without any usable batch.

    Example:
        >>> import keras, numpy as np, keras_bn
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
        >>> x = np.random.default_rng(0).normal(5.0, 2.0, (320, 2)).astype("float32")
        >>> keras_bn.train_inference_gap(model, x, verbose=0).diagnoses[0].cause.name
        'NEVER_UPDATED'
    """
    where = "train_inference_gap"
    found, unchanged = batch_norm_layers(where, model, include_frozen=False)
    cut: dict[str, Any] = {"batch_size": batch_size, "steps": steps}
    check_data(where, data, **cut)
    paths, targets = list(found), list(found.values())
    by_batch = ObservedModel(where, model, targets, by_batch=True, with_outputs=True)
    by_stored = ObservedModel(where, model, [], by_batch=False, with_outputs=True)
    in_training = TrainingRun(where, model, found)
    outputs, tally = _Outputs(model), Tally(where, verbose)
    seen = [ObservedLayer(path, layer) for path, layer in found.items()]
    for x, y, weights in tally.batches_of(data, **cut):
        batch_outputs, records = by_batch(x)
        if tally.take(x, records):
            outputs.add(batch_outputs, by_stored(x)[0], x, y, weights)
            batch = tally.batches + tally.skipped - 1
            in_training.keep(batch, x)
            for layer, uses in zip(seen, records, strict=True):
                layer.add(batch, uses)
    unchanged |= by_batch.not_observed(paths)
    layers = [seen[i] for i in by_batch.observed]
    gaps, diagnoses = diagnose(
        layers, _steps_taken(model), tally.samples, in_training.acting, in_training.observe
    )
    if not diagnoses:
        diagnoses = outputs.diagnoses()
    with_batch, with_stored = outputs.losses()
    return GapReport(
        outputs=outputs.gaps(),
        loss_with_batch_statistics=with_batch,
        loss_with_stored_statistics=with_stored,
        layers=gaps,
        diagnoses=diagnoses,
        unchanged=unchanged,
        **tally.counts(),
    )


class _Outputs:
    """The model's outputs in both modes, compared batch by batch."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._names: list[str] = []
        self._sums = np.zeros((3, 0))  # squared difference, squared output, number of values
        self._largest = np.zeros(0)
        self._losses = np.zeros(2)
        self._samples = 0

    def add(self, by_batch: Any, by_stored: Any, x: Any, y: Any, weights: Any) -> None:
        pairs = list(zip(tf.nest.flatten(by_batch), tf.nest.flatten(by_stored), strict=True))
        if not self._names:
            self._names = _output_names(self._model, by_batch)
            self._sums, self._largest = np.zeros((3, len(pairs))), np.zeros(len(pairs))
        for i, (batch, stored) in enumerate(pairs):
            batch, stored = (np.asarray(value).astype(np.float64) for value in (batch, stored))
            self._sums[:, i] += (((batch - stored) ** 2).sum(), (batch**2).sum(), batch.size)
            self._largest[i] = np.maximum(  # keeps NaN
                self._largest[i], np.abs(batch - stored).max(initial=0.0)
            )
        if y is not None and _has_loss(self._model):
            samples = len(tf.nest.flatten(y)[0])
            self._samples += samples
            for i, outputs in enumerate((by_batch, by_stored)):
                with keras.StatelessScope():  # metrics inside the loss keep their state
                    loss = self._model.compute_loss(
                        x=x, y=y, y_pred=outputs, sample_weight=weights, training=False
                    )
                self._losses[i] += samples * float(loss)

    def gaps(self) -> tuple[OutputGap, ...]:
        squared, scale, _ = self._sums
        rms = np.sqrt(np.divide(squared, scale, out=np.zeros_like(scale), where=scale != 0))
        values = zip(self._names, rms.tolist(), self._largest.tolist(), strict=True)
        return tuple(OutputGap(*value) for value in values)

    def diagnoses(self) -> tuple[Diagnosis, ...]:
        """Say so if an output is not finite though the layers' statistics are."""
        bad = [gap.name for gap in self.gaps() if not np.isfinite(gap.rms)]
        if not bad:
            return ()
        evidence = (
            f"{', '.join(bad)} {'has' if len(bad) == 1 else 'have'} values that are NaN or Inf."
        )
        advice = "Look for NaN or Inf in the weights behind the last batch norm."
        return (Diagnosis(Cause.OUTPUT_NOT_FINITE, (), evidence, advice),)

    def losses(self) -> tuple[float | None, float | None]:
        if self._samples == 0:
            return None, None
        with_batch, with_stored = (self._losses / self._samples).tolist()
        return with_batch, with_stored


def _has_loss(model: Any) -> bool:
    own = type(model).compute_loss is not keras.Model.compute_loss
    return bool(model.compiled) and (own or model.loss is not None)


def _output_names(model: Any, outputs: Any) -> list[str]:
    count = len(tf.nest.flatten(outputs))
    if isinstance(outputs, dict) and len(outputs) == count:
        return sorted(outputs)
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    names = list(getattr(model, "output_names", None) or [])
    return names if len(names) == count else [f"output_{i}" for i in range(count)]


def _steps_taken(model: Any) -> int | None:
    """Return how many steps the optimizer has made; None if that is not known."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    # By way of NumPy: under a tf.distribute strategy it is a mirrored variable.
    return int(keras.ops.convert_to_numpy(optimizer.iterations)) or None
