"""Internal covariate shift during training: how far each epoch moves what batch-norm layers see.

Ioffe & Szegedy call internal covariate shift the change in the distribution of a layer's inputs due
to the change of the parameters. So the data are held still: the same batches run through the model
after each epoch, every batch-norm layer normalising by the batch as in training, and the moments of
each layer's input are compared with those of one epoch before. With m and v the mean and variance
of a channel before and m' and v' now, epsilon added to both variances as in the layer:

    KL(now || before) = (v'/v + (m' - m)^2 / v - 1 - ln(v'/v)) / 2      nats, Gaussian

The figure of a layer is the mean over its channels, that of the model the mean over its layers.

The cost is bounded. Every epoch earns `budget` times its own duration, and as many of the batches
run as that pays for by the clock; an epoch whose share pays for none is not measured, and its share
is saved for the next. (A batch takes about half the time of a training step on as many samples.)
Not counted is what a call of `fit` pays once: tracing the model when Keras traces it too, and
running all batches before the first epoch.

It refuses a model without batch-norm layers that train: a frozen one normalises by its stored
statistics in training too, and here as well, but is not compared.

Reference:
    Ioffe & Szegedy 2015, arXiv:1502.03167, section 2.
"""

import itertools
import math
import time
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from keras_bn.statistics.batches import batch_size_of, check_data
from keras_bn.statistics.batches import batches as batches_of
from keras_bn.statistics.observe import ObservedModel
from keras_bn.statistics.pooling import Pool, gaussian_divergence
from keras_bn.statistics.selection import Layers, batch_norm_layers

__all__ = ["CovariateShiftMonitor"]

WHERE = "CovariateShiftMonitor"
KEY = "internal_covariate_shift"

Moments = dict[int, list[Pool | None]]  # by the index of the batch, for each layer


class CovariateShiftMonitor(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Measure internal covariate shift at the end of each epoch, for every batch-norm layer.

        KL(inputs at the end of the epoch || inputs at its beginning)      nats

    Each epoch's `logs` get "internal_covariate_shift", the layers' mean, and
    "internal_covariate_shift_worst", the largest of them, which `worst_layer` names. In the list of
    callbacks it must stand before those that read them, such as `CSVLogger`, `TensorBoard` and
    `EarlyStopping`. An epoch that the budget skipped repeats in `logs` what was measured last; the
    next value is the shift since then. A value is NaN in the histories for such an epoch, where
    values are not finite, and in the first epoch of a model that only this epoch builds.

    Training is the same to the last bit with and without it: neither a weight nor the optimizer nor
    a seed changes. Dropout and augmentation are off while it measures.

    Attributes:
        history: By layer path, in the order in which the model calls the layers, the values of all
            epochs; a further call of `fit` with the same model and layers appends to them.
        mean_history: The layers' mean, likewise.
        epochs: The epochs' numbers, counted from 0 in each call of `fit`, likewise.
        batches_compared: How many of the held batches each value rests on, likewise.
        unchanged: Path and reason for each batch-norm layer that is not measured.
        seconds: What measuring has cost in all.
        setup_seconds: The part of it that is not counted against the budget.
    """

    def __init__(
        self,
        data: Any,
        *,
        batches: int = 8,
        batch_size: int = 32,
        budget: float | None = 0.05,
        layers: Layers = None,
        log_layers: bool = False,
    ) -> None:
        """Hold the first batches of some data in memory.

        Args:
            data: Training data as a rule: arrays, `(x, y)` of arrays, a `tf.data.Dataset`, a
                `keras.utils.PyDataset`, or an iterable of batches. Targets and sample weights are
                not used. Should be preprocessed as in training.
            batches: Number of batches to hold, or fewer if the data end before.
            batch_size: Samples a batch, where `data` are arrays. Give that of training.
            budget: Share of the training time, in (0, 1], that measuring may take; None for no
                limit.
            layers: None for all batch-norm layers that train; names, paths or layers; or a function
                of a layer.
            log_layers: True adds "internal_covariate_shift/<layer path>" to `logs`, and so to the
                progress bar, for each layer; `history` has them all the same.

        Raises:
            TypeError: If `data` is nothing that holds batches.
            ValueError: If `batches`, `batch_size` or `budget` is out of range, or the data have no
                samples. When training begins, or after the first epoch if only that builds the
                model: if it has no batch-norm layer that trains and can be observed.

        Example:
            >>> import keras, numpy as np, keras_bn
            >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
            >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            >>> model.add(keras.layers.BatchNormalization(name="bn"))
            >>> model.compile("sgd", "mse", jit_compile=False)
            >>> monitor = keras_bn.CovariateShiftMonitor(x, budget=None)
            >>> fitted = model.fit(x, x[:, :1], epochs=2, callbacks=[monitor], verbose=0)
            >>> [bool(0 < shift < 0.1) for shift in fitted.history["internal_covariate_shift"]]
            [True, True]
        """
        super().__init__()
        if not _is_int(batches) or batches < 1:
            raise ValueError(f"{WHERE}: `batches` must be an int >= 1. Received: {batches=!r}.")
        is_number = isinstance(budget, float | np.floating) or _is_int(budget)
        if budget is not None and not (is_number and 0 < budget <= 1):
            raise ValueError(
                f"{WHERE}: `budget` must be None or in (0, 1]. Received: {budget=!r}. It is the "
                "share of the training time that measuring may take."
            )
        check_data(WHERE, data, batch_size=batch_size, steps=batches)
        first = itertools.islice(
            batches_of(WHERE, data, batch_size=batch_size, steps=None), int(batches)
        )
        self._held = [_copied(x) for x, _, _ in first if batch_size_of(x) > 0]
        if not self._held:
            raise ValueError(
                f"{WHERE}: `data` must have samples. Received: none in the first {batches} batches."
            )
        self.history: dict[str, list[float]] = {}
        self.mean_history: list[float] = []
        self.epochs: list[int] = []
        self.batches_compared: list[int] = []
        self.unchanged: dict[str, str] = {}
        self.seconds = self.setup_seconds = 0.0
        self._layers, self._log_layers = layers, log_layers
        self._logged: dict[str, float] = {}  # when it was last measured
        self._budget = _Budget(budget)
        self._observed: ObservedModel
        self._observed_for: tuple[Any, ...] = ()
        self._history_of: Any = None
        self._order: list[int] = []  # of the observed layers, as the model calls them
        self._before: Moments | None = None
        self._epoch_start = 0.0

    def plot(self) -> Any:
        """Draw the shift over the epochs; needs the extra `plots`.

        Returns:
            A matplotlib figure.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If no epoch has ended yet.
        """
        from keras_bn.statistics.plots import plot_monitor

        return plot_monitor(self.history, self.mean_history)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Measure what the first epoch will be compared with, if the model is built already."""
        del logs
        self._before = None
        if _is_built(self.model):
            self._set_up()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        del epoch, logs
        self._epoch_start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure, compare and add to `logs`."""
        self._budget.earn(time.perf_counter() - self._epoch_start)
        if self._before is None:
            self._set_up()
            shifts, compared = [math.nan] * len(self.history), 0
        else:
            shifts, compared = self._measure(self._before)
        finite = [shift for shift in shifts if math.isfinite(shift)]
        mean = math.fsum(finite) / len(finite) if finite else math.nan
        for values, shift in zip(self.history.values(), shifts, strict=True):
            values.append(shift)
        self.mean_history.append(mean)
        self.epochs.append(epoch)
        self.batches_compared.append(compared)
        if compared or not self._logged:
            self._logged = self._to_log(mean)
        if logs is not None:
            logs.update(self._logged)

    @property
    def worst_layer(self) -> str | None:
        """Path of the layer with the largest shift in the last epoch that was measured."""
        latest_first = enumerate(reversed(self.mean_history))
        epoch = next((i for i, mean in latest_first if not math.isnan(mean)), None)
        if epoch is None:
            return None
        shifts = {path: values[-1 - epoch] for path, values in self.history.items()}
        return max(shifts, key=lambda path: np.nan_to_num(shifts[path], nan=-1.0))

    def _to_log(self, mean: float) -> dict[str, float]:
        """Return the entries of `logs` for the last epoch of the histories."""
        shifts = {path: values[-1] for path, values in self.history.items()}
        worst = max((x for x in shifts.values() if math.isfinite(x)), default=math.nan)
        layers = {f"{KEY}/{path}": shift for path, shift in shifts.items()}
        return {KEY: mean, f"{KEY}_worst": worst, **(layers if self._log_layers else {})}

    def _set_up(self) -> None:
        """Find the layers, run all batches, and time one of them."""
        start = time.perf_counter()
        found, self.unchanged = batch_norm_layers(
            WHERE, self.model, layers=self._layers, include_frozen=False
        )
        if not found:
            self._refuse_model()
        # Keras drops its training function when the model has to be traced again.
        key = (self.model, self.model.train_function, *found.values())
        if not _are_same(key, self._observed_for):
            self._observed = ObservedModel(WHERE, self.model, list(found.values()), by_batch=True)
            self._observed_for = key
        before = {index: self._moments(x) for index, x in enumerate(self._held)}
        warm = time.perf_counter()
        self._moments(self._held[0])
        self._budget.start(time.perf_counter() - warm)
        self._before = before
        self._name_layers(list(found))
        seconds = time.perf_counter() - start
        self.seconds += seconds
        self.setup_seconds += seconds

    def _name_layers(self, paths: list[str]) -> None:
        """Start the histories, unless the last call of `fit` was about the same layers."""
        self._order = list(self._observed.observed)
        self.unchanged |= self._observed.not_observed(paths)
        if not self._order:
            self._refuse_model()
        called = [paths[i] for i in self._order]
        if self.model is not self._history_of or called != list(self.history):
            self._history_of = self.model
            self.history = {path: [] for path in called}
            self.mean_history, self.epochs, self.batches_compared = [], [], []
            self._logged = {}

    def _refuse_model(self) -> NoReturn:
        reasons = "; ".join(f"{path}: {why}" for path, why in self.unchanged.items())
        raise ValueError(
            f"{WHERE}: `model` must have batch-norm layers that train and can be observed. "
            f"Received: {self.model.name!r}, which has none such: {reasons}."
        )

    def _measure(self, before: Moments) -> tuple[list[float], int]:
        """Run what the budget pays for; return the layers' shifts and the batches compared."""
        start = time.perf_counter()
        now: Moments = {}
        for index, x in enumerate(self._held):
            if not self._budget.affords(time.perf_counter() - start):
                break
            now[index] = self._moments(x)
        common = [index for index in now if index in before]
        shifts = [
            _divergence(
                [before[index][i] for index in common],
                [now[index][i] for index in common],
                self._observed.layers[i].epsilon,
            )
            for i in self._order
        ]
        self._before = now or before
        seconds = time.perf_counter() - start
        self._budget.spend(seconds, len(now))
        self.seconds += seconds
        return shifts, len(common)

    def _moments(self, x: Any) -> list[Pool | None]:
        """Return the moments of each layer's input in a batch; None where they are of no use."""
        _, records = self._observed(x)
        pools = []
        for layer, uses in zip(self._observed.layers, records, strict=True):
            finite = all(np.isfinite(array).all() for record in uses for array in record)
            pool = Pool(layer.moving_mean.shape[0])
            if finite:
                pool.add_all(uses)
            pools.append(pool if (pool.total > 0).all() else None)
        return pools


class _Budget:
    """Seconds to spend: a share of those that training takes."""

    def __init__(self, share: float | None) -> None:
        self._share = share
        self._left = self._cost = 0.0

    def start(self, cost: float) -> None:
        """Say how many seconds a batch takes; what was saved before is lost, a debt is not."""
        self._cost = cost
        self._left = min(self._left, 0.0)

    def earn(self, seconds: float) -> None:
        """Add the share of an epoch."""
        self._left += seconds * (self._share or 0.0)

    def affords(self, spent: float) -> bool:
        """Say whether another batch can be paid for after so many seconds."""
        return self._share is None or self._left - spent >= self._cost

    def spend(self, seconds: float, batches: int) -> None:
        """Pay for what was run; save no more than one batch takes, lest a later epoch be slow."""
        if batches:
            self._cost = seconds / batches
        self._left = min(self._left - seconds, self._cost)


def _is_built(model: Any) -> bool:
    layers = [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    return bool(model.built) and (not layers or any(layer.built for layer in layers))


def _divergence(before: list[Pool | None], now: list[Pool | None], epsilon: float) -> float:
    """Return the mean over channels of KL(now || before), over the batches that both have."""
    pairs = [(b, n) for b, n in zip(before, now, strict=True) if b is not None and n is not None]
    if not pairs:
        return math.nan
    (mean, variance), (new_mean, new_variance) = (
        _merged([pair[side] for pair in pairs]).pooled() for side in (0, 1)
    )
    with np.errstate(all="ignore"):  # epsilon and a variance may both be 0
        variance, new_variance = variance + epsilon, new_variance + epsilon
        difference = (new_mean - mean) / np.sqrt(variance)
        nats = gaussian_divergence(difference, new_variance / variance)
    return float(np.maximum(nats, 0.0).mean())  # rounding can make it -1e-17


def _merged(pools: list[Pool]) -> Pool:
    merged = Pool(len(pools[0].total))
    for pool in pools:
        merged.merge(pool)
    return merged


def _copied(inputs: Any) -> Any:
    """Copy a batch into the computer's memory; what the caller does to his arrays is his."""
    return tf.nest.map_structure(
        lambda value: np.array(value) if isinstance(value, tf.Tensor) else value, inputs
    )


def _are_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
