"""A small difference of large numbers stays a difference.

    y = scale * (x - mean)

is how raw features are standardised: `x - mean` is exact but for one rounding of its small result.
Folded, `scale * x` and `scale * mean` are rounded first, each at its own size, and a result of
about 1 loses log2(scale * mean) bits: 8 for a year, of mean 2000 and deviation 8. Where these are
more than `LOST_BITS`, both operators stay; taking the scale alone would hide how small the
difference is from the next fold. A BatchNormalization of raw features stays likewise where a mean
is that many deviations: it loses the bits itself, for each feature on its own, but a product would
lose them again in each of its sums.

Raw is what comes from a graph's input by moves alone. What a layer makes is rounded at its own size
already, and loses nothing more.
"""

import numpy as np
import onnx_ir as ir

from ...graph.families import REARRANGING, TAKING
from ...graph.operators import is_onnx
from .affine_nodes import AffineNode, affine_input, read
from .algebra.affine import Affine
from .edits import LOST_BITS
from .reason import NotExactError, Reason
from .tensors import name_of

__all__ = ["is_difference", "require_precise"]

MOVES = REARRANGING | TAKING | {"Cast", "Dropout"}


def require_precise(affine: AffineNode) -> None:
    """Require that an affine operator does not standardise raw features that are far from zero.

    Args:
        affine: The operator, which may be the difference, or what scales it, or both.

    Raises:
        NotExactError: If it does.
    """
    other = _other_half(affine)
    if other is not None:
        detail = f"with {name_of(other)}, a small difference of large features"
        raise NotExactError(Reason.BITS_LOST, detail)


def is_difference(a: Affine) -> bool:
    """Say whether a map is x + shift or -x + shift, which rounds its result alone."""
    return bool((np.abs(a.scale) == 1.0).all())


def _other_half(affine: AffineNode) -> ir.Node | None:
    """Return the operator with which it makes such a difference, which may be itself."""
    if affine.moments is not None and not affine.map.is_shift:
        mean, variance = affine.moments
        if (np.abs(mean) > np.sqrt(variance) * 2.0**LOST_BITS).any() and _is_raw(affine.input):
            return affine.node
    if not is_difference(affine.map):
        before = _read(affine.input.producer())
        return before.node if before is not None and _loses(before, affine.map) else None
    for node, _ in affine.node.outputs[0].uses():
        behind = _read(node)
        if behind is not None and _loses(affine, behind.map):
            return node
    return None


def _read(node: ir.Node | None) -> AffineNode | None:
    if node is None or affine_input(node) is None:
        return None
    try:
        return read(node)
    except NotExactError:
        return None


def _loses(difference: AffineNode, behind: Affine) -> bool:
    """Say whether folding a difference into the scale behind it loses too many bits."""
    a = difference.map
    if not is_difference(a) or is_difference(behind) or not (behind.is_finite and a.is_finite):
        return False
    large = (np.abs(a.shift * behind.scale) > 2.0**LOST_BITS).any()
    return bool(large) and _is_raw(difference.input)


def _is_raw(value: ir.Value) -> bool:
    """Say whether a tensor comes from a graph's input by moves alone."""
    left, seen = [value], set()
    while left:
        value = left.pop()
        if value.is_graph_input():
            return True
        node = value.producer()
        if node in seen or node is None or node.op_type not in MOVES or not is_onnx(node):
            continue
        seen.add(node)
        left += [v for v in node.inputs if v is not None]
    return False
