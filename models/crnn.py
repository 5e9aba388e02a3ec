"""CRNN: reads a line of text, one character distribution for each step along the line.

Shi et al. 2015, arXiv:1507.05717: convolutions shrink the image of a line until each column is one
step of a sequence, a bidirectional recurrent layer reads it, and a Dense layer names a character or
the blank at each step, for connectionist temporal classification (Graves et al. 2006).
"""

from typing import Literal

import keras
from keras import layers

from keras_bn import BatchNormalization

__all__ = ["build"]

HALVINGS = 2  # of the width
HEIGHT_HALVINGS = 3


def build(
    seed: int = 0,
    *,
    height: int = 16,
    width: int | None = 48,
    characters: int = 26,
    units: int = 24,
    recurrent: Literal["gru", "lstm"] = "gru",
) -> keras.Model:
    """Build the network.

    Args:
        seed: Seed of the initial weights; sets Keras's global seed.
        height: Of the image, a multiple of 8.
        width: Of the image, at least 4; None leaves it open.
        characters: In the alphabet, without the blank.
        units: Of the recurrent layer, in each direction.
        recurrent: Kind of the recurrent layer.

    Returns:
        An uncompiled model from grey images, shape (N, height, width, 1), float32, to the
        probabilities of the characters and, last, of the blank: shape
        (N, width // 4, characters + 1), float32. It has about 20 thousand parameters.
    """
    keras.utils.set_random_seed(seed)
    line = keras.Input((height, width, 1), name="line")
    x = line
    for stage in range(HEIGHT_HALVINGS):
        name, pool = f"conv{stage + 1}", (2, 2 if stage < HALVINGS else 1)
        # The bias is as in the paper; the batch norm cancels it, and the export folds both.
        x = layers.Conv2D(12 * 2 ** min(stage, 1), 3, padding="same", name=name)(x)
        x = BatchNormalization(name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
        x = layers.MaxPooling2D(pool, name=f"{name}_pool")(x)
    x = layers.Permute((2, 1, 3), name="columns")(x)
    x = layers.Reshape((-1, x.shape[2] * x.shape[3]), name="steps")(x)
    cell = {"gru": layers.GRU, "lstm": layers.LSTM}[recurrent]
    forward = cell(units, return_sequences=True, name=recurrent)
    x = layers.Bidirectional(forward, name="bidirectional")(x)
    x = BatchNormalization(name="bidirectional_bn")(x)
    character = layers.Dense(characters + 1, activation="softmax", name="character")(x)
    return keras.Model(line, character, name="crnn")
