"""A convolutional network for 8 x 8 grey digits: Conv-BN-ReLU blocks, one depthwise, Dense-BN.

About 54 thousand parameters; enough for 98 % on scikit-learn's `load_digits` within seconds.
"""

import keras
from keras import layers

from keras_bn import BatchNormalization

__all__ = ["build"]


def _normalise_and_rectify(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    x = BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def build(seed: int = 0) -> keras.Model:
    """Build the network.

    Args:
        seed: Seed of the initial weights; sets Keras's global seed.

    Returns:
        An uncompiled model from images, shape (N, 8, 8, 1), float32 in [0, 1], to the
        probabilities of the ten digits, shape (N, 10), float32.
    """
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 1), name="image")
    # The bias of a layer that a batch norm follows cancels out; `conv3` and `dense` keep theirs
    # all the same, as many networks do, and the export has to fold it.
    x = layers.Conv2D(32, 3, padding="same", use_bias=False, name="conv1")(image)
    x = _normalise_and_rectify(x, "conv1")
    x = layers.Conv2D(48, 3, padding="same", strides=2, use_bias=False, name="conv2")(x)
    x = _normalise_and_rectify(x, "conv2")
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = _normalise_and_rectify(x, "depthwise")
    x = layers.Conv2D(64, 3, padding="same", name="conv3")(x)
    x = _normalise_and_rectify(x, "conv3")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(128, name="dense")(x)
    x = _normalise_and_rectify(x, "dense")
    x = layers.Dropout(0.2, seed=seed, name="dropout")(x)
    digit = layers.Dense(10, activation="softmax", name="digit")(x)
    return keras.Model(image, digit, name="digits_cnn")
