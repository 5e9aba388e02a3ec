"""What the moments of batches say about a gap between training and inference.

The gap of each layer has two parts that tell causes apart (`layer_gap.py`): the `stored_gap`,
between the average batch and the stored statistics, and the `batch_noise`, between a batch and the
average batch. The causes, and what each rests on:

    not finite                   stored statistics that are NaN or Inf
    a batch unlike the others    its gap from the median batch, against that of the others
    never updated                the stored statistics are bit for bit the initial ones
    dropout                      a stored gap, most of which is gone with dropout, noise and
                                 augmentation on, as in training
    momentum too high            a stored gap, of which the momentum^steps that is left of the
                                 initial statistics explains most; where the steps are unknown, the
                                 stored ones lie between those and the average batch, at most layers
    data differ                  any other stored gap
    batches too small            the batch noise
"""

import dataclasses
import enum
import math
from collections.abc import Callable

import numpy as np

from keras_bn.reporting import shortened, wrapped
from keras_bn.statistics.layer_gap import LayerGap, ObservedLayer

__all__ = ["NOTABLE_GAP", "Cause", "Diagnosis", "diagnose"]

NOTABLE_GAP = 0.2  # of `stored_gap`: a fifth of the normalised signal
NOTABLE_NOISE = 0.3  # of `batch_noise`: sqrt(1.5 / m) for m independent Gaussian values, so m < 17
NOTABLE_REMAINDER = 0.05  # weight that the initial statistics still have
OUTLIER_GAP, OUTLIER_RATIO = 1.0, 5.0  # of a batch from the median batch: least; over the usual
OUTLIER_SHARE = 0.2  # of the batches that can be outliers
FEWEST_BATCHES = 4  # for telling an outlier
EXPLAINED = 0.5  # part of a squared difference that a fit must explain
UNIFORM = 1.5  # factor between channels that counts as the same


class Cause(enum.StrEnum):
    """What can make training and inference differ; the text of a `Diagnosis`."""

    NOT_FINITE = "the stored statistics are NaN or Inf"
    OUTPUT_NOT_FINITE = "an output is NaN or Inf, and the statistics are not why"
    NEVER_UPDATED = "the stored statistics were never updated"
    TRAINING_ONLY = "dropout, noise or augmentation in front of a batch norm acts in training only"
    MOMENTUM_TOO_HIGH = "the momentum is too high for the number of training steps"
    BATCHES_TOO_SMALL = "the batches are too small"
    DATA_DIFFER = "the data are not what the statistics were taken from"
    OUTLIER_BATCH = "a batch is unlike the others"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """A likely cause.

    Attributes:
        cause: What is wrong.
        layers: Paths of the layers that show it, the first in calling order first.
        evidence: The figures that it rests on.
        advice: What to do.
    """

    cause: Cause
    layers: tuple[str, ...]
    evidence: str
    advice: str

    def __str__(self) -> str:
        named = f": {shortened(self.layers)}" if self.layers else ""
        lines = wrapped(f"{self.cause}{named}", 2, 4)  # behind the mark of a list
        lines += [*wrapped(self.evidence, 4, 4), *wrapped(f"-> {self.advice}", 4, 7)]
        return "\n".join(lines).lstrip()


Shown = tuple[ObservedLayer, LayerGap, np.ndarray]  # with the rows that are no outliers


def diagnose(
    layers: list[ObservedLayer],
    steps: int | None,
    samples: int,
    acting: tuple[str, ...],
    in_training: Callable[[], dict[str, ObservedLayer]],
) -> tuple[tuple[LayerGap, ...], tuple[Diagnosis, ...]]:
    """Say what the batches' moments show.

    Args:
        layers: In calling order, with all batches added.
        steps: Number of steps that the optimizer has made; None if unknown.
        samples: Number of samples in all batches.
        acting: Names of the layers that act in training only, such as dropout.
        in_training: Returns the layers by path as they are with those on; called if a stored gap is
            notable.

    Returns:
        The gap of each layer; the likely causes of those that are notable.
    """
    for layer in layers:
        layer.finish()
    broken = tuple(layer.path for layer in layers if not np.isfinite(layer.stored).all())
    outliers = _outlying_batches(layers)
    kept = [~np.isin(layer.batch, list(outliers)) for layer in layers]
    gaps = [layer.layer_gap(rows) for layer, rows in zip(layers, kept, strict=True)]
    found: list[Diagnosis] = []
    wrong: list[Shown] = []  # stored statistics that are not the batches'
    initial: list[Shown] = []
    for layer, gap, rows in zip(layers, gaps, kept, strict=True):
        chance = 3 * gap.batch_noise / math.sqrt(rows.sum())
        if rows.sum() < FEWEST_BATCHES:  # too few to see the noise: that of independent samples
            chance = max(chance, 3 * math.sqrt(1.5 / samples))
        if gap.stored_gap > max(NOTABLE_GAP, chance):
            (initial if gap.is_initial else wrong).append((layer, gap, rows))
    if broken:
        found.append(_blame_broken_statistics(broken, len(layers)))
    noised = _fitting_in_training(wrong, in_training, list(outliers))
    wrong = _without(wrong, [shown for shown, _ in noised])
    late, steps = _unfinished(layers, wrong, steps)
    wrong = _without(wrong, late)
    if outliers:
        diagnosis, wrong = _blame_outliers(layers, outliers, wrong)
        found.append(diagnosis)
    if initial:
        found.append(_blame_missing_updates(initial, len(gaps)))
    if noised:
        found.append(_blame_training_only(noised, acting, len(gaps)))
    if late:
        found.append(_blame_momentum(layers, late, steps))
    if wrong:
        found.append(_blame_data(layers, wrong))
    noisy = [gap for gap in gaps if gap.batch_noise > NOTABLE_NOISE]
    if noisy and _count(layers) >= FEWEST_BATCHES:
        found.append(_blame_batch_size(noisy, len(gaps)))
    return tuple(gaps), tuple(found)


def _outlying_batches(layers: list[ObservedLayer]) -> dict[int, float]:
    """Return the batches that are unlike the others, with their gap from the median batch."""
    worst: dict[int, float] = {}
    for layer in layers:
        # A smaller last batch is further from the median without being odd.
        whole = layer.values >= np.median(layer.values) / 2
        for batch, gap in zip(layer.batch[whole], layer.from_median()[whole], strict=True):
            worst[int(batch)] = max(worst.get(int(batch), 0.0), float(gap))
    if len(worst) < FEWEST_BATCHES:
        return {}
    limit = max(OUTLIER_GAP, OUTLIER_RATIO * float(np.median(list(worst.values()))))
    outliers = {batch: gap for batch, gap in worst.items() if gap > limit}
    return outliers if len(outliers) <= OUTLIER_SHARE * len(worst) else {}


def _count(layers: list[ObservedLayer]) -> int:
    return len(set().union(*(layer.batch.tolist() for layer in layers)))


def _without(shown: list[Shown], others: list[Shown]) -> list[Shown]:
    return [one for one in shown if not any(one is other for other in others)]


def _paths(shown: list[Shown]) -> tuple[str, ...]:
    return tuple(layer.path for layer, _, _ in shown)


def _blame_outliers(
    layers: list[ObservedLayer], outliers: dict[int, float], wrong: list[Shown]
) -> tuple[Diagnosis, list[Shown]]:
    """Return the diagnosis, and the layers with a wrong statistic that it does not explain."""
    batch, gap = max(outliers.items(), key=lambda item: item[1])
    hit = [
        layer
        for layer in layers
        if (layer.from_median()[np.isin(layer.batch, list(outliers))] > OUTLIER_GAP).any()
    ]
    usual = max(
        float(np.median(layer.from_median()[~np.isin(layer.batch, list(outliers))]))
        for layer in layers
    )
    dragged = []
    for shown in wrong:
        layer, _, kept = shown
        rows = layer.batch == batch
        outlier = layer.mean[rows].mean(0), np.sqrt((layer.deviation[rows] ** 2).mean(0))
        share, explained = layer.share_of(outlier, kept)
        if share > 0 and explained > EXPLAINED:
            dragged.append(shown)
    evidence = (
        f"batch {batch} (counted from 0) is {gap:.1f} normalised deviations from the median batch, "
        f"the usual batch {usual:.2f}; {len(outliers)} of the {_count(layers)} batches are so."
    )
    if dragged:
        evidence += (
            f" At {len(dragged)} of {len(layers)} layers the stored statistics are drawn towards "
            "it, so training has met it too."
        )
    diagnosis = Diagnosis(
        Cause.OUTLIER_BATCH,
        tuple(layer.path for layer in hit),
        evidence,
        "Look at its samples: one that was not scaled like the others is enough. Then estimate the "
        "statistics anew without it.",
    )
    return diagnosis, _without(wrong, dragged)


def _blame_broken_statistics(paths: tuple[str, ...], total: int) -> Diagnosis:
    return Diagnosis(
        Cause.NOT_FINITE,
        paths,
        f"{len(paths)} of {total} layers store NaN or Inf, the first is {paths[0]}; one batch with "
        "such a value in it is enough.",
        "Call estimate_population_statistics on clean data. This package's layer keeps such "
        "batches out (`skip_nonfinite`); use_fused_batch_norm converts a model to it.",
    )


def _blame_missing_updates(initial: list[Shown], total: int) -> Diagnosis:
    layer, gap, _ = max(initial, key=lambda shown: shown[1].stored_gap)
    return Diagnosis(
        Cause.NEVER_UPDATED,
        _paths(initial),
        f"{len(initial)} of {total} layers still have their initial moving_mean and "
        "moving_variance; at "
        f"{layer.path} the batches are {gap.stored_gap:.2f} normalised deviations away from them.",
        "Train with `training=True` reaching the layer and `trainable=True`, or call "
        "estimate_population_statistics.",
    )


def _fitting_in_training(
    wrong: list[Shown],
    in_training: Callable[[], dict[str, ObservedLayer]],
    outliers: list[int],
) -> list[tuple[Shown, float]]:
    """Find the layers whose stored gap is mostly gone in training, with the gap that is left."""
    seen = in_training() if wrong else {}
    found = []
    for shown in wrong:
        layer = seen.get(shown[0].path)
        kept = np.zeros(0, bool) if layer is None else ~np.isin(layer.batch, outliers)
        if layer is None or not kept.any():
            continue
        left = float(layer.distance(layer.average(kept), layer.stored))
        if left < (1 - EXPLAINED) * shown[1].stored_gap:
            found.append((shown, left))
    return found


def _blame_training_only(
    noised: list[tuple[Shown, float]], acting: tuple[str, ...], total: int
) -> Diagnosis:
    (layer, gap, _), left = max(noised, key=lambda found: found[0][1].stored_gap)
    return Diagnosis(
        Cause.TRAINING_ONLY,
        _paths([shown for shown, _ in noised]),
        f"with {shortened(acting)} on, as in training, the stored statistics of {layer.path} are "
        f"{left:.2f} normalised deviations from the batches', without {gap.stored_gap:.2f}; "
        f"{len(noised)} of {total} layers are like it.",
        "The statistics fit the training data, so leave them. Put dropout behind the last batch "
        "norm, or take less of it, and train again.",
    )


def _unfinished(
    layers: list[ObservedLayer], wrong: list[Shown], steps: int | None
) -> tuple[list[Shown], int | None]:
    """Find the layers whose stored statistics are on the way from the initial ones.

    Returns:
        The layers; the number of steps if it explains them. It need not: an optimizer may be newer
        than the statistics.
    """
    late = [shown for shown in wrong if steps is not None and _is_as_predicted(*shown, steps)]
    if late:
        return late, steps
    late = [shown for shown in wrong if _is_on_the_way(*shown)]
    return (late if len(late) > max(1, len(layers) / 2) else []), None


def _is_as_predicted(layer: ObservedLayer, gap: LayerGap, kept: np.ndarray, steps: int) -> bool:
    """Say whether the number of steps explains most of a stored gap."""
    left = _remainder(layer, steps)
    (mean, deviation), (first_mean, first_deviation) = layer.average(kept), layer.initial()
    predicted = (
        left * first_mean + (1 - left) * mean,
        np.sqrt(left * first_deviation**2 + (1 - left) * deviation**2),
    )
    unexplained = float(layer.distance(predicted, layer.stored))
    return unexplained < (1 - EXPLAINED) * gap.stored_gap


def _is_on_the_way(layer: ObservedLayer, _: LayerGap, kept: np.ndarray) -> bool:
    share, explained = layer.share_of(layer.initial(), kept)
    return share > NOTABLE_REMAINDER and explained > EXPLAINED


def _remainder(layer: ObservedLayer, steps: int) -> float:
    """Return the weight that the initial statistics still have after so many steps."""
    momentum = layer.layer.momentum
    return 0.0 if momentum is None else float(momentum**steps)


def _blame_momentum(layers: list[ObservedLayer], late: list[Shown], steps: int | None) -> Diagnosis:
    layer, gap, _ = max(late, key=lambda shown: shown[1].stored_gap)
    if steps is not None:
        evidence = (
            f"after {steps} steps with momentum {layer.layer.momentum}, "
            f"{_remainder(layer, steps):.2g} of the initial statistics is left in {layer.path}, "
            f"which the batches' are {gap.stored_gap:.2f} normalised deviations away from; "
            f"{len(late)} of {len(layers)} layers are like it."
        )
    else:
        shares = [shown[0].share_of(shown[0].initial(), shown[2])[0] for shown in late]
        evidence = (
            f"the stored statistics of {len(late)} of {len(layers)} layers lie on the line from "
            f"the initial ones to those of the data, with {np.median(shares):.0%} (median) still "
            "to go."
        )
    return Diagnosis(
        Cause.MOMENTUM_TOO_HIGH,
        _paths(late),
        evidence,
        "Call estimate_population_statistics, or train with a lower momentum or for longer.",
    )


def _blame_data(layers: list[ObservedLayer], wrong: list[Shown]) -> Diagnosis:
    layer, _, kept = wrong[0]
    mean, deviation = layer.average(kept)
    ratio = deviation / layer.stored[1]
    low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9])
    shift = (mean - layer.stored[0]) / layer.stored[1]
    evidence = (
        f"at {layer.path} the data's deviation is {middle:.3g} times the stored one (most channels "
        f"{low:.3g} to {high:.3g}) and the mean {np.sqrt((shift**2).mean()):.3g} stored deviations "
        f"away; {len(wrong)} of {len(layers)} layers are off."
    )
    if high < UNIFORM * low and not 1 / UNIFORM < middle < UNIFORM:
        evidence += " All channels have about the same factor, as if the inputs were scaled by it."
    return Diagnosis(
        Cause.DATA_DIFFER,
        _paths(wrong),
        evidence,
        "Preprocess as in training. If the data are from another domain, adapt_statistics takes "
        "the statistics there. Augmentation of the training data alone does this too. If the "
        "stored statistics are far too large, training met an unusual batch.",
    )


def _blame_batch_size(noisy: list[LayerGap], total: int) -> Diagnosis:
    worst = max(noisy, key=lambda gap: gap.batch_noise)
    values = 1.5 / worst.batch_noise**2
    independent = f"about {values:.0f}" if values >= 1.5 else "fewer than two"
    return Diagnosis(
        Cause.BATCHES_TOO_SMALL,
        tuple(gap.layer for gap in noisy),
        f"at {worst.layer} a batch's own statistics are {worst.batch_noise:.2f} normalised "
        f"deviations from the average batch's, as if it had {independent} independent values a "
        f"channel; {len(noisy)} of {total} layers are affected.",
        "Shuffle the data, if a batch holds one class or one source. Use larger batches, or "
        "renorm=True, or synchronized=True on several replicas; for the batches given here, check "
        "that they are as large as those of training.",
    )
