"""MaxPool, AveragePool and BatchNormalization for onnx.reference, as the standard defines them.

Those of onnx 1.23 give other shapes for asymmetric pads in one dimension, fail for some sizes,
count the padding of SAME in averages, and train the batch norms of opset 13. `ceil_mode` is left
out.
"""

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference.op_run import OpRun

from tests.export.graphs import evaluate_in_float64

__all__ = ["run_reference"]


def _padding(sizes, kernel, strides, dilations, auto_pad, pads):
    """Return (begin, end) for each axis."""
    rank = len(kernel)
    if auto_pad in (None, "NOTSET"):
        pads = pads or [0] * 2 * rank
        return [(pads[i], pads[rank + i]) for i in range(rank)]
    if auto_pad == "VALID":
        return [(0, 0)] * rank
    found = []
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if auto_pad == "SAME_UPPER" else (more, less))
    return found


def _windows(x, kernel, strides, dilations, auto_pad, pads, fill):
    """Return all windows of x; the last axes are the positions in a window."""
    rank = len(kernel)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    padding = _padding(x.shape[2:], kernel, strides, dilations, auto_pad, pads)
    padded = np.pad(x, [(0, 0), (0, 0), *padding], constant_values=fill)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    axes = tuple(range(2, 2 + rank))
    windows = np.lib.stride_tricks.sliding_window_view(padded, extents, axes)
    steps = [slice(None, None, s) for s in strides]
    inside = [slice(None, None, d) for d in dilations]
    return windows[(slice(None), slice(None), *steps, *inside)]


class MaxPool(OpRun):
    def _run(
        self, x, auto_pad=None, ceil_mode=None, dilations=None, kernel_shape=None, pads=None,
        storage_order=None, strides=None,
    ):  # fmt: skip
        windows = _windows(x, kernel_shape, strides, dilations, auto_pad, pads, -np.inf)
        return (windows.max(tuple(range(-len(kernel_shape), 0))),)


class AveragePool(OpRun):
    def _run(
        self, x, auto_pad=None, ceil_mode=None, count_include_pad=None, dilations=None,
        kernel_shape=None, pads=None, strides=None,
    ):  # fmt: skip
        layout = (kernel_shape, strides, dilations, auto_pad, pads)
        axes = tuple(range(-len(kernel_shape), 0))
        total = _windows(x, *layout, 0.0).sum(axes)
        counted = _windows(np.ones_like(x), *layout, 1.0 if count_include_pad else 0.0).sum(axes)
        return (total / counted,)


class BatchNormalization(OpRun):
    def _run(self, x, scale, bias, mean, var, epsilon=None, momentum=None, training_mode=None):
        shape = (-1, *(1 for _ in x.shape[2:]))
        scale, bias, mean, var = (array.reshape(shape) for array in (scale, bias, mean, var))
        return ((x - mean) / np.sqrt(var + epsilon) * scale + bias,)


OPERATORS = [MaxPool, AveragePool, BatchNormalization]


def run_reference(model, inputs):
    """Evaluate a graph, or its protobuf, with float32 weights and inputs in float64."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model if isinstance(model, onnx.ModelProto) else ir.to_proto(model))
    return evaluate_in_float64(proto, inputs, OPERATORS)
