"""`BatchNormalization`: Keras's layer with a fused kernel and an unbiased running variance.

Arguments, weights, config keys and masks are those of `keras.layers.BatchNormalization`, which
this layer subclasses: weight files, freezing code and `isinstance` checks keep working.
"""

import math
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_bn.fused import fused_inference, fused_training, why_not_fused
from keras_bn.running import bessel_factor, update_running

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

    All arguments of `keras.layers.BatchNormalization` keep their names, order and meaning;
    `bessel_correction` and `fused` are new and keyword-only. With `renorm=True` the running
    statistics are those of stock Keras, which have no factor m / (m - 1).

    Args:
        axis: The channel axis. This and the arguments up to `synchronized` are those of
            `keras.layers.BatchNormalization`.
        momentum: Weight of the past in the running statistics, in [0, 1].
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
        renorm: Use batch renormalisation, arXiv:1702.03275.
        renorm_clipping: Bounds "rmin", "rmax", "dmax" of its corrections.
        renorm_momentum: Weight of the past in its own statistics.
        synchronized: Take the moments over all replicas of a `tf.distribute` strategy.
        bessel_correction: Multiply the variance that enters the running average by m / (m - 1).
            False reproduces stock Keras 3, which is biased. For m = 1 the factor is 1.
        fused: None takes the fused kernel wherever it is exact: rank 4, channels last, float16,
            bfloat16 or float32, without mask, renorm or synchronisation. True raises where it
            cannot be used. False never uses it.
        **kwargs: `name`, `dtype`, `trainable`: as for every Keras layer.

    Raises:
        ValueError: If `momentum` is not in [0, 1].
        ValueError: If `epsilon` is not finite and positive.
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

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
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
        **kwargs: Any,
    ) -> None:
        super().__init__(
            axis=axis,
            momentum=momentum,
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
            renorm=renorm,
            renorm_clipping=renorm_clipping,
            renorm_momentum=renorm_momentum,
            synchronized=synchronized,
            **kwargs,
        )
        if not 0.0 <= self.momentum <= 1.0:  # also False for NaN
            raise ValueError(
                "BatchNormalization: `momentum` must be in [0, 1]. "
                f"Received: momentum={self.momentum}."
            )
        if not (math.isfinite(self.epsilon) and self.epsilon > 0.0):
            raise ValueError(
                "BatchNormalization: `epsilon` must be finite and > 0. "
                f"Received: epsilon={self.epsilon}."
            )
        self.bessel_correction = bool(bessel_correction)
        self.fused = fused

    def build(self, input_shape: Any) -> None:
        """Create the weights for inputs of a shape.

        Args:
            input_shape: Shape with the channel dimension known, e.g. (None, None, None, 64).

        Raises:
            ValueError: If `axis` is out of range or its dimension is unknown.
            ValueError: If `fused=True` and the fused kernel cannot be used.
        """
        rank = len(input_shape)
        if not -rank <= self.axis < rank:
            raise ValueError(
                f"BatchNormalization: `axis` must be in [{-rank}, {rank - 1}] for inputs of rank "
                f"{rank}. Received: axis={self.axis}, input_shape={tuple(input_shape)}."
            )
        if input_shape[self.axis] is None:
            raise ValueError(
                "BatchNormalization: the dimension of `axis` must be known. "
                f"Received: axis={self.axis}, input_shape={tuple(input_shape)}. "
                "Give the model an Input with a fixed number of channels."
            )
        super().build(input_shape)
        if self.fused:
            self._require_fused(self._why_not_fused(rank, self.compute_dtype, mask=None))

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise a batch.

        Args:
            inputs: Shape (N, ..., C) with the channels at `axis`; any float dtype. Computed in
                float32 when half precision.
            training: True normalises by the batch and updates the running statistics, unless
                `trainable` is False; otherwise the running statistics normalise.
            mask: Shape of `inputs` without the last axis; True marks what enters the moments.

        Returns:
            Shape of `inputs`, in the layer's compute dtype.

        Raises:
            ValueError: If `mask` does not have one dimension less than `inputs`.
            ValueError: If `fused=True` and the fused kernel cannot be used.
        """
        training = bool(training) and self.trainable
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        reason = self._why_not_fused(len(inputs.shape), dtype, mask if training else None)
        if reason is None:
            return self._call_fused(inputs, training)
        self._require_fused(reason)
        if training and not self.renorm:
            return self._train_portable(inputs, mask)
        return super().call(inputs, training=training, mask=mask)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild this layer; those of Keras's layer and its own."""
        config: dict[str, Any] = super().get_config()
        return {**config, "bessel_correction": self.bessel_correction, "fused": self.fused}

    def _why_not_fused(self, rank: int, dtype: str, mask: Any) -> str | None:
        if self.fused is False:
            return "`fused` is False"
        if self.renorm:
            return "`renorm` is True"
        if self.synchronized:
            return "`synchronized` is True"
        if mask is not None:
            return "a mask was given"
        return why_not_fused(rank, self.axis, dtype)

    def _require_fused(self, reason: str | None) -> None:
        if self.fused and reason is not None:
            raise ValueError(
                "BatchNormalization: `fused` must be None or False where the fused kernel cannot "
                f"be used. Received: fused=True, and {reason}. Use fused=None to fall back."
            )

    def _call_fused(self, inputs: Any, training: bool) -> Any:
        channels = self.moving_mean.shape
        gamma = ops.cast(self.gamma, "float32") if self.scale else tf.ones(channels)
        beta = ops.cast(self.beta, "float32") if self.center else tf.zeros(channels)
        if not training:
            mean = ops.cast(self.moving_mean, "float32")
            variance = ops.cast(self.moving_variance, "float32")
            return fused_inference(inputs, gamma, beta, mean, variance, self.epsilon)
        outputs, mean, variance = fused_training(inputs, gamma, beta, self.epsilon)
        if not self.bessel_correction:  # the kernel's variance already has the factor
            variance = variance / bessel_factor(self._count(inputs, mask=None))
        update_running(self.moving_mean, mean, self.momentum)
        update_running(self.moving_variance, variance, self.momentum)
        return outputs

    def _train_portable(self, inputs: Any, mask: Any) -> Any:
        if mask is not None and len(mask.shape) != len(inputs.shape) - 1:
            raise ValueError(
                "BatchNormalization: `mask` must have one dimension less than the inputs. "
                f"Received: mask.shape={mask.shape}, inputs.shape={inputs.shape}."
            )
        inputs = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        dtype = inputs.dtype
        channels = self.moving_mean.shape
        mean, variance = (ops.reshape(m, channels) for m in self._moments(inputs, mask))
        unbiased = variance
        if self.bessel_correction:
            unbiased = variance * ops.cast(bessel_factor(self._count(inputs, mask)), dtype)
        update_running(self.moving_mean, mean, self.momentum)
        update_running(self.moving_variance, unbiased, self.momentum)
        outputs = ops.batch_normalization(
            inputs,
            mean,
            variance,
            self.axis,
            offset=ops.cast(self.beta, dtype) if self.center else None,
            scale=ops.cast(self.gamma, dtype) if self.scale else None,
            epsilon=self.epsilon,
        )
        return ops.cast(outputs, self.compute_dtype)

    def _count(self, inputs: Any, mask: Any) -> Any:
        """Return m, the number of values per channel: a float32 scalar; with a mask, shape (C,)."""
        if mask is not None:
            ones = tf.broadcast_to(tf.expand_dims(tf.cast(mask, "float32"), -1), tf.shape(inputs))
            return tf.reduce_sum(ones, self._reduction_axes)
        channels = self.moving_mean.shape[0]
        count = tf.cast(tf.size(inputs, out_type=tf.int64) // channels, "float32")
        replicas = tf.distribute.get_replica_context()
        if self.synchronized and replicas is not None and replicas.num_replicas_in_sync > 1:
            count = replicas.all_reduce(tf.distribute.ReduceOp.SUM, count)
        return count
