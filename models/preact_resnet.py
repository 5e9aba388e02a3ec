"""ResNet v2: residual blocks whose batch norms and ReLUs come before the convolutions.

He et al. 2016, arXiv:1603.05027, with the bottleneck blocks and the stem of `ResNet50V2`:

    p = relu(bn(x))
    x <- shortcut + conv1x1(relu(bn(conv3x3(relu(bn(conv1x1(p)))))))

where the shortcut is x itself, x max-pooled by 1 with stride 2, or a 1 x 1 convolution of p. Zeros
are padded by layers of their own; the padding in front of the stem's max-pooling is one that must
stay zero: the pool's own padding is minus infinity.
"""

import keras
from keras import layers

from keras_bn import BatchNormalization

__all__ = ["build"]


def build(
    seed: int = 0,
    *,
    size: int = 64,
    blocks: tuple[int, ...] = (2, 2),
    width: int = 8,
    classes: int = 10,
) -> keras.Model:
    """Build the network.

    Args:
        seed: Seed of the initial weights; sets Keras's global seed.
        size: Height and width of the image.
        blocks: Number of residual blocks at each scale; the first of a scale has a projection as
            its shortcut, the last one, but for the last scale, halves the image.
        width: Channels inside the first blocks; four times as many come out.
        classes: To tell apart.

    Returns:
        An uncompiled model from images, shape (N, size, size, 3), float32, to class probabilities,
        shape (N, classes), float32. It has about 17 thousand parameters.
    """
    keras.utils.set_random_seed(seed)
    image = keras.Input((size, size, 3), name="image")
    x = layers.ZeroPadding2D(3, name="stem_conv_pad")(image)
    x = layers.Conv2D(2 * width, 7, strides=2, name="stem_conv")(x)
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    for scale, depth in enumerate(blocks, 1):
        for block in range(1, depth + 1):
            halves = block == depth and scale < len(blocks)
            name = f"scale{scale}_block{block}"
            x = _block(x, width * 2 ** (scale - 1), block == 1, 2 if halves else 1, name)
    x = _normalise_and_rectify(x, "top")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    label = layers.Dense(classes, activation="softmax", name="label")(x)
    return keras.Model(image, label, name="preact_resnet")


def _block(
    x: keras.KerasTensor, filters: int, projects: bool, stride: int, name: str
) -> keras.KerasTensor:
    active = _normalise_and_rectify(x, f"{name}_in")
    if projects:
        shortcut = layers.Conv2D(4 * filters, 1, strides=stride, name=f"{name}_project")(active)
    else:
        shortcut = (
            layers.MaxPooling2D(1, strides=stride, name=f"{name}_pool")(x) if stride > 1 else x
        )
    y = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_reduce")(active)
    y = _normalise_and_rectify(y, f"{name}_reduce")
    y = layers.ZeroPadding2D(1, name=f"{name}_pad")(y)
    y = layers.Conv2D(filters, 3, strides=stride, use_bias=False, name=f"{name}_conv")(y)
    y = _normalise_and_rectify(y, f"{name}_conv")
    y = layers.Conv2D(4 * filters, 1, name=f"{name}_expand")(y)
    return layers.Add(name=f"{name}_add")([shortcut, y])


def _normalise_and_rectify(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(name=f"{name}_relu")(BatchNormalization(name=f"{name}_bn")(x))
