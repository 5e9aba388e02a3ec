"""`BatchNormalization`: Keras's layer with a fused kernel and an unbiased running variance.

Arguments, weights, config keys and masks are those of `keras.layers.BatchNormalization`, which
this layer subclasses: weight files, freezing code and `isinstance` checks keep working.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_bn.activations import kernel_activation
from keras_bn.arguments import check_options, check_shape, renorm_arguments
from keras_bn.fused import fused_inference, fused_training, why_never_fused, why_not_fused
from keras_bn.interception import batch_norm_call
from keras_bn.moments import layer_moments, normalise, per_channel
from keras_bn.native.library import why_not_native
from keras_bn.native.operators import batch_sums, leading_weights, merged, normalise_by
from keras_bn.ragged import call_on_values
from keras_bn.replicas import replicas
from keras_bn.running import (
    bessel_factor,
    cumulative_momentum,
    is_usable,
    replace_running,
    update_running,
)
from keras_bn.weighting import check_ghost_batches, combined_weights

__all__ = ["BatchNormalization"]

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "keras_bn: the Keras backend must be 'tensorflow'. "
        f"Received: backend={keras.backend.backend()!r}. "
        "Set the environment variable KERAS_BACKEND=tensorflow before importing Keras."
    )


@keras.saving.register_keras_serializable(package="keras_bn")
class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Normalise each channel over the batch in training, by running statistics in inference.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    In training `mean` and `variance` (divided by m, the number of values in a channel) are the
    batch's own, and the running statistics move towards them:

        moving_mean     <- momentum * moving_mean     + (1 - momentum) * mean
        moving_variance <- momentum * moving_variance + (1 - momentum) * variance * m / (m - 1)

    All arguments of `keras.layers.BatchNormalization` keep their names, order and meaning; those
    from `bessel_correction` on are new and keyword-only.

    A batch that has no values, or whose statistics are NaN or Inf, leaves the running statistics as
    they were; `skipped_batches` counts those.

    Args:
        axis: The channel axis. This and the arguments up to `synchronized` are those of
            `keras.layers.BatchNormalization`.
        momentum: Weight of the past in the running statistics, in [0, 1]. None averages all
            batches equally and adds a weight that counts them.
        epsilon: Added to the variance, in units of the input squared; finite, > 0.
        center: Add `beta`.
        scale: Multiply by `gamma`.
        beta_initializer: Initial `beta`.
        gamma_initializer: Initial `gamma`.
        moving_mean_initializer: Initial running mean.
        moving_variance_initializer: Initial running variance.
        beta_regularizer: Penalty on `beta`.
        gamma_regularizer: Penalty on `gamma`.
        beta_constraint: Projection of `beta` after each update.
        gamma_constraint: Projection of `gamma` after each update.
        renorm: Use batch renormalisation, arXiv:1702.03275; with Keras 3.14 or newer.
        renorm_clipping: Bounds "rmin", "rmax", "dmax" of its corrections.
        renorm_momentum: Weight of the past in its own statistics.
        synchronized: Take the moments over all replicas of a `tf.distribute` strategy.
        bessel_correction: Multiply the variance that enters the running average by m / (m - 1).
            False reproduces stock Keras 3, which is biased. For m = 1 the factor is 1.
        fused: None takes the fused kernel wherever it is exact: any rank and axis, float16,
            bfloat16 or float32, without weights, renorm, ghost batches, synchronisation, and
            outside functions that XLA compiles. True raises where it cannot be used. False never
            uses it.
        ghost_batch_size: In training, normalise groups of this many consecutive samples each on
            its own (arXiv:1705.08741); must divide the batch size. The running statistics
            average over the groups.
        skip_nonfinite: Leave the running statistics alone when the batch has no values or its
            statistics are NaN or Inf. False lets those in, as stock Keras does.
        activation: Applied to the output: a name, a function or a layer, as for other Keras layers.
            ReLU, ReLU6, leaky ReLU, SiLU and hard SiLU are part of the native kernel, which then
            keeps the input alone for the backward pass.
        **kwargs: `name`, `dtype`, `trainable`: as for every Keras layer.

    Raises:
        ValueError: If `momentum` is neither None nor in [0, 1].
        ValueError: If `epsilon` is not finite and positive.
        TypeError: If `bessel_correction` or `skip_nonfinite` is no bool, or `fused` neither a bool
            nor None.
        ValueError: If `ghost_batch_size` is not a positive integer.
        ValueError: If `ghost_batch_size` is combined with `renorm` or `synchronized`.
        ValueError: If `momentum=None` is combined with `renorm`.
        ValueError: If `renorm` is True and Keras older than 3.14.
        ValueError: If `axis` is out of range for the input, when the layer is built.
        ValueError: If `fused=True` and the fused kernel cannot be used.

    Example:
        >>> import keras, keras_bn
        >>> layer = keras_bn.BatchNormalization(momentum=0.9)
        >>> layer(keras.ops.ones((2, 4, 4, 3)), training=True).shape
        TensorShape([2, 4, 4, 3])

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithms 1 and 2.
    """

    renorm = False  # Keras before 3.14 sets none

    def __init__(
        self,
        axis: int = -1,
        momentum: float | None = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: dict[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        *,
        bessel_correction: bool = True,
        fused: bool | None = None,
        ghost_batch_size: int | None = None,
        skip_nonfinite: bool = True,
        activation: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            axis=axis,
            momentum=0.0 if momentum is None else momentum,
            epsilon=epsilon,
            center=center,
            scale=scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            moving_mean_initializer=moving_mean_initializer,
            moving_variance_initializer=moving_variance_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
            synchronized=synchronized,
            **renorm_arguments(
                renorm, renorm_clipping=renorm_clipping, renorm_momentum=renorm_momentum
            ),
            **kwargs,
        )
        self.momentum: float | None = None if momentum is None else float(momentum)
        self.bessel_correction = bessel_correction
        self.fused = fused
        self.ghost_batch_size = ghost_batch_size
        self.skip_nonfinite = skip_nonfinite
        function = keras.activations.get(activation)
        self.activation = None if function is keras.activations.linear else function
        check_options(self)
        self.batches_seen: Any = None
        self._skips: Any = None

    @property
    def skipped_batches(self) -> int:
        """Number of training batches that `skip_nonfinite` kept out of the running statistics.

        Counted since the layer was built in this process; it is no weight and is not saved. Under
        a `tf.distribute` strategy, the first replica's count.
        """
        return 0 if self._skips is None else int(keras.ops.convert_to_numpy(self._skips.count))

    def start_counting_skips(self) -> None:
        """Set `skipped_batches` to 0; done by `build`."""
        self._skips = _Skips()

    def build(self, input_shape: Any) -> None:
        """Create the weights for inputs of a shape.

        Args:
            input_shape: Shape with the channel dimension known, e.g. (None, None, None, 64).

        Raises:
            ValueError: If `axis` is out of range or its dimension is unknown.
            ValueError: If `ghost_batch_size` is given and `axis` is the batch axis.
            ValueError: If `fused=True` and the fused kernel cannot be used.
        """
        check_shape(self, input_shape)
        super().build(input_shape)
        if self.momentum is None:
            self.batches_seen = self.add_weight(
                shape=(),
                name="batches_seen",
                initializer="zeros",
                dtype="float32",  # half precision stops counting at 256 or 2048
                trainable=False,
                autocast=False,
            )
        self.start_counting_skips()
        # XLA is a property of the calling function, weights of the call: `call` looks at those.
        self._require_fused(why_never_fused(self) or why_not_fused(self.compute_dtype, False))

    @batch_norm_call
    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None, sample_weight: Any = None
    ) -> Any:
        """Normalise a batch.

        Args:
            inputs: Shape (N, ..., C) with the channels at `axis`; any float dtype. Computed in
                float32 when half precision. A ragged tensor is one batch of all its values.
            training: True normalises by the batch and updates the running statistics, unless
                `trainable` is False; otherwise the running statistics normalise.
            mask: Shape of `inputs` without the last axis; True marks what enters the moments.
            sample_weight: Weights >= 0 in the moments, shape (N,) or a longer leading part of the
                shape of `inputs` without `axis`. With a mask they multiply. The factor of the
                running variance is then n / (n - 1), n = (sum w)^2 / sum w^2.

        Returns:
            Shape of `inputs`, in the layer's compute dtype.

        Raises:
            ValueError: If `mask` does not have one dimension less than `inputs`.
            ValueError: If `sample_weight` has no dimension, or as many as `inputs`.
            ValueError: If `ghost_batch_size` does not divide the batch size.
            ValueError: If a ragged tensor has ragged channels, or a mask or weights.
            ValueError: If `fused=True` and the fused kernel cannot be used.
        """
        if isinstance(inputs, tf.RaggedTensor):
            return call_on_values(self, inputs, training, mask, sample_weight)
        training = bool(training) and self.trainable
        if mask is None and sample_weight is not None:
            # Keras passes the mask on by itself only where one argument is a tensor.
            mask = getattr(inputs, "_keras_mask", None)
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if training:
            reason = why_never_fused(self) or why_not_fused(dtype, training=True)
            if mask is not None or sample_weight is not None:
                reason = reason or "weights were given (`mask` or `sample_weight`)"
            self._require_fused(reason)
            if self.fused is not False and why_not_native(dtype) is None:
                outputs = self._train_native(inputs, mask, sample_weight)
                if outputs is not None:
                    return ops.cast(outputs, self.compute_dtype)
            if reason is None:
                return self.activated(ops.cast(self._train_fused(inputs), self.compute_dtype))
            return self.activated(self._train_portable(inputs, mask, sample_weight))
        # Other ranks need a reshape around the kernel, which hides a batch norm from the export;
        # with the channels first, a CPU and LiteRT transpose there and back around it.
        kernel = self.fused is not False and why_not_fused(dtype, training=False) is None
        if kernel and len(inputs.shape) == 4 and self.axis % 4 == 3:
            statistics = (*self._affine(), *self._running())
            outputs = fused_inference(inputs, *statistics, self.epsilon, self.axis)
            return self.activated(ops.cast(outputs, self.compute_dtype))
        return self.activated(super().call(inputs, training=False))

    def activated(self, outputs: Any) -> Any:
        """Apply the activation to normalised outputs, if there is one."""
        return outputs if self.activation is None else self.activation(outputs)

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        """Let a SavedModel whose functions train have the counter, which is no weight."""
        children: dict[str, Any] = super()._trackable_children(save_type, **kwargs)
        if save_type == "savedmodel" and self._skips is not None:
            children = {**children, "skipped_batches_counter": self._skips.count.value}
        return children

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild this layer; those of Keras's layer and its own."""
        config: dict[str, Any] = super().get_config()
        names = ("bessel_correction", "fused", "ghost_batch_size", "skip_nonfinite")
        options = {name: getattr(self, name) for name in names}
        activation = self.activation
        if activation is not None:
            activation = keras.activations.serialize(activation)
        return {**config, **options, "activation": activation}

    def _require_fused(self, reason: str | None) -> None:
        if self.fused and reason is not None:
            raise ValueError(
                "BatchNormalization: `fused` must be None or False where the fused kernel cannot "
                f"be used. Received: fused=True, and {reason}. Use fused=None to fall back."
            )

    def _affine(self) -> tuple[Any, Any]:
        shape = self.moving_mean.shape
        gamma = ops.cast(self.gamma, "float32") if self.scale else tf.ones(shape)
        return gamma, ops.cast(self.beta, "float32") if self.center else tf.zeros(shape)

    def _running(self) -> tuple[Any, Any]:
        return ops.cast(self.moving_mean, "float32"), ops.cast(self.moving_variance, "float32")

    def _train_native(self, inputs: Any, mask: Any, sample_weight: Any) -> Any:
        """Train on the kernel of `keras_bn.native`; None where it does not take the weights."""
        x = tf.convert_to_tensor(inputs)
        axis, ghosts = self.axis % len(x.shape), self.ghost_batch_size
        weights = combined_weights(x, axis, mask, sample_weight, tf.float32)
        if weights is not None:
            weights = leading_weights(x, weights, axis)
            # The gradient to weights of several replicas would be two all-reduces more.
            if weights is None or (self.synchronized and replicas() > 1):
                return None
        if ghosts is not None:
            check_ghost_batches(x, ghosts)
        before, momentum = self._running(), self.momentum
        if momentum is None:
            momentum = cumulative_momentum(ops.cast(self.batches_seen, "float32"))
        moments, mean, variance, skipped = batch_sums(
            x,
            axis,
            before,
            momentum,
            weights,
            ghost_batch_size=ghosts,
            bessel_correction=self.bessel_correction,
            skip_nonfinite=self.skip_nonfinite,
        )
        gamma, beta = self._affine()
        synchronized = self.synchronized and replicas() > 1
        if synchronized or self.renorm:
            moments = merged(moments) if synchronized else moments
            gamma, beta = self._update_by(moments, gamma, beta)
        else:
            if self.skip_nonfinite:
                self._skips.count.assign_add(skipped)
            if self.batches_seen is not None:
                self.batches_seen.assign_add(tf.cast(1 - skipped, tf.float32))
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        inside = kernel_activation(self.activation)
        outputs = normalise_by(
            x,
            moments,
            gamma,
            beta,
            self.epsilon,
            axis,
            weights,
            ghost_batch_size=ghosts,
            synchronized=synchronized,
            activation=inside or (0, 0.0),
        )
        return outputs if inside else self.activated(outputs)

    def _update_by(self, moments: Any, gamma: Any, beta: Any) -> tuple[Any, Any]:
        """Update the running statistics by moments of one group; return gamma and beta for them."""
        centre, error, variance, total, squares = tf.unstack(moments[0])
        mean = centre + error
        if self.renorm:
            gamma, beta = self._renorm(mean, variance, gamma, beta)
        effective = tf.math.divide_no_nan(total**2, squares)
        unbiased = variance * bessel_factor(effective) if self.bessel_correction else variance
        self._update(mean, unbiased, total, variance)
        return gamma, beta

    def _renorm(self, mean: Any, variance: Any, gamma: Any, beta: Any) -> tuple[Any, Any]:
        """Return gamma and beta, or None, with the corrections of batch renormalisation."""
        r, d, _, _ = self._renorm_correction_and_moments(mean, variance)
        return self._compose_transforms(r, d, gamma, beta, mean.dtype)  # type: ignore[no-any-return]

    def _train_fused(self, inputs: Any) -> Any:
        if self.momentum is not None and self.bessel_correction:  # the kernel averages by itself
            before = self._running()
            outputs, mean, variance = fused_training(
                inputs, *self._affine(), self.epsilon, self.axis, before, self.momentum
            )
            usable = self._count_if_unusable(None, mean, variance)
            replace_running(self.moving_mean, mean, usable, before[0])
            replace_running(self.moving_variance, variance, usable, before[1])
            return outputs
        outputs, mean, variance = fused_training(inputs, *self._affine(), self.epsilon, self.axis)
        count = tf.cast(tf.size(inputs, tf.int64) // self.moving_mean.shape[0], tf.float32)
        if not self.bessel_correction:  # the kernel's variance has the factor
            variance = variance / bessel_factor(count)
        self._update(mean, variance, count, biased=None)
        return outputs

    def _train_portable(self, inputs: Any, mask: Any, sample_weight: Any) -> Any:
        moments = layer_moments(
            inputs,
            self.axis,
            mask,
            sample_weight,
            ghost_batch_size=self.ghost_batch_size,
            synchronized=self.synchronized,
        )
        dtype = moments.mean.dtype
        total, mean, variance, unbiased = per_channel(moments, self.moving_mean.shape[0])
        gamma = ops.cast(self.gamma, dtype) if self.scale else None
        beta = ops.cast(self.beta, dtype) if self.center else None
        if self.renorm:
            gamma, beta = self._renorm(mean, variance, gamma, beta)
        self._update(mean, unbiased if self.bessel_correction else variance, total, variance)
        outputs = normalise(moments, inputs, self.axis, self.epsilon, gamma, beta)
        return ops.cast(outputs, self.compute_dtype)

    def _update(self, mean: Any, unbiased: Any, total: Any, biased: Any) -> None:
        """Let a batch into the running statistics, or leave them alone and count that."""
        mean, unbiased = tf.stop_gradient(mean), tf.stop_gradient(unbiased)
        usable = self._count_if_unusable(total, mean, unbiased)
        momentum = self.momentum
        if momentum is None:
            momentum = cumulative_momentum(ops.cast(self.batches_seen, mean.dtype))
            self.batches_seen.assign_add(ops.cast(usable, self.batches_seen.dtype))
        update_running(self.moving_mean, mean, momentum, usable)
        if self.renorm:
            self._update_renorm(mean, tf.stop_gradient(biased), unbiased, usable)
        else:
            update_running(self.moving_variance, unbiased, momentum, usable)

    def _count_if_unusable(self, total: Any, mean: Any, variance: Any) -> Any:
        """Return whether a batch may enter the running statistics; if not, count it."""
        if not self.skip_nonfinite:
            return True
        usable = is_usable(total, mean, variance)
        self._skips.count.assign_add(ops.cast(ops.logical_not(usable), "int32"))
        return usable

    def _update_renorm(self, mean: Any, biased: Any, unbiased: Any, usable: Any) -> None:
        """Update what batch renormalisation keeps: deviations, which include epsilon."""
        deviation = tf.sqrt(biased + self.epsilon)
        update_running(self.renorm_mean, mean, self.renorm_momentum, usable)
        update_running(self.renorm_stddev, deviation, self.renorm_momentum, usable)
        update_running(self.moving_stddev, tf.sqrt(unbiased + self.epsilon), self.momentum, usable)
        squared = ops.cast(self.moving_stddev, mean.dtype) ** 2 - self.epsilon
        replace_running(self.moving_variance, tf.nn.relu(squared), usable)


class _Skips:
    """A counter that Keras does not find, so that it is no weight of the layer and not saved."""

    def __init__(self) -> None:
        # Named initializer: Keras defers it where it builds a layer symbolically.
        self.count = keras.Variable(
            "zeros", shape=(), dtype="int32", trainable=False, name="skipped_batches"
        )
