"""What TensorFlow does not compute in float64 on a CPU, computed in float64.

a maximum in three dimensions    over two axes, then over the third
bilinear, bicubic resizing       TensorFlow's compute in float32 whatever they are given, places
                                 of pixels and, by a table of 1024, weights included

Resizing that is antialiased or keeps the aspect ratio stays TensorFlow's.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["max_pool_3d", "resize"]


def max_pool_3d(layer: Any, inputs: Any) -> Any:
    """Compute what a MaxPooling3D does, shape (N, D, H, W, C): over H and W, then over D."""
    first = layer.data_format == "channels_first"
    x = keras.ops.moveaxis(inputs, 1, -1) if first else inputs
    (depth, *plane), (step, *steps) = layer.pool_size, layer.strides
    n, d, h, w, c = keras.ops.shape(x)
    x = keras.ops.reshape(x, (n * d, h, w, c))
    x = keras.ops.max_pool(x, plane, steps, layer.padding, "channels_last")
    _, h, w, _ = keras.ops.shape(x)
    x = keras.ops.reshape(x, (n, d, h * w, c))
    x = keras.ops.max_pool(x, (depth, 1), (step, 1), layer.padding, "channels_last")
    x = keras.ops.reshape(x, (n, keras.ops.shape(x)[1], h, w, c))
    return keras.ops.moveaxis(x, -1, 1) if first else x


def resize(
    original: Callable[..., Any],
    images: Any,
    size: Any,
    method: Any = "bilinear",
    preserve_aspect_ratio: bool = False,
    antialias: bool = False,
    name: Any = None,
) -> Any:
    """Resize images, shape (..., H, W, C), in float64: weights by distance from pixel to pixel.

    Pixels outside count nothing, and the weights of the others add up to 1. Bicubic ones are those
    of R. G. Keys 1981, "Cubic convolution interpolation", with a = -1/2, as TensorFlow's.
    """
    wide = tf.is_tensor(images) and images.dtype == tf.float64
    plain = wide and not preserve_aspect_ratio and not antialias
    if method not in WEIGHTS or not plain:
        return original(images, size, method, preserve_aspect_ratio, antialias, name)
    offsets, weigh = WEIGHTS[method]
    for axis, length in zip((-3, -2), size, strict=True):
        count = int(images.shape[axis])
        position = (np.arange(int(length)) + 0.5) * (count / int(length)) - 0.5
        places = [np.floor(position) + offset for offset in offsets]
        weights = [
            weigh(np.abs(position - place)) * ((place >= 0) & (place < count)) for place in places
        ]
        total, column = np.sum(weights, axis=0), (-1, *(1,) * (-1 - axis))
        images = sum(
            tf.gather(images, np.clip(place, 0, count - 1).astype(int), axis=axis)
            * (weight / total).reshape(column)
            for place, weight in zip(places, weights, strict=True)
        )
    return images


def _linear(distance: np.ndarray) -> np.ndarray:
    return 1 - distance


def _cubic(distance: np.ndarray) -> np.ndarray:
    d = distance
    near, far = (1.5 * d - 2.5) * d**2 + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    weights: np.ndarray = np.where(d <= 1, near, far)
    return weights


# The pixels that each method reads, from the one before a place on, and their weights.
WEIGHTS = {"bilinear": (range(2), _linear), "bicubic": (range(-1, 3), _cubic)}
