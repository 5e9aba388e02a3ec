"""Moments of many batches from the moments of each, in float64.

With W the sum of a batch's weights (the number of values without weights), mean its mean and
M = W variance the sum of its squared deviations, two sets of values have together

    W = W_a + W_b        mean = mean_a + (mean_b - mean_a) W_b / W
    M = M_a + M_b + (mean_b - mean_a)^2 W_a W_b / W

Nothing is kept of a batch but these, so the memory does not grow with the number of batches.

Reference:
    Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".
"""

from typing import Any

import numpy as np

from keras_bn.running import bessel_factor

__all__ = ["Pool", "gaussian_divergence"]


class Pool:
    """The moments of all values seen so far, a value for each channel.

    Attributes:
        batches: Number of batches with any weight; shape (C,), float64, as all below.
        total: W, the sum of the weights.
        squares: Sum of the squared weights.
        mean: The mean of all values.
        deviations: M, the sum of the weighted squared deviations from `mean`.
        batch_means: Sum of the batches' means.
        batch_variances: Sum of the batches' unbiased variances.
        variance_batches: Number of batches with more than one value, which have such a variance.
    """

    FIELDS = (
        "batches",
        "total",
        "squares",
        "mean",
        "deviations",
        "batch_means",
        "batch_variances",
        "variance_batches",
    )

    def __init__(self, channels: int) -> None:
        self.batches, self.total, self.squares, self.mean = np.zeros((4, channels))
        self.deviations, self.batch_means, self.batch_variances = np.zeros((3, channels))
        self.variance_batches = np.zeros(channels)

    def add(self, total: Any, effective: Any, mean: Any, variance: Any) -> None:
        """Add a batch; one without any weight changes nothing.

        Args:
            total: W, shape (C,).
            effective: W^2 / (sum of the squared weights), the effective number of values.
            mean: In the units of the values.
            variance: Biased (divides by W), in units squared.
        """
        total, effective, mean, variance = (
            np.asarray(array, np.float64) for array in (total, effective, mean, variance)
        )
        seen = (total > 0).astype(np.float64)
        squares = np.divide(total**2, effective, out=np.zeros_like(total), where=total > 0)
        several = seen * (effective > 1)
        unbiased = several * variance * _bessel(effective)
        rows = (seen, total, squares, mean, total * variance, seen * mean, unbiased, several)
        self.merge(Pool.from_array(np.stack(rows)))

    def add_all(self, uses: list[Any]) -> None:
        """Add a batch for each group of each record that `observe.record_moments` took of it."""
        for record in uses:
            for group in zip(*record, strict=True):
                self.add(*group)

    def merge(self, other: "Pool") -> None:
        """Add all that another pool has seen."""
        total = self.total + other.total
        share = np.divide(other.total, total, out=np.zeros_like(total), where=total > 0)
        step = other.mean - self.mean
        self.deviations = self.deviations + other.deviations + step**2 * self.total * share
        self.mean = self.mean + step * share
        self.total = total
        for name in ("batches", "squares", "batch_means", "batch_variances", "variance_batches"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def effective(self) -> np.ndarray:
        """W^2 / (sum of the squared weights): the effective number of values, shape (C,)."""
        return np.divide(
            self.total**2, self.squares, out=np.zeros_like(self.total), where=self.squares > 0
        )

    def pooled(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the unbiased variance of all values, shape (C,) each."""
        biased = np.divide(
            self.deviations, self.total, out=np.zeros_like(self.total), where=self.total > 0
        )
        return self.mean, biased * _bessel(self.effective)

    def averaged(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of the batch means and of the unbiased batch variances, shape (C,) each.

        A batch with a single value has no unbiased variance and counts in the mean only.

        Reference:
            Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2, step 10.
        """
        means, variances = (np.maximum(n, 1.0) for n in (self.batches, self.variance_batches))
        return self.batch_means / means, self.batch_variances / variances

    def to_array(self) -> np.ndarray:
        """Return all there is to know, shape (8, C), for sending to other processes."""
        return np.stack([getattr(self, name) for name in self.FIELDS])

    @classmethod
    def from_array(cls, array: np.ndarray) -> "Pool":
        """Return the pool that `to_array` described."""
        pool = cls(array.shape[1])
        for name, row in zip(cls.FIELDS, array, strict=True):
            setattr(pool, name, row)
        return pool


def gaussian_divergence(difference: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Return KL(one || other) of two Gaussians, in nats.

        (v'/v + (m' - m)^2 / v - 1 - ln(v'/v)) / 2

    Args:
        difference: m' - m, in standard deviations of the other.
        ratio: v' / v.
    """
    nats: np.ndarray = (ratio + difference**2 - 1 - np.log(ratio)) / 2
    return nats


def _bessel(effective: np.ndarray) -> np.ndarray:
    factor: np.ndarray = np.asarray(bessel_factor(effective))
    return factor
