"""Batch norm from its definition, in NumPy float64: what the tests compare with."""

import numpy as np


def moments(x, axis=-1, mask=None):
    """Return mean, biased variance and count of each channel, shape (C,) each."""
    x = np.moveaxis(np.asarray(x, np.float64), axis, -1)
    w = (
        np.ones(x.shape)
        if mask is None
        else np.moveaxis(
            np.broadcast_to(
                np.asarray(mask, np.float64)[..., None], np.moveaxis(x, -1, axis).shape
            ),
            axis,
            -1,
        )
    )
    x, w = x.reshape(-1, x.shape[-1]), w.reshape(-1, x.shape[-1])
    count = w.sum(0)
    mean = (w * x).sum(0) / count
    return mean, (w * (x - mean) ** 2).sum(0) / count, count


def normalise(x, mean, variance, gamma, beta, epsilon, axis=-1):
    """Return gamma * (x - mean) / sqrt(variance + epsilon) + beta."""
    x = np.moveaxis(np.asarray(x, np.float64), axis, -1)
    y = gamma * (x - mean) / np.sqrt(variance + epsilon) + beta
    return np.moveaxis(y, -1, axis)


def gradients(x, dy, gamma, epsilon):
    """Return d/dx, d/dgamma and d/dbeta of sum(dy * y) for training mode, channels last."""
    x, dy = np.asarray(x, np.float64), np.asarray(dy, np.float64)
    axes = tuple(range(x.ndim - 1))
    mean, variance, count = moments(x)
    deviation = np.sqrt(variance + epsilon)
    normal = (x - mean) / deviation
    dgamma, dbeta = (dy * normal).sum(axes), dy.sum(axes)
    dx = gamma / deviation * (dy - dbeta / count - normal * dgamma / count)
    return dx, dgamma, dbeta
