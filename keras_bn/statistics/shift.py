"""Covariate shift at every batch-norm layer: what it stores against what it now sees.

A batch-norm layer remembers the mean and variance that its input had in training. Run on other
data, each channel shows how far those have moved; none of the training data are needed. With m and
v the stored moments, m' and v' the observed ones, epsilon added to both variances as in the layer:

    mean difference      d = (m' - m) / sqrt(v)                  standard deviations
    log variance ratio   l = ln(v' / v)
    divergence           KL(observed || stored) = (v'/v + d^2 - 1 - l) / 2      nats, Gaussian

The observed moments are estimates. Their standard errors take a sample (an image, say) as the unit,
because the positions within one are not independent: with A_i and B_i the sums over sample i of
z = (x - m) / sqrt(v) and of z^2, W_i its number of values and W the sum of those,

    error(d)^2 = sum (A_i - d W_i)^2 / W^2
    error(v'/v)^2 = sum (B_i - 2 d A_i + (2 d^2 - q) W_i)^2 / W^2,      q = sum B_i / W

A channel is marked as shifted where |d| or |l| exceeds its error times Student's t for a false
alarm in 5 % of all layers without any shift (Bonferroni over the layer's channels). The error of a
variance is itself uncertain, so for ln v'/v a channel's error counts as no less than the root mean
square over the layer's channels.
"""

import dataclasses
import statistics
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_bn.moments import Moments
from keras_bn.reporting import DataReport, jsonable, table
from keras_bn.running import stored_statistics
from keras_bn.statistics.batches import check_data, moment_weights
from keras_bn.statistics.observe import ObservedModel, record_moments
from keras_bn.statistics.pooling import Pool, gaussian_divergence
from keras_bn.statistics.selection import Layers, batch_norm_layers
from keras_bn.statistics.tally import Tally
from keras_bn.weighting import combined_weights

__all__ = ["CovariateShiftReport", "LayerShift", "measure_covariate_shift"]

FALSE_ALARMS = 0.05  # share of layers without a shift in which some channel is marked
MEANING = (
    "KL: of the inputs from the stored statistics, in nats, mean over the channels",
    "KL by chance: what this many samples show without a shift",
    "|mean|: difference of means in stored deviations; |ln var|: ln of the ratio of variances",
)
NEGLIGIBLE = 1e-3  # standard deviations, or nats of ln(v'/v), below which nothing is marked


@dataclasses.dataclass(frozen=True)
class LayerShift:
    """The shift at one layer's input; arrays have a value for each channel, shape (C,).

    Attributes:
        layer: Path of the layer.
        mean_difference: Observed minus stored mean, in stored standard deviations.
        mean_error: Its standard error.
        log_variance_ratio: ln(observed / stored variance).
        log_variance_error: Its standard error.
        divergence: KL(observed || stored) of Gaussians with these moments, in nats.
        is_shifted: Whether the data can tell the channel's shift from zero.
    """

    layer: str
    mean_difference: np.ndarray
    mean_error: np.ndarray
    log_variance_ratio: np.ndarray
    log_variance_error: np.ndarray
    divergence: np.ndarray
    is_shifted: np.ndarray

    @property
    def mean_divergence(self) -> float:
        """The channels' mean divergence, in nats: what layers are ranked by."""
        return float(self.divergence.mean())

    @property
    def sampling_divergence(self) -> float:
        """The mean divergence to be expected from the sampling errors alone, in nats."""
        return float((self.mean_error**2 / 2 + self.log_variance_error**2 / 4).mean())

    def to_dict(self) -> dict[str, Any]:
        """Return the shift as JSON-compatible data; an unknown standard error is None."""
        data: dict[str, Any] = dataclasses.asdict(self)
        shift: dict[str, Any] = jsonable({**data, "mean_divergence": self.mean_divergence})
        return shift


@dataclasses.dataclass(frozen=True)
class CovariateShiftReport(DataReport):
    """How far each layer's input is from what its statistics say; prints as a ranked table.

    Attributes:
        layers: The layers in the order in which the model calls them.
    """

    layers: tuple[LayerShift, ...]

    @property
    def ranking(self) -> tuple[LayerShift, ...]:
        """The layers, the most shifted one first; one that stores NaN before all others."""

        def key(layer: LayerShift) -> float:
            return -float(np.nan_to_num(layer.mean_divergence, nan=np.inf))

        return tuple(sorted(self.layers, key=key))

    def _draw(self) -> Any:
        from keras_bn.statistics.plots import plot_shift

        return plot_shift(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data; layers by rank."""
        return self.data_to_dict(self.ranking)

    def __str__(self) -> str:
        head = (
            f"{len(self.layers)} layers measured, {len(self.unchanged)} left alone; "
            f"{self.data_used}"
        )
        rows = [
            (
                layer.layer,
                f"{layer.mean_divergence:.4f}",
                f"{layer.sampling_divergence:.4f}",
                f"{np.abs(layer.mean_difference).max():.3f}",
                f"{np.abs(layer.log_variance_ratio).max():.3f}",
                f"{np.count_nonzero(layer.is_shifted)}/{len(layer.is_shifted)}",
            )
            for layer in self.ranking
        ]
        header = ("layer", "KL", "KL by chance", "max |mean|", "max |ln var|", "channels shifted")
        notes = [
            f"  {layer.layer}: no shift that {self.samples} samples can tell from zero"
            for layer in self.ranking
            if not layer.is_shifted.any()
        ]
        return "\n".join([head, *table(header, rows, MEANING), *notes, *self.left_alone()])


def measure_covariate_shift(
    model: keras.Model,
    data: Any,
    *,
    steps: int | None = None,
    batch_size: int = 32,
    layers: Layers = None,
    weighted: bool = False,
    verbose: int = 1,
) -> CovariateShiftReport:
    """Compare what every batch-norm layer stores with what it sees on some data, in inference.

    Only the stored moments are needed: no training data. A layer downstream of a shift is shifted
    too, so read the ranking together with the order of `layers`. The stored moments are taken as
    exact. Under a `tf.distribute` strategy a worker measures its own data.

    Args:
        model: A built Keras model with batch-norm layers of Keras or of this package.
        data: Arrays, `(x, y)` or `(x, y, sample_weight)` of arrays, a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, or an iterable of batches.
        steps: Number of batches to take; None for all.
        batch_size: Samples a batch, where `data` are arrays; does not change the result.
        layers: None for all batch-norm layers; names, paths or layers; or a function of a layer.
        weighted: Let the data's `sample_weight` weigh the values.
        verbose: 1 for a progress bar, 0 for none.

    Returns:
        The shift of each layer and channel, with its sampling error.

    Raises:
        TypeError: If `model` is not a Keras model, or `data` nothing that holds batches.
        ValueError: If the model has no batch-norm layers that are built, an option is out of range,
            or the data are empty, shorter than `steps` or without any usable batch.

    Example:
        >>> import keras, numpy as np, keras_bn
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization(name="a")])
        >>> x = np.random.default_rng(0).normal(3.0, 1.0, (500, 1)).astype("float32")
        >>> layer = keras_bn.measure_covariate_shift(model, x, verbose=0).ranking[0]
        >>> layer.mean_difference.round(0), layer.is_shifted
        (array([3.]), array([ True]))
    """
    where = "measure_covariate_shift"
    found, unchanged = batch_norm_layers(where, model, layers=layers)
    cut: dict[str, Any] = {"batch_size": batch_size, "steps": steps}
    check_data(where, data, **cut)
    paths, targets = list(found), list(found.values())
    observed = ObservedModel(where, model, targets, by_batch=False, record=_record)
    seen = [_Seen(layer.moving_mean.shape[0]) for layer in targets]
    tally = Tally(where, verbose)
    for x, _, weights in tally.batches_of(data, **cut):
        _, records = observed(x, moment_weights(where, weights, weighted))
        if tally.take(x, [[moments for moments, _ in uses] for uses in records]):
            for layer_seen, uses in zip(seen, records, strict=True):
                layer_seen.add(uses)
    unchanged |= observed.not_observed(paths)
    shifts = tuple(seen[i].shift(paths[i], targets[i]) for i in observed.observed)
    return CovariateShiftReport(layers=shifts, unchanged=unchanged, **tally.counts())


def _record(layer: Any, moments: Moments, inputs: Any, mask: Any, sample_weight: Any) -> Any:
    """Record the moments, and for each sample W_i, A_i and B_i: shape (3, N, C)."""
    axis = layer.axis % len(inputs.shape)
    x = tf.cast(inputs, tf.float64 if inputs.dtype == tf.float64 else tf.float32)
    weights = combined_weights(x, axis, mask, sample_weight)
    weights = tf.ones_like(x) if weights is None else tf.broadcast_to(weights, tf.shape(x))
    shape = [-1 if i == axis else 1 for i in range(len(x.shape))]
    mean, variance = (
        tf.reshape(tf.cast(variable, x.dtype), shape)
        for variable in (layer.moving_mean, layer.moving_variance)
    )
    z = (tf.where(weights > 0, x, mean) - mean) * tf.math.rsqrt(variance + layer.epsilon)
    first = 0 if axis > 0 else 1  # the sample axis
    positions = [i for i in range(len(x.shape)) if i not in (first, axis)]
    sums = [tf.reduce_sum(values, positions) for values in (weights, weights * z, weights * z * z)]
    if axis == 0:
        sums = [tf.transpose(values) for values in sums]
    return record_moments(layer, moments), tf.stack(sums)


class _Seen:
    """What a layer has seen: its moments, and the sums that their errors need."""

    def __init__(self, channels: int) -> None:
        self.pool = Pool(channels)
        self.samples = 0
        self.products = np.zeros((3, 3, channels))  # sums over samples of (W, A, B) times (W, A, B)
        self.sums = np.zeros((3, channels))

    def add(self, uses: list[Any]) -> None:
        """Add what a batch showed; the uses of a layer within it are of the same samples."""
        self.pool.add_all([moments for moments, _ in uses])
        sums = [np.asarray(sums, np.float64) for _, sums in uses]
        if len({array.shape for array in sums}) == 1:
            sums = [np.sum(sums, axis=0)]
        for array in sums:
            self.samples += array.shape[1]
            self.products += np.einsum("inc,jnc->ijc", array, array)
            self.sums += array.sum(1)

    def shift(self, path: str, layer: Any) -> LayerShift:
        """Compare with what the layer stores; a channel that weighs nothing has no shift."""
        stored_mean, stored_variance = both = stored_statistics(layer)
        seen = self.pool.total > 0
        mean, variance = (
            np.where(seen, found, stored)
            for found, stored in zip(self.pool.pooled(), both, strict=True)
        )
        scale = stored_variance + layer.epsilon
        difference, ratio = (
            (mean - stored_mean) / np.sqrt(scale),
            (variance + layer.epsilon) / scale,
        )
        total = np.where(seen, self.sums[0], np.nan)
        q = self.sums[2] / total
        of_mean = np.stack([-difference, np.ones_like(q), np.zeros_like(q)])
        of_variance = np.stack([2 * difference**2 - q, -2 * difference, np.ones_like(q)])
        degrees = self.samples - 1
        errors = [np.full(len(q), np.inf)] * 2
        if degrees > 0:
            squares = [
                np.einsum("ic,ijc,jc->c", c, self.products, c) for c in (of_mean, of_variance)
            ]
            errors = [np.sqrt(np.maximum(s, 0) * (1 + 1 / degrees)) / total for s in squares]
        errors = [np.where(seen, error, np.inf) for error in errors]
        mean_error, log_error, log_ratio = errors[0], errors[1] / ratio, np.log(ratio)
        known = log_error[np.isfinite(log_error)]
        usual_log_error = np.maximum(log_error, np.sqrt((known**2).mean()) if len(known) else 0.0)
        limit = _student_t(1 - FALSE_ALARMS / (4 * len(q)), degrees) if degrees > 0 else 1.0
        return LayerShift(
            layer=path,
            mean_difference=difference,
            mean_error=mean_error,
            log_variance_ratio=log_ratio,
            log_variance_error=log_error,
            divergence=gaussian_divergence(difference, ratio),
            is_shifted=(np.abs(difference) > np.maximum(limit * mean_error, NEGLIGIBLE))
            | (np.abs(log_ratio) > np.maximum(limit * usual_log_error, NEGLIGIBLE)),
        )


def _student_t(probability: float, degrees: int) -> float:
    """Return a quantile of Student's t by the Cornish-Fisher expansion about the normal one.

    Reference:
        Abramowitz & Stegun 1964, 26.7.5.
    """
    z: float = statistics.NormalDist().inv_cdf(probability)
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(degrees ** (i + 1)) for i, term in enumerate(terms))
