"""Population statistics of a trained model (Algorithm 2), and their adaptation to a new domain.

The running statistics that training leaves behind are an exponential average over weights that are
gone. Here they are estimated anew with the weights as they are, from batches that layer by layer
are normalised as in training:

    "paper"     E[x] = mean of the batch means
                Var[x] = mean of the batch variances, each times m / (m - 1)
    "pooled"    mean and unbiased variance of all values seen

"paper" is Algorithm 2 as written: a batch counts once whatever its size, and the spread between
batch means is left out. "pooled" counts that spread, which is what inference meets: it normalises
all batches alike. `sequential=True` estimates one layer at a time, with those before it already in
inference mode, so that the statistics are those of the inputs that inference will have.

Reference:
    Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2.
    Li et al. 2016, arXiv:1603.04779 (AdaBN).
"""

from typing import Any

import keras

from keras_bn.statistics.estimation import Estimation
from keras_bn.statistics.movement import LayerMovement, StatisticsReport
from keras_bn.statistics.selection import Layers

__all__ = [
    "LayerMovement",
    "StatisticsReport",
    "adapt_statistics",
    "estimate_population_statistics",
]


def estimate_population_statistics(
    model: keras.Model,
    data: Any,
    *,
    steps: int | None = None,
    batch_size: int = 32,
    variance: str = "paper",
    sequential: bool = False,
    layers: Layers = None,
    include_frozen: bool = False,
    weighted: bool = False,
    verbose: int = 1,
) -> StatisticsReport:
    """Estimate a model's running statistics anew, from data and its weights as they are.

    Only batch-norm layers run as in training; dropout and augmentation stay off, and no weight but
    the statistics changes. A layer that is called several times pools all its uses. Under a
    `tf.distribute` strategy call it on every worker, each with its own share of the data and
    outside `strategy.run`; all end with the same statistics.

    Args:
        model: A built Keras model with batch-norm layers of Keras or of this package.
        data: Arrays, `(x, y)` or `(x, y, sample_weight)` of arrays, a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, or an iterable of batches. Preprocessed as in training.
        steps: Number of batches to take; None for all.
        batch_size: Samples a batch, where `data` are arrays. For "paper", that of training.
        variance: "paper": mean of the batch variances, each times m / (m - 1), and mean of the
            batch means; a smaller last batch counts as much as a full one. "pooled": mean and
            unbiased variance of all values. With weights, take "pooled": the mean of weighted batch
            means is biased.
        sequential: Estimate one layer at a time, by a pass over the data for each layer. A layer
            that is called several times is estimated once, where it is called last.
        layers: None for all batch-norm layers; names, paths or layers; or a function of a layer.
        include_frozen: Estimate layers with `trainable=False` too.
        weighted: Let the data's `sample_weight` weigh the values.
        verbose: 1 for a progress bar, 0 for none.

    Returns:
        How far each layer moved, what was left alone, and a way back.

    Raises:
        TypeError: If `model` is not a Keras model, or `data` nothing that holds batches.
        ValueError: If the model has no batch-norm layers that are built, an option is out of range,
            the data are empty, shorter than `steps` or without any usable batch, or can be iterated
            only once and `sequential` is True.
        RuntimeError: If another worker of a `tf.distribute` strategy failed.

    An exception or an interrupt leaves the model as it was.

    Example:
        >>> import keras, numpy as np, keras_bn
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
        >>> x = np.array([[1.0, 0.0], [3.0, 0.0]], "float32")
        >>> report = keras_bn.estimate_population_statistics(model, x, verbose=0)
        >>> model.layers[0].moving_mean.numpy()
        array([2., 0.], dtype=float32)

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2, steps 7 to 10.
    """
    return Estimation(
        "estimate_population_statistics",
        model,
        data,
        steps=steps,
        batch_size=batch_size,
        variance=variance,
        sequential=sequential,
        layers=layers,
        include_frozen=include_frozen,
        weighted=weighted,
        verbose=verbose,
    ).run()


def adapt_statistics(
    model: keras.Model,
    data: Any,
    *,
    strength: float = 1.0,
    steps: int | None = None,
    batch_size: int = 32,
    variance: str = "pooled",
    sequential: bool = False,
    layers: Layers = None,
    include_frozen: bool = False,
    weighted: bool = False,
    verbose: int = 1,
) -> StatisticsReport:
    """Move a model's running statistics towards those of a new domain; needs no labels.

        mean     <- (1 - strength) * stored mean     + strength * mean of the data
        variance <- (1 - strength) * stored variance + strength * variance of the data

    Args:
        model: As for `estimate_population_statistics`.
        data: Samples of the new domain; likewise.
        strength: In [0, 1]. 1 replaces the statistics (AdaBN); with few samples less is safer.
        steps: As for `estimate_population_statistics`, and so are all that follow.
        batch_size: Samples a batch, where `data` are arrays.
        variance: "paper" or "pooled".
        sequential: Adapt one layer at a time.
        layers: Which layers.
        include_frozen: Adapt layers with `trainable=False` too.
        weighted: Let the data's `sample_weight` weigh the values.
        verbose: 1 for a progress bar, 0 for none.

    Returns:
        How far each layer moved, what was left alone, and a way back.

    Raises:
        TypeError: As `estimate_population_statistics`.
        ValueError: If `strength` is not in [0, 1], or below 1 where stored statistics are NaN or
            Inf; or as `estimate_population_statistics`.
        RuntimeError: As `estimate_population_statistics`.

    Reference:
        Li et al. 2016, arXiv:1603.04779; the blend: Schneider et al. 2020, arXiv:2006.16971.
    """
    is_number = isinstance(strength, int | float) and not isinstance(strength, bool)
    if not is_number or not 0.0 <= strength <= 1.0:
        raise ValueError(
            f"adapt_statistics: `strength` must be in [0, 1]. Received: strength={strength!r}."
        )
    return Estimation(
        "adapt_statistics",
        model,
        data,
        strength=strength,
        steps=steps,
        batch_size=batch_size,
        variance=variance,
        sequential=sequential,
        layers=layers,
        include_frozen=include_frozen,
        weighted=weighted,
        verbose=verbose,
    ).run()
