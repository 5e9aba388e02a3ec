"""Batch moments against stored statistics at one batch-norm layer.

With input x, batch moments m_b and s_b and stored ones m and s,

    y_batch - y_stored = gamma [(x - m_b) / s_b - (x - m) / s],      s^2 = variance + epsilon

whose root mean square over the batch, in units of that of gamma, follows from the moments alone:

    gap^2 = sum gamma^2 [(1 - s_b / s)^2 + ((m_b - m) / s)^2] / sum gamma^2

A gap of 1 is an error as large as the normalised signal.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from keras_bn.running import bessel_factor, stored_statistics

__all__ = ["LayerGap", "ObservedLayer"]


@dataclasses.dataclass(frozen=True)
class LayerGap:
    """How far batch and stored statistics are apart at one layer; see the module's docstring.

    Attributes:
        layer: Path of the layer.
        gap: Root mean square over the batches.
        stored_gap: That of the average batch: mean of the means and of the unbiased variances.
        batch_noise: Root mean square distance of a batch from the average batch.
        is_initial: Whether the stored statistics are still the initial ones.
    """

    layer: str
    gap: float
    stored_gap: float
    batch_noise: float
    is_initial: bool


class ObservedLayer:
    """The moments of a layer's input, batch by batch, beside what it stores.

    Attributes:
        path: Path of the layer.
        layer: The layer.
        batch: Index of the batch that each row of the following comes from, shape (rows,).
        mean: Shape (rows, C), as the following.
        deviation: sqrt(biased variance + epsilon): what the batch was normalised by.
        variances: The variance of each row, unbiased, and, of Keras's layer, also biased: what it
            contributes to the running variance.
        values: Effective number of values a channel, shape (rows,).
        stored: Mean and sqrt(variance + epsilon) that the layer stores, shape (C,) each.
    """

    def __init__(self, path: str, layer: Any) -> None:
        self.path, self.layer = path, layer
        self._rows: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
        mean, variance = stored_statistics(layer)
        self.stored = mean, np.sqrt(variance + layer.epsilon)

    def add(self, batch: int, uses: list[Any]) -> None:
        """Add what `observe.record_moments` took of a batch: a row for each group of each use.

        A channel that weighs nothing counts as being where its stored statistics are.
        """
        stored = stored_statistics(self.layer)
        for record in uses:
            for total, effective, *moments in zip(*record, strict=True):
                mean, biased = (
                    np.where(total > 0, m, s) for m, s in zip(moments, stored, strict=True)
                )
                self._rows.append((batch, mean, biased, effective))

    def finish(self) -> None:
        """Turn the rows into arrays."""
        self.batch = np.array([row[0] for row in self._rows])
        self.mean, biased, effective = (
            np.array([row[i] for row in self._rows], np.float64) for i in (1, 2, 3)
        )
        self._rows = []
        self.values = effective.mean(1)
        self.deviation = np.sqrt(biased + self.layer.epsilon)
        self.variances = [biased * np.asarray(bessel_factor(effective))]
        if not getattr(self.layer, "bessel_correction", False):
            self.variances.append(biased)

    @property
    def is_initial(self) -> bool:
        """Whether the stored statistics are what the layer's initializers give."""
        return all(map(np.array_equal, self.stored, self.initial()))

    def average(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of the rows' means, and the deviation of their mean variance.

        A layer that stores biased variances may have taken them from larger batches than those
        given here: of the two mean variances, the one that is nearer to what is stored counts.
        """
        candidates = [
            (self.mean[kept].mean(0), np.sqrt(variance[kept].mean(0) + self.layer.epsilon))
            for variance in self.variances
        ]
        return min(candidates, key=lambda found: float(self.distance(found, self.stored)))

    def distance(self, moments: Any, reference: Any) -> np.ndarray:
        """Return the gap between moments and a reference, a value for each row."""
        gamma = np.asarray(self.layer.gamma, np.float64) if self.layer.scale else 1.0
        share = np.broadcast_to(gamma, self.mean.shape[1:]) ** 2
        share = share / (share.sum() or 1.0)
        mean, deviation = moments
        squares = (1 - deviation / reference[1]) ** 2 + ((mean - reference[0]) / reference[1]) ** 2
        gaps: np.ndarray = np.sqrt((share * squares).sum(-1))
        return gaps

    def from_median(self) -> np.ndarray:
        """Return how far each row is from the median row."""
        median = np.median(self.mean, 0), np.median(self.deviation, 0)
        return self.distance((self.mean, self.deviation), median)

    def noise(self, kept: np.ndarray) -> float:
        """Return the root mean square distance of a row from the average row.

        Rows count by their number of values: a smaller last batch is noisier, and says less.
        """
        share = self.values[kept] / self.values[kept].sum()
        average = share @ self.mean[kept], np.sqrt(share @ self.deviation[kept] ** 2)
        gaps = self.distance((self.mean[kept], self.deviation[kept]), average)
        freedom = len(gaps) / max(len(gaps) - 1, 1)
        return math.sqrt(freedom * float(share @ gaps**2))

    def layer_gap(self, kept: np.ndarray) -> LayerGap:
        """Return the layer's figures; those about the average batch over the rows that are kept."""
        rows = self.distance((self.mean, self.deviation), self.stored)
        return LayerGap(
            layer=self.path,
            gap=math.sqrt(float((rows**2).mean())),
            stored_gap=float(self.distance(self.average(kept), self.stored)),
            batch_noise=self.noise(kept),
            is_initial=self.is_initial,
        )

    def share_of(self, start: Any, kept: np.ndarray) -> tuple[float, float]:
        """Fit stored = share * start + (1 - share) * average, over means and variances.

        Returns:
            The share, and the part of the squared difference that it explains.
        """
        mean, deviation = self.average(kept)
        steps = [
            np.concatenate([(m - mean) / deviation, (s / deviation) ** 2 - 1])
            for m, s in (start, self.stored)
        ]
        towards, found = steps
        share = float(towards @ found / max(towards @ towards, 1e-300))
        rest = found - share * towards
        return share, 1 - float(rest @ rest / max(found @ found, 1e-300))

    def initial(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and deviation that the layer started from."""
        shape = self.layer.moving_mean.shape
        mean = self.layer.moving_mean_initializer(shape, dtype="float32")
        variance = self.layer.moving_variance_initializer(shape, dtype="float32")
        return np.asarray(mean, np.float64), np.sqrt(
            np.asarray(variance, np.float64) + self.layer.epsilon
        )
