"""How many windows fit: the shapes that Conv, ConvTranspose and the pools make.

    Conv, pools     floor((n + pads - extent) / stride) + 1, or ceil(n / stride) for SAME
    ConvTranspose   stride * (n - 1) + output_padding + extent - pads

extent = (kernel - 1) * dilation + 1.
"""

from collections.abc import Sequence

import onnx_ir as ir

from .known import KnownShapes
from .sizes import Shape, Size, unknown

__all__ = ["global_shape", "transposed_shape", "window_shape"]


def window_shape(known: KnownShapes, node: ir.Node) -> Shape | None:
    """Return what Conv, MaxPool or AveragePool makes."""
    shape = known.shape(node.inputs[0])
    weight = known.shape(node.inputs[1]) if node.op_type == "Conv" else None
    kernel: Sequence[Size] = node.attributes.get_ints("kernel_shape", ())
    if weight is not None and not kernel:
        kernel = weight[2:]
    if shape is None or len(kernel) != len(shape) - 2 or (node.op_type == "Conv" and not weight):
        return None
    rank, auto_pad = len(kernel), node.attributes.get_string("auto_pad", "NOTSET")
    strides = node.attributes.get_ints("strides", (1,) * rank)
    dilations = node.attributes.get_ints("dilations", (1,) * rank)
    pads = node.attributes.get_ints("pads", (0,) * 2 * rank)
    if auto_pad != "NOTSET" or len(pads) != 2 * rank:
        pads = (0,) * 2 * rank
    rounding = "ceil" if node.attributes.get_int("ceil_mode", 0) else "floor"
    spatial: list[Size] = []
    for i, n in enumerate(shape[2:]):
        if auto_pad.startswith("SAME"):
            spatial.append(known.quotient(n, strides[i], "ceil"))
        elif rounding == "ceil":
            spatial.append(unknown())  # what a last window may reach differs from opset to opset
        else:
            extent = (kernel[i] + -1) * dilations[i] + 1
            spatial.append(known.quotient(n + pads[i] + pads[rank + i] - extent, strides[i]) + 1)
    return (shape[0], shape[1] if weight is None else weight[0], *spatial)


def transposed_shape(known: KnownShapes, node: ir.Node) -> Shape | None:
    """Return what ConvTranspose makes."""
    shape, weight = known.shape(node.inputs[0]), known.shape(node.inputs[1])
    if shape is None or weight is None or "output_shape" in node.attributes:
        return None
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    rank = len(shape) - 2
    strides = node.attributes.get_ints("strides", (1,) * rank)
    dilations = node.attributes.get_ints("dilations", (1,) * rank)
    pads = node.attributes.get_ints("pads", (0,) * 2 * rank)
    more = node.attributes.get_ints("output_padding", (0,) * rank)
    spatial = (
        strides[i] * (n + -1)
        + more[i]
        + (weight[2 + i] + -1) * dilations[i]
        + (1 - pads[i] - pads[rank + i])
        for i, n in enumerate(shape[2:])
    )
    return (shape[0], weight[1] * node.attributes.get_int("group", 1), *spatial)


def global_shape(known: KnownShapes, node: ir.Node) -> Shape | None:
    """Return what GlobalAveragePool or GlobalMaxPool makes."""
    """Return what GlobalAveragePool or GlobalMaxPool makes."""
    shape = known.shape(node.inputs[0])
    return None if shape is None else (*shape[:2], *(1 for _ in shape[2:]))
