"""Which nodes are evaluated ahead of time: those on constants whose value is certain and not large.

A node is left to run time if it draws random numbers, holds subgraphs, comes from another domain,
makes a larger constant out of small ones than it may, or unpacks weights that were made small on
purpose. It is left, too, where `onnx.reference` cannot be relied on: it does not know the operator,
or knows only what a later opset made of it, or gives another dtype than the graph expects.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...graph.bodies import holds_graph
from ...graph.exact import FLOATING
from ...graph.operators import is_onnx
from .evaluation import ARITHMETIC, evaluate

__all__ = ["LARGEST_GROWN", "RANDOM", "evaluate_if_constant", "read_by"]

Constants = Mapping[ir.Value, ir.TensorProtocol]

RANDOM = frozenset(
    """Bernoulli Dropout Multinomial RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike""".split()
)
# The size of what they make is in the values of their inputs.
GROWING = frozenset(
    """AffineGrid BlackmanWindow CenterCropPad ConstantOfShape Expand HammingWindow HannWindow
    MelWeightMatrix OneHot Pad Range Resize Tile Upsample""".split()
)
# Before this opset the reference evaluator computes something else than the operator.
FAITHFUL_FROM = {
    "BatchNormalization": 14,
    "Hardmax": 13,
    "LogSoftmax": 13,
    "Resize": 11,
    "Softmax": 13,
}
LARGEST_GROWN = 4096  # elements, unless more is allowed
LARGEST_TRIED = 2**24  # elements, of a result whose size is not known beforehand


def evaluate_if_constant(
    node: ir.Node, known: Constants, opset: int, largest: int = LARGEST_GROWN
) -> list[ir.TensorProtocol] | None:
    """Evaluate a node if that is certain to be right and makes no large constant.

    Args:
        node: Any node.
        known: The values that are the same in every run.
        opset: The version of the standard domain.
        largest: How many elements it may make where its inputs have fewer.

    Returns:
        Its outputs; None if it is to be left to run time.
    """
    if not _is_evaluable(node, known):
        return None
    inputs = [None if value is None else known[value] for value in read_by(node)]
    given = [tensor for tensor in inputs if tensor is not None]
    if opset < FAITHFUL_FROM.get(node.op_type, 0) or _may_grow(node, given, largest):
        return None
    if _is_mixed(given):
        return None
    try:
        outputs = evaluate(node, inputs, opset)
    except Exception:  # whatever the reference evaluator raises on what it does not know
        return None
    if len(outputs) != len(node.outputs) or _grows(given, outputs, largest):
        return None
    dtypes = zip(node.outputs, outputs, strict=True)
    return outputs if all(v.dtype in (None, tensor.dtype) for v, tensor in dtypes) else None


def read_by(node: ir.Node) -> Sequence[ir.Value | None]:
    """Return the inputs whose elements a node reads: of one, CastLike takes the dtype alone."""
    return node.inputs[:1] if node.op_type == "CastLike" and is_onnx(node) else node.inputs


def _is_evaluable(node: ir.Node, known: Constants) -> bool:
    if not is_onnx(node) or node.op_type in RANDOM:
        return False
    if not all(value is None or value in known for value in read_by(node)):
        return False
    if holds_graph(node):
        return False
    return not any(output.is_graph_output() for output in node.outputs)


def _may_grow(node: ir.Node, inputs: Sequence[ir.TensorProtocol], largest: int) -> bool:
    """Say whether the result may be too large, before anything is computed."""
    size = _size_of_result(node, inputs)
    if size is not None:
        limit = 0 if node.op_type in GROWING else sum(tensor.size for tensor in inputs)
        return bool(inputs) and size > max(largest, limit)
    if node.op_type in GROWING:
        return True
    if len(inputs) < 2:
        return False
    if node.op_type in ARITHMETIC:
        try:
            shape = np.broadcast_shapes(*(tensor.shape.numpy() for tensor in inputs))
        except ValueError:
            return True  # it is wrong
        return math.prod(shape) > LARGEST_TRIED
    return math.prod(max(tensor.size, 1) for tensor in inputs) > LARGEST_TRIED


def _size_of_result(node: ir.Node, inputs: Sequence[ir.TensorProtocol]) -> int | None:
    """Return how many elements a node makes, as its shapes or its inputs tell."""
    if node.op_type == "ConstantOfShape" and inputs:  # whatever the graph says
        return _product(inputs[0].numpy().ravel())
    shapes = [output.shape for output in node.outputs]
    if all(shape is not None and shape.is_static() for shape in shapes):
        return sum(math.prod(shape.numpy()) for shape in shapes if shape is not None)
    if len(inputs) < 2 or node.op_type not in ("Expand", "Tile"):
        return None
    sizes, numbers = inputs[0].shape.numpy(), inputs[1].numpy().ravel().tolist()
    if node.op_type == "Tile":
        return _product(sizes) * _product(numbers)
    return _product(sizes) * _product(max(n, 1) for n in numbers)  # at most


def _product(sizes: Iterable[int]) -> int:
    return math.prod(int(size) for size in sizes)


def _is_mixed(inputs: Sequence[ir.TensorProtocol]) -> bool:
    """Say whether there are several floating-point dtypes, so that the result's is not obvious."""
    return len({tensor.dtype for tensor in inputs} & FLOATING) > 1


def _grows(
    inputs: Sequence[ir.TensorProtocol], outputs: Sequence[ir.TensorProtocol], largest: int
) -> bool:
    """Say whether a file would become too large, as by an outer product, or by unpacking."""
    size = sum(tensor.size for tensor in outputs)
    if not inputs or size <= LARGEST_GROWN:
        return False
    packed = inputs[0].dtype.bitwidth <= 8 and inputs[0].dtype is not ir.DataType.BOOL
    unpacked = packed and outputs[0].dtype.bitwidth > inputs[0].dtype.bitwidth
    return unpacked or size > max(largest, sum(tensor.size for tensor in inputs))
