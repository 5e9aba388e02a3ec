"""Windows: the shapes that Conv, ConvTranspose and the pools make, and their padding as numbers.

    Conv, pools     floor((n + pads - extent) / stride) + 1, or ceil(n / stride) for SAME
    ConvTranspose   stride * (n - 1) + output_padding + extent - pads

extent = (kernel - 1) * dilation + 1.

Whatever `auto_pad` calls it, SAME pads so that there are ceil(n / stride) windows: in all

    max((ceil(n / stride) - 1) * stride + extent - n, 0)

That is one number in every run if n is known, or if the stride or the extent is 1. An extent of 2
takes one element at the end or none, and one that no window reaches changes nothing.
"""

import dataclasses
from collections.abc import Sequence

import onnx_ir as ir

from .known import KnownShapes
from .sizes import Shape, Size, unknown

__all__ = ["RULES", "state_same_padding", "window_extents", "window_padding"]


@dataclasses.dataclass(frozen=True)
class _Windows:
    """How Conv, MaxPool or AveragePool moves over its spatial axes; `pads` only where they count.

    `extents` says over how many elements of each axis a window reaches, gaps included.
    """

    extents: list[Size]
    strides: Sequence[int]
    pads: Sequence[int]
    auto_pad: str
    cut_short: bool

    @classmethod
    def of(cls, known: KnownShapes, node: ir.Node) -> "_Windows | None":
        """Read the attributes of a node; None if one is of another rank than its input."""
        shape, kernel = known.shape(node.inputs[0]), node.attributes.get_ints("kernel_shape")
        sizes: Sequence[Size] | None = kernel
        if sizes is None and node.op_type == "Conv":
            sizes = (known.shape(node.inputs[1]) or ())[2:]
        rank = len(sizes or ())
        if shape is None or sizes is None or rank != len(shape) - 2:
            return None
        auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
        strides = node.attributes.get_ints("strides", (1,) * rank)
        dilations = node.attributes.get_ints("dilations", (1,) * rank)
        nothing = (0,) * 2 * rank
        pads = node.attributes.get_ints("pads", nothing) if auto_pad == "NOTSET" else nothing
        if (len(strides), len(dilations), len(pads)) != (rank, rank, 2 * rank):
            return None
        extents = [(size + -1) * gap + 1 for size, gap in zip(sizes, dilations, strict=True)]
        cut_short = node.attributes.get_int("ceil_mode", 0) != 0
        return cls(extents, strides, pads, auto_pad, cut_short)


def _window_shape(known: KnownShapes, node: ir.Node) -> Shape | None:
    """Return what Conv, MaxPool or AveragePool makes."""
    shape, windows = known.shape(node.inputs[0]), _Windows.of(known, node)
    weight = known.shape(node.inputs[1]) if node.op_type == "Conv" else None
    if shape is None or windows is None or (node.op_type == "Conv" and not weight):
        return None
    spatial: list[Size] = []
    for i, (n, stride) in enumerate(zip(shape[2:], windows.strides, strict=True)):
        if windows.auto_pad.startswith("SAME"):
            spatial.append(known.quotient(n, stride, "ceil"))
        elif windows.cut_short:
            spatial.append(unknown())  # what a last window may reach differs from opset to opset
        else:
            pads = windows.pads[i] + windows.pads[i + len(windows.strides)]
            spatial.append(known.quotient(n + pads - windows.extents[i], stride) + 1)
    return (shape[0], shape[1] if weight is None else weight[0], *spatial)


def _transposed_shape(known: KnownShapes, node: ir.Node) -> Shape | None:
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


def _global_shape(known: KnownShapes, node: ir.Node) -> Shape | None:
    """Return what GlobalAveragePool or GlobalMaxPool makes."""
    shape = known.shape(node.inputs[0])
    return None if shape is None else (*shape[:2], *(1 for _ in shape[2:]))


def window_padding(known: KnownShapes, node: ir.Node) -> list[int] | None:
    """Return all begins, then all ends, or None if they vary from run to run."""
    shape, windows = known.shape(node.inputs[0]), _Windows.of(known, node)
    extents = window_extents(known, node)
    if shape is None or windows is None or extents is None:
        return None
    if windows.auto_pad == "NOTSET":
        return list(windows.pads)
    if windows.cut_short or windows.auto_pad not in ("SAME_LOWER", "SAME_UPPER", "VALID"):
        return None
    if windows.auto_pad == "VALID":
        return list(windows.pads)
    begins, ends = [], []
    for size, stride, extent in zip(shape[2:], windows.strides, extents, strict=True):
        pads = _same(size, stride, extent, windows.auto_pad)
        if pads is None:
            return None
        begins.append(pads[0])
        ends.append(pads[1])
    return begins + ends


def state_same_padding(known: KnownShapes, node: ir.Node) -> bool:
    """Write SAME as numbers, in place, if they are alike in every run; return whether it did."""
    same = node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
    pads = window_padding(known, node) if same else None
    if pads is None:
        return False
    node.attributes.pop("auto_pad")
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    return True


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


def window_extents(known: KnownShapes, node: ir.Node) -> list[int] | None:
    """Return over how many elements of each axis a window reaches, gaps included."""
    windows = _Windows.of(known, node)
    extents = [size for size in windows.extents if isinstance(size, int)] if windows else []
    return extents if windows is not None and len(extents) == len(windows.extents) else None


RULES = {
    "AveragePool": _window_shape,
    "Conv": _window_shape,
    "ConvTranspose": _transposed_shape,
    "GlobalAveragePool": _global_shape,
    "GlobalMaxPool": _global_shape,
    "MaxPool": _window_shape,
}
