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


def unbiased_moments(x, axis=-1, weight=None):
    """Return mean and variance times n / (n - 1), with n = W^2 / sum w^2; shape (C,) each."""
    mean, variance, total = moments(x, axis, weight)
    squares = total if weight is None else moments(x, axis, np.square(weight))[2]
    n = total**2 / squares
    return mean, variance * np.where(n > 1, n / np.maximum(n - 1, 1e-300), 1)


def pooled_statistics(batches, axis=-1, weights=None):
    """Return mean and unbiased variance of all values of some batches, shape (C,) each."""
    flat = [np.moveaxis(np.asarray(x, np.float64), axis, -1) for x in batches]
    values = np.concatenate([x.reshape(-1, x.shape[-1]) for x in flat])
    if weights is not None:
        pairs = zip(weights, flat, strict=True)
        weights = np.concatenate([np.broadcast_to(w, x.shape[:-1]).ravel() for w, x in pairs])
    return unbiased_moments(values, -1, weights)


def averaged_statistics(batches, axis=-1, weights=None):
    """Return the mean of the batches' means and of their unbiased variances: Algorithm 2.

    A batch with a single value has no unbiased variance.
    """
    weights = [None] * len(batches) if weights is None else weights
    found = [unbiased_moments(x, axis, w) for x, w in zip(batches, weights, strict=True)]
    means, variances = zip(*found, strict=True)
    several = [np.moveaxis(x, axis, -1)[..., 0].size > 1 for x in batches]
    return np.mean(means, 0), np.mean([v for v, n in zip(variances, several, strict=True) if n], 0)


def population_statistics(
    batches, stages, affine, *, paper, sequential=False, axis=-1, weights=None, epsilon=1e-3
):
    """Return the population mean and variance of each batch norm of a chain.

    The chain is stages[0], batch norm 0, stages[1], batch norm 1, ...; a stage is a function of an
    array, `affine` has gamma and beta of each batch norm, and `weights` an array for each batch, of
    the shape of the batch norms' inputs without channels.
    """
    found = []
    each = [None] * len(batches) if weights is None else weights
    for stage, (gamma, beta) in zip(stages, affine, strict=True):
        batches = [stage(x) for x in batches]
        found.append((averaged_statistics if paper else pooled_statistics)(batches, axis, weights))
        used = [
            found[-1] if sequential else moments(x, axis, w)[:2]
            for x, w in zip(batches, each, strict=True)
        ]
        batches = [
            normalise(x, *statistics, gamma, beta, epsilon, axis)
            for x, statistics in zip(batches, used, strict=True)
        ]
    return found


def convolve(x, kernel):
    """Return the "valid" 2-D convolution of (N, H, W, C) with a kernel (h, w, C, D)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nhwcij,ijcd->nhwd", windows, np.asarray(kernel, np.float64))


def covariate_shift(x, stored_mean, stored_variance, epsilon):
    """Return the moments' shift with its standard errors; axis 0 has the independent samples."""
    x = np.asarray(x, np.float64)
    rows = x.reshape(len(x), -1, x.shape[-1])
    values = rows.reshape(-1, x.shape[-1])
    mean, variance = values.mean(0), values.var(0, ddof=1)
    scale = stored_variance + epsilon
    difference, ratio = (mean - stored_mean) / np.sqrt(scale), (variance + epsilon) / scale
    influence = ((rows - mean) ** 2).mean(1) - values.var(0)  # of a sample on the variance
    error = np.sqrt(rows.mean(1).var(0, ddof=1) / len(x) / scale)
    return {
        "mean_difference": difference,
        "mean_error": error,
        "log_variance_ratio": np.log(ratio),
        "log_variance_error": np.sqrt(influence.var(0, ddof=1) / len(x)) / scale / ratio,
        "divergence": (ratio + difference**2 - 1 - np.log(ratio)) / 2,
    }
