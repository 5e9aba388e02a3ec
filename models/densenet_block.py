"""DenseNet: every layer reads the concatenation of all layers before it in its block.

Huang et al. 2017, arXiv:1608.06993, the variant BC with bottlenecks and compression:

    x <- [x, conv3x3(relu(bn(conv1x1(relu(bn(x))))))]

The batch norm before a bottleneck reads a Concat and is followed by a ReLU, so it folds into
neither side: what the graph has to keep. The one behind the bottleneck folds.
"""

import keras
from keras import layers

from keras_bn import BatchNormalization

__all__ = ["build"]


def build(
    seed: int = 0,
    *,
    size: int = 32,
    blocks: tuple[int, ...] = (3, 3),
    growth: int = 8,
    classes: int = 10,
) -> keras.Model:
    """Build the network.

    Args:
        seed: Seed of the initial weights; sets Keras's global seed.
        size: Height and width of the image, a multiple of 2 ** len(blocks).
        blocks: Number of layers in each dense block.
        growth: Channels that each layer adds, the paper's k.
        classes: To tell apart.

    Returns:
        An uncompiled model from images, shape (N, size, size, 3), float32, to class probabilities,
        shape (N, classes), float32. It has about 22 thousand parameters.
    """
    keras.utils.set_random_seed(seed)
    image = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(2 * growth, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    for number, depth in enumerate(blocks, 1):
        if number > 1:
            x = _transition(x, f"transition{number - 1}")
        for layer in range(1, depth + 1):
            grown = _dense_layer(x, growth, f"block{number}_layer{layer}")
            x = layers.Concatenate(name=f"block{number}_layer{layer}_concat")([x, grown])
    x = _normalise_and_rectify(x, "top")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    label = layers.Dense(classes, activation="softmax", name="label")(x)
    return keras.Model(image, label, name="densenet_block")


def _dense_layer(x: keras.KerasTensor, growth: int, name: str) -> keras.KerasTensor:
    x = _normalise_and_rectify(x, f"{name}_in")
    x = layers.Conv2D(4 * growth, 1, use_bias=False, name=f"{name}_bottleneck")(x)
    x = _normalise_and_rectify(x, f"{name}_bottleneck")
    return layers.Conv2D(growth, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)


def _transition(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Halve the channels and both sides of the image."""
    x = _normalise_and_rectify(x, f"{name}_in")
    x = layers.Conv2D(x.shape[-1] // 2, 1, use_bias=False, name=f"{name}_conv")(x)
    return layers.AveragePooling2D(2, name=f"{name}_pool")(x)


def _normalise_and_rectify(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(name=f"{name}_relu")(BatchNormalization(name=f"{name}_bn")(x))
