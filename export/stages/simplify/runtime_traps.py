"""Graphs that ONNX Runtime changes or refuses -> the same graphs in words that it takes right.

    Pad(0) -> MaxPool, AveragePool       its optimiser, 1.20 to 1.31, makes the Pad the pool's own
                                         padding, which is minus infinity (and is not counted in
                                         1.20); it loads no file where that exceeds the kernel
    pools with auto_pad SAME and a       its kernels, 1.24 to 1.32, compute a negative padding:
    kernel smaller than the stride       wrong numbers, or a refusal at run time
    Pad(0) -> Conv k x 1, width 1        its optimiser, 1.20 to 1.32, makes the Pad that of the
                                         convolution, which then runs 1.2 to 13 times as long
    some products in float16             loading the file kills the process, 1.32

Its optimiser moves Transposes out of the way first, so a Pad counts as standing before a pool when
only such operators are between them. The rewrite is matched only where `auto_pad` is NOTSET, so a
pool without padding says VALID, which means the same. Where the pool pads too, the Pad gets its
`axes` as an input (opset 18), or fills with -0.0; neither is matched. The second trap is avoided by
explicit pads where they are the same in every run, the fourth by constants with as many axes as
what they multiply.

Nothing is done for what `simplify` removes anyway: a Transpose that keeps the order, in front of
Gemm, was taken for one that swaps the axes up to 1.28.
"""

import operator

import numpy as np
import onnx_ir as ir

from ...graph.exact import FLOATS, is_constant
from ...graph.families import REARRANGING
from .editor import Editor
from .shapes.windows import state_same_padding, window_extents

__all__ = ["avoid_half_products", "avoid_runtime_traps", "avoid_slow_padding"]

POOLS = ("AveragePool", "MaxPool")
PASSING = REARRANGING | {"Cast"}
FUSED = ("Cast", "Concat", "Div", "Mul")  # what the optimiser moves a Transpose past


def avoid_runtime_traps(editor: Editor) -> bool:
    """Rewrite what ONNX Runtime would get wrong; the number of nodes stays as it is."""
    changed = False
    for pool in editor.nodes(*POOLS):
        changed |= _resolve_same_padding(editor, pool)
        pad = _pad_above(editor, pool)
        if pad is not None and pool.attributes.get_string("auto_pad", "NOTSET") == "NOTSET":
            changed |= _keep_apart(editor, pad, pool)
    return avoid_half_products(editor) or changed


def avoid_half_products(editor: Editor) -> bool:
    """Give constants that multiply a transposed tensor in float16 as many axes as that has."""
    changed = False
    for product in editor.nodes("MatMul"):
        if product.outputs[0].dtype != ir.DataType.FLOAT16:
            continue
        for index, value in enumerate(product.inputs):
            other = product.inputs[1 - index]
            shape, own = editor.known.shape(other), editor.known.shape(value)
            if value is None or not is_constant(value) or shape is None or own is None:
                continue
            if 1 < len(own) < len(shape) and _is_transposed(editor, other):
                reshaped = operator.methodcaller("reshape", (1,) * (len(shape) - len(own)) + own)
                product.replace_input_with(index, editor.rearranged(value, "wide", reshaped))
                changed = True
    return changed


def _is_transposed(editor: Editor, value: ir.Value | None) -> bool:
    if editor.producer(value, "Transpose") is not None:
        return True
    between = editor.producer(value, *FUSED)
    return between is not None and any(_is_transposed(editor, each) for each in between.inputs)


def avoid_slow_padding(editor: Editor) -> bool:
    """Keep a Pad apart from the convolution behind it where that is faster, as above.

    For a column of numbers, such as sound in frames, as a 2-D convolution of width 1. Wider tensors
    and other kernels are faster with the padding in the convolution.
    """
    changed = False
    for conv in editor.nodes("Conv"):
        pad = editor.producer(conv.inputs[0], "Pad")
        shape, weight = (editor.known.shape(value) for value in conv.inputs[:2])
        if pad is None or shape is None or weight is None or len(shape) != 4:
            continue
        is_column = shape[3] == 1 and weight[3] == 1 and weight[2] != 1
        if is_column and conv.attributes.get_string("auto_pad", "NOTSET") == "NOTSET":
            changed |= _keep_apart(editor, pad, conv)
    return changed


def _pad_above(editor: Editor, pool: ir.Node) -> ir.Node | None:
    source = pool.inputs[0]
    while (between := editor.producer(source, *PASSING)) is not None:
        source = between.inputs[0]
    return editor.producer(source, "Pad")


def _resolve_same_padding(editor: Editor, pool: ir.Node) -> bool:
    extents = window_extents(editor.known, pool)
    if extents is None:
        return False
    strides = pool.attributes.get_ints("strides", (1,) * len(extents))
    if all(extent >= stride for extent, stride in zip(extents, strides, strict=True)):
        return False
    return state_same_padding(editor.known, pool)


def _keep_apart(editor: Editor, pad: ir.Node, pool: ir.Node) -> bool:
    """Write a Pad and the window behind it so that they are not taken for one."""
    if pad.attributes.get_string("mode", "constant") != "constant" or not _fills_zeros(pad):
        return False
    pads = pool.attributes.get_ints("pads", ())
    if not any(pads) and not pool.attributes.get_int("ceil_mode", 0):
        pool.attributes.pop("pads", None)
        pool.attributes["auto_pad"] = ir.AttrString("auto_pad", "VALID")
        return True
    if "pads" in pad.attributes or (len(pad.inputs) > 3 and pad.inputs[3] is not None):
        return False  # before opset 11 there is no input; with axes it is not matched
    shape = editor.known.shape(pad.inputs[0])
    if editor.opset >= 18 and shape is not None:
        pad.resize_inputs(4)
        pad.replace_input_with(3, editor.integers(f"{pad.outputs[0].name}/axes", range(len(shape))))
        return True
    dtype = pad.outputs[0].dtype
    if dtype is None or dtype not in FLOATS | {ir.DataType.DOUBLE}:
        return False
    minus_zero = ir.Tensor(np.array(-0.0, dtype.numpy()), dtype=dtype)
    if len(pad.inputs) < 3:
        pad.resize_inputs(3)
    pad.replace_input_with(2, editor.constant(f"{pad.outputs[0].name}/fill", minus_zero))
    return True


def _fills_zeros(pad: ir.Node) -> bool:
    """Say whether a Pad's fill is zero to the bit; -0.0 is what this file writes."""
    if pad.attributes.get_float("value", 0.0) != 0.0:
        return False
    fill = pad.inputs[2] if len(pad.inputs) > 2 else None
    if fill is None:
        return True
    tensor = fill.const_value if is_constant(fill) else None
    return tensor is not None and not any(tensor.tobytes())
