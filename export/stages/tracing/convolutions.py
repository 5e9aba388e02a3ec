"""Dilated convolutions of unknown size, or with strides, as ONNX's Conv.

TensorFlow splits such an input into interleaved images, pads them to sizes that it computes, and
puts the results together again; with strides, Keras leaves out rows afterwards. For a size n, a
kernel size k, a dilation d and a stride s the padding, both sides together, is

    "valid"     0
    "same"      max((k - 1) * d - (n - 1) mod s, 0); half of it, rounded down, in front

so that only a stride makes it depend on the size. If what is in front depends on it too, as for all
odd kernels, a Pad computes it, because ONNX Runtime refuses `auto_pad` with dilations.

Kernels go from (*spatial, C / groups, F) to (F, C / groups, *spatial); depthwise ones, which are
(*spatial, C, multiplier) in Keras, have as many groups as channels.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from .conversions import place_operator

__all__ = ["convolution_functions"]


def convolution_functions() -> list[tuple[Any, str, Callable[..., Any]]]:
    """Return Keras's functions that convolve: their module, name, and what to call instead."""
    functions: dict[str, Callable[..., Any]] = {
        "conv": _conv,
        "depthwise_conv": _depthwise,
        "separable_conv": _separable,
    }
    return [(keras.src.backend.nn, name, function) for name, function in functions.items()]


def _conv(inputs: Any, kernel: Any, *how: Any, **named: Any) -> Any:
    x, weights = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
    window = _Window(x, weights, *how, **named)
    if not window.is_kept_whole or max(window.strides) > 1:  # TensorFlow refuses strides
        return None
    return window.place(x, weights, x.shape[window.channel_axis] // weights.shape[-2])


def _depthwise(inputs: Any, kernel: Any, *how: Any, **named: Any) -> Any:
    x, weights = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
    window = _Window(x, weights, *how, **named)
    if not window.is_kept_whole:
        return None
    *size, channels, multiplier = weights.shape
    return window.place(x, tf.reshape(weights, [*size, 1, channels * multiplier]), channels)


def _separable(
    inputs: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> Any:
    y = _depthwise(inputs, depthwise_kernel, strides, padding, data_format, dilation_rate)
    if y is None:
        return None
    weights = tf.convert_to_tensor(pointwise_kernel)
    return _Window(y, weights, data_format=data_format).place(y, weights, 1)


class _Window:
    """How a convolution goes over its input.

    Args:
        x: The input, shape (N, *spatial, C), or (N, C, *spatial) if channels come first.
        weights: The kernel, its first sizes the spatial ones.
        strides: One for all axes, or one for each.
        padding: "valid" or "same".
        data_format: As in Keras.
        dilation_rate: As `strides`.
    """

    def __init__(
        self,
        x: Any,
        weights: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: Any = None,
        dilation_rate: Any = 1,
    ) -> None:
        self._axes = len(weights.shape) - 2
        self._kernel = weights.shape.as_list()[: self._axes]
        self.strides, self._dilations = self._each(strides), self._each(dilation_rate)
        self._is_same = padding.lower() == "same"
        first = keras.config.image_data_format() if data_format is None else data_format
        self.channel_axis = 1 if first == "channels_first" else self._axes + 1
        start = 2 if self.channel_axis == 1 else 1
        self._sizes = x.shape.as_list()[start : start + self._axes]

    def _each(self, number: Any) -> list[int]:
        return [number] * self._axes if isinstance(number, int) else list(number)

    @property
    def is_kept_whole(self) -> bool:
        """Whether TensorFlow, but not ONNX, takes this convolution apart."""
        return max(self._dilations) > 1 and (None in self._sizes or max(self.strides) > 1)

    def place(self, x: Any, weights: Any, groups: int) -> Any:
        """Put down the Conv; `weights` have the shape (*spatial, C / groups, F)."""
        rank, is_first = self._axes + 2, self.channel_axis == 1
        padding = self._padding(x)
        if any(tf.is_tensor(total) for total in padding):
            sides = [(total // 2, total - total // 2) for total in padding]
            sides.insert(self.channel_axis - 1, (0, 0))
            x, padding = tf.pad(x, tf.stack([(0, 0), *sides])), [0] * self._axes
        before = [total // 2 for total in padding]
        after = [total - total // 2 for total in padding]
        spatial = [
            size if size is None else -(-(size - reach * (not self._is_same)) // stride)
            for size, reach, stride in zip(self._sizes, self._reach, self.strides, strict=True)
        ]
        channels = weights.shape[-1]
        (y,) = place_operator(
            "Conv",
            [x, tf.transpose(weights, [rank - 1, rank - 2, *range(self._axes)])],
            [[x.shape[0], channels, *spatial] if is_first else [x.shape[0], *spatial, channels]],
            {
                "kernel_shape": self._kernel,
                "strides": self.strides,
                "dilations": self._dilations,
                "pads": [*before, *after],
                "group": groups,
            },
            [0, self.channel_axis, *(a for a in range(1, rank) if a != self.channel_axis)],
        )
        return y

    @property
    def _reach(self) -> list[int]:
        """How far the window reaches beyond its first place, along each axis."""
        return [(k - 1) * d for k, d in zip(self._kernel, self._dilations, strict=True)]

    def _padding(self, x: Any) -> list[Any]:
        """Return how much to pad along each axis, both sides together; a tensor if computed."""
        if not self._is_same:
            return [0] * self._axes
        padding: list[Any] = []
        for axis, (reach, stride) in enumerate(zip(self._reach, self.strides, strict=True)):
            size = self._sizes[axis]
            in_front = {max(reach - rest, 0) // 2 for rest in range(stride)}
            if size is not None:
                padding.append(max(reach - (size - 1) % stride, 0))
            elif len(in_front) == 1:  # one more behind than needed makes no further window
                padding.append(reach)
            else:
                size = tf.shape(x)[axis + (2 if self.channel_axis == 1 else 1)]
                padding.append(tf.maximum(reach - (size - 1) % stride, 0))
        return padding
