"""Operators over windows in float64, where ONNX Runtime has none, as the standard defines them.

    Conv            y[m, p] = sum_k  W[m, :, k] . x[:, p * stride + k * dilation - pad]
    ConvTranspose   y[m, p * stride + k * dilation - pad] += W[:, m, k] . x[:, p]
    AveragePool     a sum of the same windows, divided by how many values they hold

for any rank and groups, one position k of the kernel at a time, a product of matrices each.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["average_pool", "conv", "conv_transpose"]


def conv(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    group: int = 1,
    **attributes: Any,
) -> np.ndarray:
    """Convolve.

    Args:
        x: Shape (N, C, ...), float64.
        weight: Shape (M, C / group, ...).
        bias: Shape (M,).
        group: Number of groups.
        attributes: Those of ONNX's Conv, by name.
    """
    layout = _Layout(x.shape[2:], weight.shape[2:], attributes)
    padded, (n, channels) = layout.padded(x, 0.0), x.shape[:2]
    rows = weight.reshape(group, len(weight) // group, channels // group, -1)
    total: Any = 0.0
    for number, window in enumerate(layout.windows()):
        columns = padded[(..., *window)].reshape(n, group, channels // group, -1)
        total = total + rows[..., number] @ columns
    y: np.ndarray = total.reshape(n, len(weight), *layout.output)
    return y if bias is None else y + bias.reshape(-1, *(1 for _ in layout.output))


def conv_transpose(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    group: int = 1,
    output_shape: list[int] | None = None,
    output_padding: list[int] | None = None,
    **attributes: Any,
) -> np.ndarray:
    """Convolve by the transpose of what `conv` does.

    Args:
        x: Shape (N, C, ...), float64.
        weight: Shape (C, M / group, ...).
        bias: Shape (M,).
        group: Number of groups.
        output_shape: Sizes to return, else those that the other attributes give.
        output_padding: What to add to each size.
        attributes: Those of ONNX's ConvTranspose, by name.
    """
    (n, channels, *sizes), kernel = x.shape, weight.shape[2:]
    rank = len(kernel)
    strides = attributes.get("strides") or [1] * rank
    dilations = attributes.get("dilations") or [1] * rank
    more = output_padding or [0] * rank
    mode = attributes.get("auto_pad") or "NOTSET"
    full = [
        (size - 1) * s + (k - 1) * d + 1 + extra
        for size, s, k, d, extra in zip(sizes, strides, kernel, dilations, more, strict=True)
    ]
    pads = attributes.get("pads") or [0] * 2 * rank
    wanted = list(output_shape[-rank:]) if output_shape else None
    if wanted is None and mode.startswith("SAME"):
        wanted = [size * s for size, s in zip(sizes, strides, strict=True)]
    if wanted is not None:
        excess = [have - want for have, want in zip(full, wanted, strict=True)]
        less = [e // 2 if mode == "SAME_UPPER" else e - e // 2 for e in excess]
        pads = [*less, *(e - begin for e, begin in zip(excess, less, strict=True))]
    columns = weight.reshape(group, channels // group, weight.shape[1], -1)
    x = x.reshape(n, group, channels // group, -1)
    y = np.zeros((n, group * weight.shape[1], *full))
    for number, offsets in enumerate(itertools.product(*map(range, kernel))):
        place: Any = tuple(
            slice(o * d, o * d + (size - 1) * s + 1, s)
            for o, d, size, s in zip(offsets, dilations, sizes, strides, strict=True)
        )
        part = np.swapaxes(columns[..., number], 1, 2) @ x
        y[(..., *place)] += part.reshape(n, -1, *sizes)
    begins, ends = pads[:rank], pads[rank:]
    beyond = [(max(-b, 0), max(-e, 0)) for b, e in zip(begins, ends, strict=True)]
    y = np.pad(y, [(0, 0), (0, 0), *beyond])
    inside: list[Any] = [
        slice(max(b, 0), size - max(e, 0))
        for b, e, size in zip(begins, ends, y.shape[2:], strict=True)
    ]
    y = y[(..., *inside)]
    return y if bias is None else y + bias.reshape(-1, *(1 for _ in kernel))


def average_pool(
    x: np.ndarray, *, kernel_shape: list[int], count_include_pad: int = 0, **attributes: Any
) -> np.ndarray:
    """Take the mean of each window.

    Args:
        x: Shape (N, C, ...), float64.
        kernel_shape: Size of a window.
        count_include_pad: Whether what is padded counts as zeros.
        attributes: Those of ONNX's AveragePool, by name.

    Raises:
        NotImplementedError: If windows may reach beyond the padding.
    """
    if attributes.get("ceil_mode"):
        raise NotImplementedError("AveragePool with ceil_mode")
    layout = _Layout(x.shape[2:], kernel_shape, attributes)
    padded = layout.padded(x, 0.0)
    there = layout.padded(np.ones((1, 1, *x.shape[2:])), float(count_include_pad))
    windows = list(layout.windows())
    total = sum(padded[(..., *window)] for window in windows)
    count = sum(there[(..., *window)] for window in windows)
    return np.asarray(total / count)


class _Layout:
    """Where the windows of an operator lie.

    Args:
        sizes: The input's, without batch and channels.
        kernel: Size of a window.
        attributes: strides, dilations, pads and auto_pad, each or none.

    Attributes:
        output: How many windows there are along each axis.
    """

    def __init__(self, sizes: Any, kernel: Any, attributes: dict[str, Any]) -> None:
        rank = len(kernel)
        self._kernel = kernel
        self._strides = attributes.get("strides") or [1] * rank
        self._dilations = attributes.get("dilations") or [1] * rank
        extents = [(k - 1) * d + 1 for k, d in zip(kernel, self._dilations, strict=True)]
        mode = attributes.get("auto_pad") or "NOTSET"
        pads = attributes.get("pads") if mode == "NOTSET" else None
        pads = pads or [0] * 2 * rank
        self._padding = list(zip(pads[:rank], pads[rank:], strict=True))
        if mode.startswith("SAME"):
            self._padding = [
                _same(size, extent, stride, upper=mode == "SAME_UPPER")
                for size, extent, stride in zip(sizes, extents, self._strides, strict=True)
            ]
        padded = [size + sum(pad) for size, pad in zip(sizes, self._padding, strict=True)]
        # Rounded towards zero, as ONNX Runtime does: a window larger than the input is cut off.
        self.output = [
            int((size - extent) / stride) + 1
            for size, extent, stride in zip(padded, extents, self._strides, strict=True)
        ]
        self._beyond = [
            (0, max((count - 1) * stride + extent - size, 0))
            for size, extent, stride, count in zip(
                padded, extents, self._strides, self.output, strict=True
            )
        ]

    def padded(self, x: np.ndarray, value: float) -> np.ndarray:
        """Return an array with its padding."""
        x = np.pad(x, [(0, 0), (0, 0), *self._padding], constant_values=value)
        return np.pad(x, [(0, 0), (0, 0), *self._beyond])

    def windows(self) -> Iterator[Any]:
        """Yield, for each position in a window, its slices of all of them."""
        for offsets in itertools.product(*map(range, self._kernel)):
            yield tuple(
                slice(o * d, o * d + (count - 1) * s + 1, s)
                for o, d, count, s in zip(
                    offsets, self._dilations, self.output, self._strides, strict=True
                )
            )


def _same(size: int, extent: int, stride: int, *, upper: bool) -> tuple[int, int]:
    """Return the padding that leaves a window for every `stride` values."""
    total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
    less, more = total // 2, total - total // 2
    return (less, more) if upper else (more, less)
