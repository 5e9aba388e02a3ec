"""What it takes to run a node in another layout: the vocabulary of the rules.

A rule answers for one operator: if input `at` came in this layout (or output `~at` were to leave
in it), what would the node need and give? The answer is a `Move`, plain data that
`rewrite` carries out, or None where that operator cannot follow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import onnx_ir as ir

from ...graph.exact import is_constant
from .permutation import Layout, Permutation

__all__ = ["Arrangement", "Move", "Rule", "flag", "numbers", "rank_of"]


class Arrangement(NamedTuple):
    """A constant moved: reshaped to `shape`, transposed by `perm`, reshaped to `final`."""

    shape: tuple[int, ...]
    perm: Permutation
    final: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A node in another layout.

    Attributes:
        inputs: The layout of each input; None for a constant and for one read as it is.
        outputs: The layout in which each output leaves.
        attributes: Attributes that change.
        constants: By input, a constant that changes: new elements, or the old one moved.
        unsqueezed: By input, axes of size 1 to insert into what `inputs` asks for.
        op_type: The operator, where it becomes another one.
        picked: Of a one-dimensional result, the elements that the original gives, in order.
    """

    inputs: tuple[Layout | None, ...]
    outputs: tuple[Layout, ...]
    attributes: tuple[ir.Attr, ...] = ()
    constants: Mapping[int, tuple[float, ...] | Arrangement] = field(default_factory=dict)
    unsqueezed: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    op_type: str | None = None
    picked: tuple[int, ...] | None = None


Rule = Callable[[ir.Node, int, Permutation], Move | None]


def rank_of(value: ir.Value | None) -> int | None:
    """Return a tensor's rank, or None if it is unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def numbers(node: ir.Node, index: int) -> tuple[Any, ...] | None:
    """Return a constant input's elements, None if it is absent or computed at run time."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or not is_constant(value) or value.const_value is None:
        return None
    return tuple(value.const_value.numpy().ravel().tolist())


def flag(node: ir.Node, name: str, *, default: bool) -> bool:
    """Return an attribute that is 0 or 1."""
    attribute = node.attributes.get(name)
    return default if attribute is None else bool(attribute.as_int())
