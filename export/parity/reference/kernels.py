"""Bilinear and bicubic resizing in float64.

TensorFlow's compute in float32 whatever they are given, places of pixels and, by a table of 1024,
weights included. Resizing that is antialiased or keeps the aspect ratio stays TensorFlow's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["resize"]


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
