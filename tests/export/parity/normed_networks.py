"""Networks with norms that are taken on every image anew, over many positions.

Instance and group norms divide by the spread of each map, which for a flat map is next to nothing:
what rounding does to the mean of equal values is all that is left there.
"""

import itertools

import keras

from keras_bn import BatchNormalization

NORMS = {
    "group": lambda epsilon: keras.layers.GroupNormalization(4, epsilon=epsilon),
    "instance": lambda epsilon: keras.layers.GroupNormalization(-1, epsilon=epsilon),
    "layer": lambda epsilon: keras.layers.LayerNormalization(epsilon=epsilon),
}
ACTIVATIONS = ("silu", "relu", "gelu")
EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6)
OPTIONS = tuple(itertools.product(NORMS, ACTIVATIONS, EPSILONS))


def unet(size, norm, activation, epsilon):
    """Make a U-Net of two levels on images of shape (size, size, 3)."""

    def block(x, channels):
        x = keras.layers.Conv2D(channels, 3, padding="same")(x)
        return keras.layers.Activation(activation)(NORMS[norm](epsilon)(x))

    image = keras.Input((size, size, 3), name="image")
    first = block(image, 8)
    second = block(keras.layers.MaxPooling2D()(first), 16)
    x = block(keras.layers.MaxPooling2D()(second), 16)
    for skip in (second, first):
        x = keras.layers.Concatenate()([keras.layers.UpSampling2D()(x), skip])
        x = block(x, skip.shape[-1])
    return keras.Model(image, keras.layers.Conv2D(3, 1)(x))


def resnet(size, norm, activation, epsilon):
    """Make a pre-activation ResNet of two blocks, with a batch norm, on (size, size, 3)."""

    def convolved(x, channels):
        x = keras.layers.Activation(activation)(NORMS[norm](epsilon)(x))
        return keras.layers.Conv2D(channels, 3, padding="same")(x)

    image = keras.Input((size, size, 3), name="image")
    x = BatchNormalization()(keras.layers.Conv2D(8, 3, padding="same")(image))
    for channels in (8, 16):
        y = convolved(convolved(x, channels), channels)
        x = keras.layers.Add()([keras.layers.Conv2D(channels, 1)(x), y])
    x = keras.layers.Activation(activation)(NORMS[norm](epsilon)(x))
    return keras.Model(image, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x)))


NETWORKS = {"unet with norms": unet, "resnet with norms": resnet}


def normed(name, seed, size=96):
    """Make the network of a row with the options that a seed stands for, of fixed or free size."""
    options = OPTIONS[seed % len(OPTIONS)]
    free = (seed + seed // len(EPSILONS) + seed // len(OPTIONS)) % 2
    return NETWORKS[name](None if free else size, *options)
