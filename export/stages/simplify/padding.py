"""A Pad in front of a window -> the window's own padding; a crop behind one -> less of it.

    Conv(Pad(x, p), pads q)         =  Conv(x, pads p + q)                    both pad with zeros
    AveragePool(Pad(x, p))          =  AveragePool(x, pads p, counting them)
    MaxPool(Pad(x, p), pads q)      =  MaxPool(x, pads p + q)                 only where x >= 0
    Slice(ConvTranspose(x, pads q)) =  ConvTranspose(x, pads q + crop)
    Conv(x, SAME)                   =  Conv(x, pads p)                        p alike in every run

A MaxPool's own padding counts as minus infinity. With x >= 0 a zero loses nothing as long as every
window holds an element of x, which it does where the pads are smaller than the kernel. Refused are
Pads that others read, that are negative or touch another axis, and what `ceil_mode` makes of them.
ONNX calls `auto_pad` deprecated, and tools that fold or quantise look at `pads` alone.
"""

import onnx_ir as ir

from ...graph.exact import is_constant
from .editor import Editor
from .nonnegative import is_never_negative
from .shapes.windows import state_same_padding, window_padding

__all__ = ["absorb_padding", "state_padding"]

Pads = list[int]  # all begins, then all ends


def absorb_padding(editor: Editor) -> bool:
    """Move the padding of Pads, and the crop of Slices, into the operator beside them."""
    changed = False
    for node in editor.nodes("AveragePool", "Conv", "MaxPool"):
        pad = editor.producer(node.inputs[0], "Pad")
        pads = _zero_padding(editor, pad) if pad is not None else None
        if pad is None or pads is None or not editor.is_read_once(pad.outputs[0]):
            continue
        if _ABSORBING[node.op_type](editor, node, pad, pads):
            node.replace_input_with(0, pad.inputs[0])
            editor.graph.remove(pad, safe=True)
            changed = True
    for node in editor.nodes("Slice"):
        changed |= _crop(editor, node)
    return changed


def state_padding(editor: Editor) -> bool:
    """Write the padding of a convolution as numbers where SAME is one padding in every run."""
    changed = False
    for conv in editor.nodes("Conv"):
        changed |= state_same_padding(editor.known, conv)
    return changed


def _zero_padding(editor: Editor, pad: ir.Node) -> Pads | None:
    """Return the spatial padding of a Pad that adds zeros around channels-second data."""
    shape = editor.known.shape(pad.inputs[0])
    if (
        shape is None
        or len(shape) < 3
        or pad.attributes.get_string("mode", "constant") != ("constant")
    ):
        return None
    fill = pad.inputs[2] if len(pad.inputs) > 2 else None
    if fill is not None and (
        fill.const_value is None or not is_constant(fill) or fill.const_value.numpy().any()
    ):
        return None
    both = editor.known.pads(pad)
    if both is None or any(n for side in both for n in side[:2]):
        return None
    numbers = [n for side in both for n in side[2:] if isinstance(n, int) and n >= 0]
    return numbers if len(numbers) == 2 * len(shape) - 4 else None


def _into_conv(editor: Editor, node: ir.Node, pad: ir.Node, pads: Pads) -> bool:
    own = window_padding(editor.known, node)
    if own is None:
        return False
    _set_pads(node, own, pads)
    return True


def _into_average(editor: Editor, node: ir.Node, pad: ir.Node, pads: Pads) -> bool:
    own = window_padding(editor.known, node)
    counted = node.attributes.get_int("count_include_pad", 0) != 0
    if own is None or (any(own) and not counted) or not _fits(node, own, pads):
        return False
    _set_pads(node, own, pads)
    node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    return True


def _into_maximum(editor: Editor, node: ir.Node, pad: ir.Node, pads: Pads) -> bool:
    own, x = window_padding(editor.known, node), pad.inputs[0]
    if own is None or x is None or len(node.outputs) > 1 or not _fits(node, own, pads):
        return False
    dilations = node.attributes.get_ints("dilations", ())
    shape = editor.known.shape(x)
    if any(d != 1 for d in dilations) or shape is None or not is_never_negative(editor, x):
        return False
    both = [a + b for a, b in zip(own, pads, strict=True)]
    kernel = node.attributes.get_ints("kernel_shape", ())
    rank = len(kernel)
    for i, size in enumerate(shape[2:]):
        # Without an element of x, a window over padding alone would be minus infinity.
        empty = not isinstance(size, int) or size == 0
        if empty and both[i] + both[rank + i] >= kernel[i]:
            return False
    _set_pads(node, own, pads)
    return True


_ABSORBING = {"AveragePool": _into_average, "Conv": _into_conv, "MaxPool": _into_maximum}


def _fits(node: ir.Node, own: Pads, pads: Pads) -> bool:
    """Say whether a pool can have these pads: smaller than its kernel, no window cut short."""
    kernel = node.attributes.get_ints("kernel_shape", ())
    both = (a + b for a, b in zip(own, pads, strict=True))
    smaller = all(n < size for n, size in zip(both, (*kernel, *kernel), strict=True))
    return smaller and not node.attributes.get_int("ceil_mode", 0)


def _set_pads(node: ir.Node, own: Pads, pads: Pads) -> None:
    both = [a + b for a, b in zip(own, pads, strict=True)]
    node.attributes["pads"] = ir.AttrInt64s("pads", both)
    node.attributes.pop("auto_pad", None)


def _crop(editor: Editor, node: ir.Node) -> bool:
    """Slice(ConvTranspose(x)) = ConvTranspose(x) with the cut elements as padding."""
    transposed = editor.producer(node.inputs[0], "ConvTranspose")
    if transposed is None or not editor.is_read_once(transposed.outputs[0]):
        return False
    if transposed.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return False
    known = editor.known
    whole, part = known.shape(node.inputs[0]), known.shape(node.outputs[0])
    cuts = known.cuts(node)
    if whole is None or part is None or cuts is None or "output_shape" in transposed.attributes:
        return False
    rank = len(whole) - 2
    pads = list(transposed.attributes.get_ints("pads", (0,) * 2 * rank))
    for axis, start, _, step in cuts:
        cut = whole[axis] - part[axis] - start
        if step != 1 or not isinstance(start, int) or not isinstance(cut, int):
            return False
        if start < 0 or cut < 0 or (axis < 2 and (start or cut)):
            return False
        if axis >= 2:
            pads[axis - 2] += start
            pads[rank + axis - 2] += cut
    transposed.attributes["pads"] = ir.AttrInt64s("pads", pads)
    output = transposed.outputs[0]
    output.shape = editor.declared(part)
    editor.known.learn(output, part)
    return editor.bypass(node, output)
