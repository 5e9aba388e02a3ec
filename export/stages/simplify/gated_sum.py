"""A gated tensor added to itself -> the tensor times a clamp: one pass over it less.

    x + x s  =  x (1 + s)                s = max(0, min(1, alpha z + beta)), a HardSigmoid
             =  x max(1, min(2, v))      v = alpha z + beta + 1

as squeeze-and-excite blocks with a shortcut have it, such as PaddleOCR's detectors. Where z comes
from a convolution that nothing else reads, v is that of other weights,

    W' = alpha W,    b' = alpha b + beta + 1

computed in float64 and rounded once; ONNX Runtime fuses it with the Clip. float32 only, like
HardSigmoid, and not where x is infinite, of which the left side makes NaN where s is 0.
"""

import itertools
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ...graph.exact import ExactTensor, exact, is_constant
from .editor import Editor

__all__ = ["clamp_gated_sums"]

OPSET = 11  # since when the bounds of Clip are inputs
ALPHA, BETA = 0.2, 0.5  # ONNX's defaults


class _Gated(NamedTuple):
    """x + x * HardSigmoid(Conv(...)), and the kernel and the bias with which that is a Clip."""

    add: ir.Node
    product: ir.Node
    gate: ir.Node
    conv: ir.Node
    kernel: ExactTensor
    bias: np.ndarray


def clamp_gated_sums(editor: Editor) -> bool:
    """Write every such sum as a product."""
    if editor.opset < OPSET:
        return False
    found = [gated for add in editor.nodes("Add") if (gated := _gated(editor, add)) is not None]
    for gated in found:
        _rewrite(editor, gated)
    return bool(found)


def _gated(editor: Editor, add: ir.Node) -> _Gated | None:
    for x, value in itertools.permutations(add.inputs):
        product = _only_read(editor, value, "Mul")
        factors = [v for v in product.inputs if v is not x] if product is not None else []
        gate = _only_read(editor, factors[0], "HardSigmoid") if len(factors) == 1 else None
        conv = _only_read(editor, gate.inputs[0], "Conv") if gate is not None else None
        if product is None or gate is None or conv is None:
            continue
        if gate.outputs[0].dtype == ir.DataType.FLOAT:
            weights = _weights(conv, gate)
            return None if weights is None else _Gated(add, product, gate, conv, *weights)
    return None


def _only_read(editor: Editor, value: ir.Value | None, op_type: str) -> ir.Node | None:
    """Return the node of this type whose output is read here alone."""
    return editor.producer(value, op_type) if value and editor.is_read_once(value) else None


def _weights(conv: ir.Node, gate: ir.Node) -> tuple[ExactTensor, np.ndarray] | None:
    """Return W' and b', if they are constants and finite."""
    kernel, *biases = (value for value in conv.inputs[1:] if value is not None)
    if not all(map(is_constant, (kernel, *biases))) or kernel.const_value is None:
        return None
    alpha = gate.attributes.get_float("alpha", ALPHA)
    scaled = ExactTensor.of(kernel.const_value) * np.array(alpha)
    bias = exact(biases[0]) if biases else np.zeros(scaled.sizes[0])
    bias = alpha * bias + gate.attributes.get_float("beta", BETA) + 1
    return (scaled, bias) if scaled.is_finite() and np.isfinite(bias).all() else None


def _rewrite(editor: Editor, gated: _Gated) -> None:
    add, product, gate, conv, kernel, bias = gated
    weights = [
        editor.constant(f"{gate.name}/kernel", kernel),
        editor.constant(f"{gate.name}/bias", ExactTensor(bias, ir.DataType.FLOAT)),
    ]
    new = editor.replace(conv, "Conv", [conv.inputs[0], *weights], dict(conv.attributes))
    bounds = (editor.constant(f"{gate.name}/{n}", ir.tensor(np.float32(n))) for n in (1, 2))
    editor.replace(gate, "Clip", [new.outputs[0], *bounds])
    editor.bypass(add, product.outputs[0])
