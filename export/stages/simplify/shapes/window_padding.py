"""The padding of Conv, MaxPool and AveragePool as numbers, whatever `auto_pad` calls it.

SAME pads so that there are ceil(n / stride) windows: in all, for windows of `extent` elements,

    max((ceil(n / stride) - 1) * stride + extent - n, 0)

That is one number in every run if n is known, or if the stride or the extent is 1. An extent of 2
takes one element at the end or none, and one that no window reaches changes nothing.
"""

from collections.abc import Sequence

import onnx_ir as ir

from .known import KnownShapes
from .sizes import Size

__all__ = ["window_extents", "window_padding"]


def window_padding(known: KnownShapes, node: ir.Node) -> list[int] | None:
    """Return all begins, then all ends, or None if they vary from run to run."""
    shape, extents = known.shape(node.inputs[0]), window_extents(known, node)
    if shape is None or extents is None or len(extents) != len(shape) - 2:
        return None
    rank, auto_pad = len(extents), node.attributes.get_string("auto_pad", "NOTSET")
    cut_short = node.attributes.get_int("ceil_mode", 0) != 0
    if auto_pad == "NOTSET":
        return list(node.attributes.get_ints("pads", (0,) * 2 * rank))
    if cut_short or auto_pad not in ("SAME_LOWER", "SAME_UPPER", "VALID"):
        return None
    if auto_pad == "VALID":
        return [0] * 2 * rank
    strides = node.attributes.get_ints("strides", (1,) * rank)
    begins, ends = [], []
    for size, stride, extent in zip(shape[2:], strides, extents, strict=True):
        pads = _same(size, stride, extent, auto_pad)
        if pads is None:
            return None
        begins.append(pads[0])
        ends.append(pads[1])
    return begins + ends


def _same(size: Size, stride: int, extent: int, auto_pad: str) -> tuple[int, int] | None:
    if stride == 1 or extent == 1:
        total = extent - 1
    elif isinstance(size, int):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    elif extent == 2 and auto_pad == "SAME_UPPER":
        total = 1
    else:
        return None
    less, more = total // 2, total - total // 2
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)


def window_extents(known: KnownShapes, node: ir.Node) -> Sequence[int] | None:
    """Return over how many elements of each axis a window reaches, gaps included."""
    kernel = node.attributes.get_ints("kernel_shape")
    if kernel is None and node.op_type == "Conv":
        weight = known.shape(node.inputs[1]) or ()
        sizes = [size for size in weight[2:] if isinstance(size, int)]
        kernel = sizes if len(weight) > 2 and len(sizes) == len(weight) - 2 else None
    if kernel is None:
        return None
    dilations = node.attributes.get_ints("dilations", (1,) * len(kernel))
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
