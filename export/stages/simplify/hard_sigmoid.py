"""Scalar arithmetic around a clamp -> HardSigmoid(x) = max(0, min(1, alpha x + beta)).

Affine maps by numbers pass through a clamp,

    c * clip(a x + b, low, high) + d  =  clip(c a x + c b + d, c low + d, c high + d)       c > 0

with the bounds exchanged for c < 0, so a row of them around clamps is a HardSigmoid where the
bounds become 0 and 1: Add(3) -> Clip(0, 6) -> Div(6). One product may stand in between,

    (y * clip(v, low, high)) * c  =  (c y) * clip(v, low, high)  =  y * (clip(v, low, high) * c)

as in x * relu6(x + 3) / 6 and (x / 6) * relu6(x + 3). A hard swish stays two nodes: ONNX Runtime
takes ONNX's HardSwish, there from opset 14 on, apart into these two, and fuses them with a
convolution before them.

The bounds must become 0 and 1 exactly, as the row computes them in float32; so a floor of 1e-8 in
front of a logarithm stays. With 0 <= beta <= 1, |alpha x| <= 1 on the slope, and rounding the
attributes to float32 moves the result by less than 1e-7; another beta would cancel, and what makes
it so stays in front. float32 only: ONNX Runtime has no other kernel for it on CPUs.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ...graph.operators import is_standard
from .editor import Editor
from .scalar_maps import CLAMPS, ScalarMap, ScalarMaps

__all__ = ["Written", "hard_sigmoids", "write_hard_sigmoids"]

INFINITY = float("inf")
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
CLOSE = 1e-7  # in float64, where 1 / 6 is a float32


class _Ramp(NamedTuple):
    """An affine map, and what becomes of two bounds: exactly, and in float32."""

    factor: float
    offset: float
    bounds: tuple[float, float]
    rounded: tuple[float, float]

    def then(self, step: ScalarMap) -> "_Ramp":
        factor, offset = step.factor, step.offset
        (low, high), (first, second) = self.bounds, self.rounded
        return _Ramp(
            self.factor * factor,
            self.offset * factor + offset,
            (low * factor + offset, high * factor + offset),
            (_rounded(first * factor + offset), _rounded(second * factor + offset)),
        )

    @property
    def ends_at_0_and_1(self) -> bool:
        near = (abs(a - b) < CLOSE for a, b in zip(self.bounds, self.rounded, strict=True))
        return self.rounded in ((0, 1), (1, 0)) and all(near)


class _Row(NamedTuple):
    """Clamps of x and the maps behind them; maps behind a product and before its other factor."""

    x: ir.Value
    nodes: list[ir.Node]
    ramp: _Ramp
    scales: Sequence[ScalarMap] = ()


class Written(NamedTuple):
    """A HardSigmoid, and the nodes that it takes the place of."""

    node: ir.Node
    gone: tuple[ir.Node, ...]


def write_hard_sigmoids(editor: Editor) -> bool:
    """Write a clamp between 0 and 1, and the scalar arithmetic around it, as one HardSigmoid."""
    return bool(hard_sigmoids(editor))


def hard_sigmoids(editor: Editor) -> list[Written]:
    """Do the same, and return what was written."""
    maps, found = ScalarMaps(editor), list[Written]()
    with np.errstate(over="ignore", invalid="ignore"):  # such bounds are not 0 and 1
        for node in editor.nodes(*CLAMPS):
            row = _row(maps, node) if node.graph is editor.graph else None
            written = _rewrite(editor, maps, row) if row is not None else None
            if written is not None:
                found.append(written)
    return found


def _rewrite(editor: Editor, maps: ScalarMaps, row: _Row) -> Written | None:
    x, alpha, beta = row.x, row.ramp.factor, row.ramp.offset
    above: list[ir.Node] = []
    found = (0, x, alpha, beta) if _is_slope(alpha, beta) else None
    while (step := maps.above(x)) is not None and not step.is_clamp:
        above.append(step.node)
        x, alpha, beta = step.x, alpha * step.factor, alpha * step.offset + beta
        if _is_slope(alpha, beta):
            found = (len(above), x, alpha, beta)
    if found is None or found[0] + len(row.nodes) + len(row.scales) < 2:
        return None
    count, x, alpha, beta = found
    for scale in row.scales:
        editor.bypass(scale.node, scale.x)
    *others, last = row.nodes
    attributes = {"alpha": _rounded(alpha), "beta": _rounded(beta)}
    new = editor.replace(last, "HardSigmoid", [x], attributes)
    for node in (*reversed(others), *above[:count]):
        editor.graph.remove(node, safe=True)
    scales = (scale.node for scale in row.scales)
    return Written(new, (*reversed(above[:count]), *row.nodes, *scales))


def _rounded(number: float) -> float:
    return float(np.float32(number))


def _is_slope(alpha: float, beta: float) -> bool:
    return SMALLEST <= abs(alpha) <= LARGEST and 0 <= beta <= 1


def _row(maps: ScalarMaps, node: ir.Node) -> _Row | None:
    """Return the longest row whose first clamp is a node and whose bounds become 0 and 1."""
    step = maps.of(node)
    above = maps.above(step.x) if step is not None else None
    if step is None or (above is not None and above.is_clamp):
        return None
    x, low, high = step.x, -INFINITY, INFINITY
    nodes: list[ir.Node] = []
    while step is not None and step.is_clamp:
        low, high = (min(max(bound, step.low), step.high) for bound in (low, high))
        nodes.append(step.node)
        step = maps.below(step.node)
    if not -INFINITY < low < high < INFINITY:
        return None
    behind = _affine_below(maps, nodes[-1])
    start = _Ramp(1.0, 0.0, (low, high), (_rounded(low), _rounded(high)))
    ramps = list(itertools.accumulate(behind, _Ramp.then, initial=start))
    nodes += [step.node for step in behind]
    count = _last_unit(ramps)
    if count is None:
        return _with_product(maps, _Row(x, nodes, ramps[-1]))
    return _Row(x, nodes[: len(nodes) - len(behind) + count], ramps[count])


def _with_product(maps: ScalarMaps, row: _Row) -> _Row | None:
    """Return the row with the factors around a product, if they make its bounds 0 and 1."""
    product = maps.editor.only_reader(row.nodes[-1])
    if product is None or product.op_type != "Mul" or not is_standard(product):
        return None
    behind = list(itertools.takewhile(_is_factor, _affine_below(maps, product)))
    (other,) = (value for value in product.inputs if value is not row.nodes[-1].outputs[0])
    factors = [*behind, *itertools.takewhile(_is_factor, _affine_above(maps, other))]
    ramps = list(itertools.accumulate(factors, _Ramp.then, initial=row.ramp))
    count = _last_unit(ramps)
    if count is None:
        return None
    # In an order in which each can be bypassed with what it reads: from behind to front.
    scales = [*reversed(behind[:count]), *factors[len(behind) : count]]
    return _Row(row.x, row.nodes, ramps[count], scales)


def _is_factor(step: ScalarMap) -> bool:
    return step.offset == 0


def _affine_above(maps: ScalarMaps, value: ir.Value | None) -> Iterator[ScalarMap]:
    """Yield the affine maps that make a value, one in front of the other."""
    while value is not None and (step := maps.above(value)) is not None and not step.is_clamp:
        yield step
        value = step.x


def _affine_below(maps: ScalarMaps, node: ir.Node) -> list[ScalarMap]:
    """Return the affine maps behind a node, one behind the other."""
    found: list[ScalarMap] = []
    step = maps.below(node)
    while step is not None and not step.is_clamp:
        found.append(step)
        step = maps.below(step.node)
    return found


def _last_unit(ramps: Sequence[_Ramp]) -> int | None:
    return max((i for i, ramp in enumerate(ramps) if ramp.ends_at_0_and_1), default=None)
