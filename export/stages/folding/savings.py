"""What an affine operator costs in each run, and what a plan saves, estimated from the tensors.

    operations = elements * (1 for a scale or a shift alone, 2 for both)
    bytes      = elements * size of one * 2        (its input read, its output written)

A dimension that is not known, such as the batch, counts as 1: the estimate is for one sample.
"""

import math
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from .edits import Edit
from .reason import NotExactError, Reason
from .tensors import name_of, sizes_of

__all__ = ["require_less_work", "saved_by", "saved_by_plan"]

ONE_OPERATION = frozenset({"Add", "Div", "Mul", "Sub"})
AFFINE = ONE_OPERATION | {"BatchNormalization"}
Edits = Mapping[ir.Node, Edit]
FLOAT32 = 4  # bytes; what an element whose dtype is not known counts as
KEEPING = frozenset(  # as many elements behind as in front
    """Cast Dropout Flatten Identity Reshape Squeeze Transpose Unsqueeze""".split()
)


def saved_by(node: ir.Node) -> tuple[int, int]:
    """Estimate what a run saves without an affine operator.

    Args:
        node: The operator; its first output tells the size.

    Returns:
        Additions and multiplications, and bytes of memory traffic.
    """
    return _cost(node.op_type, node.outputs[0])


def saved_by_plan(removed: ir.Node, edits: Edits, nodes: Iterable[ir.Node]) -> tuple[int, int]:
    """Estimate what a run saves once a plan is carried out; both are >= 0 where it may be.

    Args:
        removed: The operator that the plan removes.
        edits: What becomes of the others.
        nodes: All that take part.
    """
    result = removed.outputs[0]
    operations, traffic = saved_by(removed)
    for edit in edits.values():
        output = edit.node.outputs[0]
        if edit.node.op_type in AFFINE and edit.op_type in AFFINE:
            operations += _cost(edit.node.op_type, output)[0] - _cost(edit.op_type, output)[0]
        if edit.added is not None:
            of_sum = _cost("Add", result if _keeps_elements(edits, nodes) else output)
            operations, traffic = operations - of_sum[0], traffic - of_sum[1]
    return operations, traffic


def require_less_work(removed: ir.Node, edits: Edits, nodes: Iterable[ir.Node]) -> None:
    """Require that a plan adds no work, and that an Add that it adds is worth it.

    Args:
        removed: As for `saved_by_plan`, and so the others.
        edits: Likewise.
        nodes: Likewise.

    Raises:
        NotExactError: If it does, or is not.
    """
    adding = [edit for edit in edits.values() if edit.added is not None]
    operations, traffic = saved_by_plan(removed, edits, nodes)
    if operations < 0 or traffic < 0:
        raise NotExactError(Reason.NOT_ONE_OPERATOR, f"{-operations:,} operations more")
    for edit in adding:
        if (
            operations == 0
            or len(adding) > 1
            or not (_keeps_elements(edits, nodes) or _is_comparable(edit.node, removed))
        ):
            raise NotExactError(Reason.OPERATOR_HAS_NO_BIAS, name_of(edit.node))


def _is_comparable(node: ir.Node, removed: ir.Node) -> bool:
    """Say whether sizes that are not known are the same for a node and what is removed."""
    free = [
        [size for size in sizes_of(value) or [None] if not isinstance(size, int)]
        for value in (node.outputs[0], removed.outputs[0])
    ]
    return None not in free[0] and sorted(map(str, free[0])) == sorted(map(str, free[1]))


def _keeps_elements(edits: Edits, nodes: Iterable[ir.Node]) -> bool:
    """Say whether all tensors on the way have as many elements as the operator's."""
    on_the_way = (n for n in nodes if n not in edits or edits[n].added is None)
    return all(node.op_type in KEEPING | AFFINE for node in on_the_way)


def _cost(operator: str, output: ir.Value) -> tuple[int, int]:
    sizes = () if output.shape is None else output.shape.dims
    elements = math.prod(size if isinstance(size, int) else 1 for size in sizes)
    itemsize = FLOAT32 if output.dtype is None else output.dtype.itemsize
    operations = elements if operator in ONE_OPERATION else 2 * elements
    return operations, int(2 * elements * itemsize)
