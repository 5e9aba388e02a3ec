"""What is known of a graph's tensors and of the integers that a node reads."""

import numpy as np
import onnx_ir as ir

from ...graph.exact import is_constant
from .reason import NotExactError, Reason

__all__ = ["integers", "known_sizes", "name_of", "sizes_of"]

Sizes = list[int | str | None]


def name_of(node: ir.Node) -> str:
    """Return a node's name, or that of its output where it has none."""
    return str(node.name or node.outputs[0].name)


def sizes_of(value: ir.Value | None) -> Sizes | None:
    """Return the size of each axis: an integer, a name, or None; None if the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return [size if isinstance(size, int) else size.value for size in value.shape]


def known_sizes(value: ir.Value | None) -> Sizes:
    """Return the size of each axis.

    Raises:
        NotExactError: If the rank is unknown.
    """
    sizes = sizes_of(value)
    if sizes is None:
        raise NotExactError(Reason.SHAPE_UNKNOWN, f"tensor {getattr(value, 'name', None)!r}")
    return sizes


def integers(node: ir.Node, index: int, attribute: str) -> list[int] | None:
    """Return integers that older operators have as an attribute and newer ones as an input.

    Returns:
        The integers; None if the node has neither.

    Raises:
        NotExactError: If they are computed at run time.
    """
    if attribute in node.attributes:
        value = node.attributes[attribute].value
        return [value] if isinstance(value, int) else list(value)
    operand = node.inputs[index] if index < len(node.inputs) else None
    if operand is None:
        return None
    if not is_constant(operand) or operand.const_value is None:
        raise NotExactError(Reason.PARAMETERS_NOT_CONSTANT, f"tensor {operand.name!r}")
    return [int(n) for n in np.ravel(operand.const_value.numpy())]
