"""A temporal convolutional network: residual blocks of dilated causal 1-D convolutions.

Bai et al. 2018, arXiv:1803.01271, with batch norm in place of weight norm. The dilation doubles
from block to block, so that with kernels of size k the output at a time t depends on the inputs at
t and the 2 (k - 1) (2 ** blocks - 1) steps before it, and on nothing after it.
"""

import keras
from keras import layers

from keras_bn import BatchNormalization

__all__ = ["build"]


def build(
    seed: int = 0,
    *,
    channels: int = 4,
    classes: int = 5,
    width: int = 16,
    blocks: int = 3,
    kernel_size: int = 3,
    dropout: float = 0.1,
) -> keras.Model:
    """Build the network.

    Args:
        seed: Seed of the initial weights and of dropout; sets Keras's global seed.
        channels: Values at each step of the series.
        classes: To tell apart at each step.
        width: Channels of the convolutions.
        blocks: Number of residual blocks.
        kernel_size: Of the convolutions, in steps.
        dropout: Share of whole channels that are dropped in training.

    Returns:
        An uncompiled model from series, shape (N, T, channels), float32, T any length from 1, to
        class probabilities of each step, shape (N, T, classes), float32. It has about 5 thousand
        parameters.
    """
    keras.utils.set_random_seed(seed)

    def convolve(x: keras.KerasTensor, dilation: int, name: str) -> keras.KerasTensor:
        x = layers.Conv1D(
            width, kernel_size, padding="causal", dilation_rate=dilation, use_bias=False, name=name
        )(x)
        x = BatchNormalization(name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
        return layers.SpatialDropout1D(dropout, seed=seed, name=f"{name}_dropout")(x)

    series = keras.Input((None, channels), name="series")
    x = series
    for block in range(blocks):
        name = f"block{block}"
        y = convolve(x, 2**block, f"{name}_conv1")
        y = convolve(y, 2**block, f"{name}_conv2")
        if x.shape[-1] != width:
            x = layers.Conv1D(width, 1, name=f"{name}_project")(x)
        x = layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))
    label = layers.Dense(classes, activation="softmax", name="label")(x)
    return keras.Model(series, label, name="temporal_cnn")
