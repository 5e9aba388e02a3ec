"""One estimate of a model's running statistics: the passes over the data, and the assignment.

Nothing of the model changes before all that is to be assigned is known, and if the assignment is
interrupted, what was assigned is taken back.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_bn.running import stored_statistics
from keras_bn.statistics.batches import batches, check_data, moment_weights, number_of_batches
from keras_bn.statistics.movement import LayerMovement, StatisticsReport, assign
from keras_bn.statistics.observe import ObservedModel
from keras_bn.statistics.pooling import Pool
from keras_bn.statistics.selection import Layers, batch_norm_layers
from keras_bn.statistics.tally import Tally
from keras_bn.statistics.workers import gather

__all__ = ["Estimation"]

VARIANCES = ("paper", "pooled")

Statistics = tuple[np.ndarray, np.ndarray]  # mean and variance, shape (C,) each, float64


class Estimation:
    """One estimate: options, what was found, and what has been counted on the way."""

    def __init__(
        self,
        where: str,
        model: Any,
        data: Any,
        *,
        steps: int | None,
        batch_size: int,
        variance: str,
        sequential: bool,
        layers: Layers,
        include_frozen: bool,
        weighted: bool,
        verbose: int,
        strength: float = 1.0,
    ) -> None:
        if variance not in VARIANCES:
            raise ValueError(
                f"{where}: `variance` must be one of {VARIANCES}. Received: variance={variance!r}."
            )
        self.where, self.model, self.data = where, model, data
        self.strength, self.variance, self.sequential = strength, variance, sequential
        self.weighted = weighted
        self.cut: dict[str, Any] = {"batch_size": batch_size, "steps": steps}
        self.layers, self.unchanged = batch_norm_layers(
            where, model, layers=layers, include_frozen=include_frozen
        )
        self.passes = len(self.layers) if sequential else 1
        self.tally = Tally(where, verbose)

    def run(self) -> StatisticsReport:
        """Estimate and assign; the public functions say what is raised."""
        paths, layers = list(self.layers), list(self.layers.values())
        if not layers:
            return StatisticsReport(
                layers=(), unchanged=self.unchanged, _before=(), **self.tally.counts()
            )
        before = [stored_statistics(layer) for layer in layers]
        broken = [p for p, b in zip(paths, before, strict=True) if not np.isfinite(b).all()]
        if broken and self.strength < 1.0:
            raise ValueError(
                f"{self.where}: `strength` must be 1 where stored statistics are NaN or Inf. "
                f"Received: strength={self.strength}, and such statistics in {', '.join(broken)}."
            )
        observed = ObservedModel(self.where, self.model, layers, by_batch=True)
        order, pools = self._observe(observed, first_batch_only=self.sequential)
        after: dict[int, Statistics] = {}
        for i in order:
            if self.sequential:
                single = ObservedModel(
                    self.where,
                    self.model,
                    [layers[i]],
                    by_batch=False,
                    replaced=[layers[j] for j in after],
                )
                _, (pools[i],) = self._observe(single, statistics=list(after.values()))
            after[i] = self._blended(paths[i], before[i], pools[i])
        self.tally.finish()
        for i in set(range(len(layers))) - set(order):
            self.unchanged[paths[i]] = observed.why_not_observed(i)
        pairs = [pair for i in order for pair in self._new_values(layers[i], after[i], pools[i])]
        kept = tuple(copy for variable, _ in pairs for copy in _copies(variable))
        movements = tuple(
            _movement(paths[i], layers[i].epsilon, before[i], after[i], pools[i]) for i in order
        )
        try:
            assign(pairs)
        except BaseException:
            assign(kept)
            raise
        return StatisticsReport(
            layers=movements, unchanged=self.unchanged, _before=kept, **self.tally.counts()
        )

    def _observe(
        self,
        observed: ObservedModel,
        *,
        statistics: Sequence[Statistics] = (),
        first_batch_only: bool = False,
    ) -> tuple[list[int], list[Pool]]:
        """Pool what one pass over the data, on all workers, shows of each observed layer.

        Returns:
            Indices of the layers that can be estimated, in calling order; a pool for each layer.
        """
        count = len(observed.layers)
        pools = [Pool(layer.moving_mean.shape[0]) for layer in observed.layers]
        tally = self.tally
        tally.restart()

        def local() -> np.ndarray:
            check_data(self.where, self.data, passes=self.passes + self.sequential, **self.cut)
            length = number_of_batches(self.data, **self.cut)
            tally.expect(None if length is None else length * self.passes)
            for x, _, weights in batches(self.where, self.data, **self.cut):
                weights = moment_weights(self.where, weights, self.weighted)
                _, records = observed(x, weights, statistics)
                if first_batch_only:
                    if tally.is_usable(x, records):
                        tally.batches = 1
                        break
                    tally.skipped += 1
                elif tally.take(x, records):
                    for pool, uses in zip(pools, records, strict=True):
                        pool.add_all(uses)
            ranks = np.full(count, -1.0)
            ranks[observed.observed] = range(len(observed.observed))
            numbers = [tally.batches, tally.skipped, tally.samples, *ranks]
            return np.concatenate([numbers, *(pool.to_array().ravel() for pool in pools)])

        shares = gather(self.model.distribute_strategy, local, self.where)
        tally.batches, tally.skipped, tally.samples = (int(n) for n in shares[:, :3].sum(0))
        tally.require_some()
        # A worker that has run no batch has no order; all others have the same.
        ranks = shares[:, 3 : 3 + count].max(0)
        order = [int(i) for i in np.argsort(ranks) if ranks[i] >= 0]
        merged = [Pool(len(pool.total)) for pool in pools]
        for share in shares:
            start = 3 + count
            for pool in merged:
                size = len(Pool.FIELDS) * len(pool.total)
                rows = share[start : start + size].reshape(len(Pool.FIELDS), -1)
                pool.merge(Pool.from_array(rows))
                start += size
        return order, merged

    def _blended(self, path: str, before: Statistics, pool: Pool) -> Statistics:
        """Return a layer's new statistics; a channel that weighs nothing keeps its own."""
        if self.variance == "paper" and ((pool.batches > 0) & (pool.variance_batches == 0)).any():
            raise ValueError(
                f"{self.where}: `variance` must be 'pooled' where every batch has one value a "
                f"channel, which has no variance. Received: variance='paper', and such batches at "
                f"{path}. Or give larger batches."
            )
        found = pool.averaged() if self.variance == "paper" else pool.pooled()
        old, new = 1.0 - self.strength, self.strength
        mean, variance = (
            # Without `old`, so that NaN * 0 does not get in where NaN is what is stored.
            np.where(pool.total > 0, new * f + (old * b if old else 0.0), b)
            for b, f in zip(before, found, strict=True)
        )
        return mean, variance

    def _new_values(
        self, layer: Any, statistics: Statistics, pool: Pool
    ) -> list[tuple[Any, np.ndarray]]:
        """Return the variables of a layer that keep statistics, with their new values."""
        if self.strength == 0.0:
            return []
        mean, variance = statistics
        pairs = [(layer.moving_mean, mean), (layer.moving_variance, variance)]
        if getattr(layer, "renorm", False):  # Keras has it since 3.14
            deviation = np.sqrt(variance + layer.epsilon)
            pairs += [(layer.renorm_mean, mean)]
            pairs += [(layer.renorm_stddev, deviation), (layer.moving_stddev, deviation)]
        if getattr(layer, "batches_seen", None) is not None and self.strength == 1.0:
            pairs.append((layer.batches_seen, pool.batches.max()))
        return pairs


def _copies(variable: Any) -> list[tuple[Any, np.ndarray]]:
    """Return what a variable holds on each replica of this process, with its value."""
    value = variable.value
    replicas = value.values if isinstance(value, tf.distribute.DistributedValues) else (variable,)
    return [(replica, keras.ops.convert_to_numpy(replica)) for replica in replicas]


def _movement(
    path: str, epsilon: float, before: Statistics, after: Statistics, pool: Pool
) -> LayerMovement:
    (old_mean, old_variance), (new_mean, new_variance) = before, after
    return LayerMovement(
        layer=path,
        mean_shift=(new_mean - old_mean) / np.sqrt(old_variance + epsilon),
        log_variance_ratio=np.log((new_variance + epsilon) / (old_variance + epsilon)),
        values=float(pool.effective.mean()),
    )
