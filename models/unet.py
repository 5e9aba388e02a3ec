"""U-Net: an encoder, a decoder of transposed convolutions, and a skip connection at every scale.

Ronneberger et al. 2015, arXiv:1505.04597, with padded convolutions and a batch norm behind each,
as in its 3-D successor (Çiçek et al. 2016, arXiv:1606.06650). A skip connection concatenates what
two batch norms made, and the batch norm of a transposed convolution meets that Concat too.
"""

import keras
from keras import layers

from keras_bn import BatchNormalization

__all__ = ["build"]


def build(
    seed: int = 0, *, channels: int = 3, classes: int = 3, width: int = 8, depth: int = 2
) -> keras.Model:
    """Build the network.

    Args:
        seed: Seed of the initial weights; sets Keras's global seed.
        channels: Of the image.
        classes: To tell apart in each pixel.
        width: Channels of the first convolutions; each scale has twice those of the one before.
        depth: Number of times that the image is halved.

    Returns:
        An uncompiled model from images, shape (N, H, W, channels), float32, where H and W are any
        multiples of 2 ** depth, to class probabilities, shape (N, H, W, classes), float32. It has
        about 30 thousand parameters.
    """
    keras.utils.set_random_seed(seed)
    image = keras.Input((None, None, channels), name="image")
    x, skips = image, []
    for scale in range(depth):
        x = _convolve_twice(x, width * 2**scale, f"down{scale}")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"down{scale}_pool")(x)
    x = _convolve_twice(x, width * 2**depth, "bottom")
    for scale in reversed(range(depth)):
        filters, name = width * 2**scale, f"up{scale}"
        x = layers.Conv2DTranspose(filters, 2, strides=2, name=f"{name}_transposed")(x)
        x = _normalise_and_rectify(x, f"{name}_transposed")
        x = layers.Concatenate(name=f"{name}_skip")([skips[scale], x])
        x = _convolve_twice(x, filters, name)
    pixel = layers.Conv2D(classes, 1, activation="softmax", name="pixel")(x)
    return keras.Model(image, pixel, name="unet")


def _convolve_twice(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    for i in (1, 2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv{i}")(x)
        x = _normalise_and_rectify(x, f"{name}_conv{i}")
    return x


def _normalise_and_rectify(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(name=f"{name}_relu")(BatchNormalization(name=f"{name}_bn")(x))
