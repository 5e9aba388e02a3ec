"""Two inputs and two outputs by name: an image and measurements in, a class and a number out.

The common "wide" fusion of modalities: each has a branch of its own, with batch norms, the branches
are concatenated, and two heads read the joint features. What comes in and goes out are dicts.
"""

import keras
from keras import layers

from keras_bn import BatchNormalization

__all__ = ["build"]


def build(
    seed: int = 0, *, size: int = 16, features: int = 6, classes: int = 4, width: int = 16
) -> keras.Model:
    """Build the network.

    Args:
        seed: Seed of the initial weights; sets Keras's global seed.
        size: Height and width of the image, at least 4.
        features: Number of measurements that come with the image.
        classes: To tell apart.
        width: Channels of the first convolution, and units of the branch of the measurements.

    Returns:
        An uncompiled model from {"image": shape (N, size, size, 3), "features": shape
        (N, features)} to {"label": class probabilities, shape (N, classes), "amount": any real
        number, shape (N, 1)}, all float32. It has about 3 thousand parameters.
    """
    keras.utils.set_random_seed(seed)

    def normalise_and_rectify(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = BatchNormalization(name=f"{name}_bn")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    image = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False, name="conv1")(image)
    x = normalise_and_rectify(x, "conv1")
    x = layers.SeparableConv2D(2 * width, 3, padding="same", use_bias=False, name="conv2")(x)
    x = normalise_and_rectify(x, "conv2")
    x = layers.GlobalAveragePooling2D(name="pool")(x)

    # The first batch norm learns the measurements' units from the data.
    measured = keras.Input((features,), name="features")
    y = BatchNormalization(name="units_bn")(measured)
    y = normalise_and_rectify(layers.Dense(width, use_bias=False, name="dense")(y), "dense")

    joint = layers.Concatenate(name="joint")([x, y])
    joint = layers.Dense(2 * width, use_bias=False, name="joint_dense")(joint)
    joint = normalise_and_rectify(joint, "joint_dense")
    label = layers.Dense(classes, activation="softmax", name="label")(joint)
    amount = layers.Dense(1, name="amount")(joint)
    return keras.Model(
        {"image": image, "features": measured},
        {"label": label, "amount": amount},
        name="two_inputs",
    )
