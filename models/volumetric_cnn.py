"""A 3-D convolutional network for video clips or volumes.

Tran et al. 2015 (C3D), arXiv:1412.0767: 3 x 3 x 3 kernels throughout, and a first pooling that
leaves time alone, so that motion is not lost early. With batch norms, and global average pooling
in place of the wide Dense layers.
"""

import keras
from keras import layers

from keras_bn import BatchNormalization

__all__ = ["build"]


def build(
    seed: int = 0,
    *,
    shape: tuple[int | None, int | None, int | None] = (8, 16, 16),
    channels: int = 1,
    classes: int = 6,
    width: int = 8,
) -> keras.Model:
    """Build the network.

    Args:
        seed: Seed of the initial weights; sets Keras's global seed.
        shape: Frames, height and width; frames at least 4, the others at least 8. None leaves a
            size open.
        channels: Of each frame.
        classes: To tell apart.
        width: Channels of the first convolution; each pooling is followed by twice as many.

    Returns:
        An uncompiled model from clips, shape (N, *shape, channels), float32, to class
        probabilities, shape (N, classes), float32. It has about 18 thousand parameters.
    """
    keras.utils.set_random_seed(seed)
    clip = keras.Input((*shape, channels), name="clip")
    x = clip
    for stage, pool in enumerate([(1, 2, 2), (2, 2, 2), (2, 2, 2)]):
        name = f"conv{stage + 1}"
        x = layers.Conv3D(width * 2**stage, 3, padding="same", use_bias=False, name=name)(x)
        x = BatchNormalization(name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
        x = layers.MaxPooling3D(pool, name=f"{name}_pool")(x)
    x = layers.GlobalAveragePooling3D(name="pool")(x)
    label = layers.Dense(classes, activation="softmax", name="label")(x)
    return keras.Model(clip, label, name="volumetric_cnn")
