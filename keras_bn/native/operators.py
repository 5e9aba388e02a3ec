"""The native kernel's operators, with gradients of first and second order.

Forward, `batch_sums` reads x, and `normalise_by` reads it again and writes y. Backward, two
operators do the same with dy and x: the gradient of `normalise_by` is that of the whole
normalisation, through the moments as well, so the moments themselves have none. The gradient of
that gradient is rarely asked for: it is TensorFlow's, of the portable formula in `moments.py`.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_bn.activations import activation_function
from keras_bn.moments import normalise, weighted_moments
from keras_bn.native.library import load, set_threads
from keras_bn.replicas import all_replicas, replicas

__all__ = ["batch_sums", "leading_weights", "merged", "normalise_by"]


def batch_sums(
    x: Any,
    axis: int,
    running: tuple[Any, Any],
    momentum: Any,
    weights: Any = None,
    *,
    ghost_batch_size: int | None = None,
    bessel_correction: bool = True,
    skip_nonfinite: bool = True,
) -> tuple[Any, Any, Any, Any]:
    """Compute the moments of a batch and the running statistics after it.

    Args:
        x: Input of any known rank, C channels at `axis`; float16 | bfloat16 | float32.
        axis: The channel axis.
        running: The running mean and variance, shape (C,), float32.
        momentum: Their weight in the new ones, in [0, 1]; a float scalar.
        weights: None, or what `leading_weights` returned.
        ghost_batch_size: None, or the number of samples that are normalised together.
        bessel_correction: Multiply a variance that enters the running one by n / (n - 1).
        skip_nonfinite: Leave the running statistics alone where the batch is not usable.

    Returns:
        The moments for `normalise_by`, shape (groups, 5, C), float32: a centre near the mean, the
        mean minus that, the biased variance, W = sum w, sum w^2. The new running mean and variance.
        An int32 scalar, 1 if the batch was not usable and `skip_nonfinite`, else 0.
    """
    operators, _ = load()
    set_threads()
    moments, mean, variance, skipped = operators.keras_bn_sums(
        x=x,
        moving_mean=running[0],
        moving_variance=running[1],
        momentum=momentum,
        weights=[] if weights is None else [weights],
        axis=axis,
        ghost_batch_size=ghost_batch_size or 0,
        bessel_correction=bessel_correction,
        skip_nonfinite=skip_nonfinite,
    )
    moments.set_shape([None if ghost_batch_size else 1, 5, x.shape[axis]])
    return moments, mean, variance, skipped


def normalise_by(
    x: Any,
    moments: Any,
    gamma: Any,
    beta: Any,
    epsilon: float,
    axis: int,
    weights: Any = None,
    *,
    ghost_batch_size: int | None = None,
    synchronized: bool = False,
    activation: tuple[int, float] = (0, 0.0),
) -> Any:
    """Normalise a batch by its own moments; differentiable as a function of x, gamma and beta.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    Args:
        x: The input that `moments` are of.
        moments: What `batch_sums` or `merged` returned.
        gamma: Shape (C,), float32.
        beta: Shape (C,), float32.
        epsilon: Added to the variance, in units of x squared; finite, > 0.
        axis: The channel axis.
        weights: As for `batch_sums`.
        ghost_batch_size: As for `batch_sums`.
        synchronized: The moments are those of all replicas.
        activation: What `kernel_activation` returned; applied to y.

    Returns:
        Shape and dtype of `x`.

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1.
    """
    operators, _ = load()
    return operators.keras_bn_normalise(
        x=x,
        moments=moments,
        gamma=gamma,
        beta=beta,
        weights=[] if weights is None else [weights],
        axis=axis,
        ghost_batch_size=ghost_batch_size or 0,
        epsilon=epsilon,
        synchronized=synchronized,
        activation=activation[0],
        negative_slope=activation[1],
    )


def merged(moments: Any) -> Any:
    """Merge the moments of all replicas of a `tf.distribute` strategy, in one all-reduce.

    By Chan's formula, around the centre of the heaviest replica: the same on all of them, so that
    all end with the same bits.

    Args:
        moments: What `batch_sums` returned, of one group.

    Returns:
        The same for the values of all replicas together.
    """
    centre, delta, variance, total, squares = tf.unstack(moments[0])
    slots = all_replicas(tf.stack([centre, delta, variance * total, total, squares]))
    centres, deltas, deviations, totals, all_squares = tf.unstack(slots, axis=1)
    total = tf.reduce_sum(totals, 0)
    centre = tf.gather(centres, tf.argmax(totals[:, 0]))
    apart = (centres - centre) + deltas  # each replica's mean, from that centre
    delta = tf.math.divide_no_nan(tf.reduce_sum(totals * apart, 0), total)
    deviation = tf.reduce_sum(deviations + totals * (apart - delta) ** 2, 0)
    variance = tf.math.divide_no_nan(deviation, total)
    return tf.stack([centre, delta, variance, total, tf.reduce_sum(all_squares, 0)])[tf.newaxis]


def leading_weights(x: Any, weights: Any, axis: int) -> Any:
    """Bring weights into the shape that the native kernel takes.

    Args:
        x: The input.
        weights: What `combined_weights` returned: of the rank of `x`, 1 where they do not vary.
        axis: The channel axis, counted from the front.

    Returns:
        float32, of the shape of a leading part of `x` that ends before or at the channels; None
        where the weights vary behind the channels.
    """
    rank = len(x.shape)
    last = max((i for i in range(rank) if weights.shape[i] != 1), default=0)
    if last > axis:
        return None
    last = last if last != axis or axis < rank - 1 else axis - 1
    sizes = tf.shape(x)[: last + 1]
    flat = tf.reshape(weights, tf.shape(weights)[: last + 1])
    return tf.broadcast_to(tf.cast(flat, tf.float32), sizes)


def _options(op: Any, *names: str) -> dict[str, Any]:
    common = ("axis", "ghost_batch_size", "epsilon", "activation", "negative_slope")
    return {name: op.get_attr(name) for name in (*common, *names)}


@tf.RegisterGradient("KerasBnNormalise")  # type: ignore[untyped-decorator]
def _gradient_of_normalise(op: Any, dy: Any) -> list[Any]:
    """Return the gradient of the whole normalisation, through the moments too."""
    x, moments, gamma, beta, *weights = op.inputs
    options = _options(op)
    synchronized = op.get_attr("synchronized")
    operators, _ = load()
    sums = operators.keras_bn_gradient_sums(
        dy=dy, x=x, moments=moments, gamma=gamma, beta=beta, **options
    )
    several = synchronized and replicas() > 1
    dx, dgamma, dbeta = operators.keras_bn_gradient(
        dy=dy,
        x=x,
        moments=moments,
        gamma=gamma,
        beta=beta,
        all_sums=_sum_over_replicas(sums) if several else sums,
        own_sums=sums,
        weights=weights,
        synchronized=synchronized,
        **options,
    )
    dweights = _gradient_to_weights(op, dy) if weights else []
    return [dx, None, dgamma, dbeta, *dweights]


@tf.RegisterGradient("KerasBnGradient")  # type: ignore[untyped-decorator]
def _gradient_of_gradient(op: Any, *upstream: Any) -> list[Any]:
    dy, x, _, gamma, beta, _, _, *weights = op.inputs

    def gradient(dy: Any, x: Any, gamma: Any, beta: Any, *weights: Any) -> list[Any]:
        def y(x: Any, gamma: Any, beta: Any) -> list[Any]:
            return [_portable(op, x, gamma, beta, list(weights))]

        return _pulled_back(y, [x, gamma, beta], [dy])

    found = _pulled_back(gradient, [dy, x, gamma, beta, *weights], list(upstream))
    ddy, dx, dgamma, dbeta, *dweights = found
    return [ddy, dx, None, dgamma, dbeta, None, None, *dweights]


tf.no_gradient("KerasBnSums")
tf.no_gradient("KerasBnGradientSums")


def _gradient_to_weights(op: Any, dy: Any) -> list[Any]:
    x, _, gamma, beta, *weights = op.inputs
    return _pulled_back(lambda w: [_portable(op, x, gamma, beta, [w])], weights, [dy])


def _pulled_back(
    function: Callable[..., list[Any]], sources: list[Any], upstream: Any
) -> list[Any]:
    """Return the gradients of a function to its arguments, given those to its results.

    No tape in graphs: TensorFlow switches tapes off where it makes the function of a jvp.
    """
    sources = [tf.identity(source) for source in sources]  # none computed from another
    with tf.GradientTape() as tape:
        tape.watch(sources)
        results = function(*sources)
    # What nothing was computed from has no gradient yet.
    given = [(result, g) for result, g in zip(results, upstream, strict=True) if g is not None]
    results, upstream = [result for result, _ in given], [g for _, g in given]
    if tf.executing_eagerly():
        return list(tape.gradient(results, sources, upstream))
    return list(tf.gradients(results, sources, upstream))


def _portable(op: Any, x: Any, gamma: Any, beta: Any, weights: list[Any]) -> Any:
    """Normalise `x` as the operator does, by TensorFlow's operators."""
    axis, rank = op.get_attr("axis") % len(x.shape), len(x.shape)
    given = weights[0] if weights else None
    if given is not None:
        given = given[(..., *[tf.newaxis] * (rank - len(given.shape)))]
    moments = weighted_moments(
        tf.cast(x, tf.float32),
        axis,
        given,
        ghost_batch_size=op.get_attr("ghost_batch_size") or None,
        synchronized=op.get_attr("synchronized"),
    )
    y = normalise(moments, x, axis, op.get_attr("epsilon"), gamma, beta)
    function = activation_function(op.get_attr("activation"), op.get_attr("negative_slope"))
    return tf.cast(function(y), x.dtype)


def _sum_over_replicas(sums: Any) -> Any:
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
