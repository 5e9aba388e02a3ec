"""A convolutional network for 8 x 8 grey digits: Conv-BN-ReLU blocks, one depthwise, Dense-BN.

About 54 thousand parameters; enough for 98 % on scikit-learn's `load_digits` within seconds.
"""

import keras
import numpy as np
from keras import layers

from keras_bn import BatchNormalization

__all__ = ["build", "load_data"]


def load_data(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Load the 1,797 handwritten digits that ship with scikit-learn.

    Args:
        seed: Seed of the split.

    Returns:
        Training and test images, shape (N, 8, 8, 1), float32 in [0, 1]; training and test digits,
        shape (N,): 80 % and 20 %, every digit in proportion.

    Raises:
        ModuleNotFoundError: If scikit-learn is not installed.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16.0).astype(np.float32)
    train, test, train_digits, test_digits = train_test_split(
        images, digits.target, test_size=0.2, stratify=digits.target, random_state=seed
    )
    return train, test, train_digits, test_digits


def build(seed: int = 0, *, momentum: float = 0.9) -> keras.Model:
    """Build the network.

    Args:
        seed: Seed of the initial weights; sets Keras's global seed.
        momentum: Of the batch norms.

    Returns:
        An uncompiled model from images, shape (N, 8, 8, 1), float32 in [0, 1], to the
        probabilities of the ten digits, shape (N, 10), float32.
    """
    keras.utils.set_random_seed(seed)

    def normalise_and_rectify(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = BatchNormalization(momentum=momentum, name=f"{name}_bn")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    image = keras.Input((8, 8, 1), name="image")
    # The bias of a layer that a batch norm follows cancels out; `conv3` and `dense` keep theirs
    # all the same, as many networks do, and the export has to fold it.
    x = layers.Conv2D(32, 3, padding="same", use_bias=False, name="conv1")(image)
    x = normalise_and_rectify(x, "conv1")
    x = layers.Conv2D(48, 3, padding="same", strides=2, use_bias=False, name="conv2")(x)
    x = normalise_and_rectify(x, "conv2")
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = normalise_and_rectify(x, "depthwise")
    x = layers.Conv2D(64, 3, padding="same", name="conv3")(x)
    x = normalise_and_rectify(x, "conv3")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(128, name="dense")(x)
    x = normalise_and_rectify(x, "dense")
    x = layers.Dropout(0.2, seed=seed, name="dropout")(x)
    digit = layers.Dense(10, activation="softmax", name="digit")(x)
    return keras.Model(image, digit, name="digits_cnn")
