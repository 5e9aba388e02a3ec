"""What an affine operator costs in each run, estimated from the tensor that it makes.

    operations = elements * (1 for a scale or a shift alone, 2 for both)
    bytes      = elements * size of one * 2        (its input read, its output written)

A dimension that is not known, such as the batch, counts as 1: the estimate is for one sample.
"""

import math

import onnx_ir as ir

__all__ = ["saved_by"]

ONE_OPERATION = frozenset({"Add", "Div", "Mul", "Sub"})
FLOAT32 = 4  # bytes; what an element whose dtype is not known counts as


def saved_by(node: ir.Node) -> tuple[int, int]:
    """Estimate what a run saves without an affine operator.

    Args:
        node: The operator; its first output tells the size.

    Returns:
        Additions and multiplications, and bytes of memory traffic.
    """
    output = node.outputs[0]
    sizes = () if output.shape is None else output.shape.dims
    elements = math.prod(size if isinstance(size, int) else 1 for size in sizes)
    itemsize = FLOAT32 if output.dtype is None else output.dtype.itemsize
    operations = elements if node.op_type in ONE_OPERATION else 2 * elements
    return operations, int(2 * elements * itemsize)
