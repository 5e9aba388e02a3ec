"""The walk that removes batch norms: each affine operator into its neighbours' weights.

An affine operator y = scale * x + shift is an inference-time BatchNormalization, or a Mul, Add, Sub
or Div with one constant operand. It is removed where its input can become y, where the readers of
its output can do with x, or where each takes a part:

    backward   the input becomes scale * x + shift
    forward    the readers apply scale * x + shift
    both       the input becomes x + shift / scale, and the readers apply the scale; or the input
               becomes scale * x, and the readers add the shift

`plan.py` searches how the operators around make up for such a change, by the laws of
`algebra/affine.py`. It is exact or it is refused: a refusal leaves the graph as it was and is
listed with its reason. Weights are held as they were, with their scales beside them, until they are
written (`graph/exact.py`), so that a chain of folds rounds once.

No linear operator is ever duplicated, and each fold removes one operator. Where a product that
cannot hold a bias is in the way of a batch norm, an Add takes its place: the product is scaled, and
the Add stands right behind it. A fold that would add work does not happen.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ...graph.bypass import bypass
from ...graph.names import Names
from ...graph.operators import count_operators
from .affine_nodes import AffineNode, affine_input, read
from .algebra.affine import Affine
from .differences import require_precise
from .edits import LOST_BITS, Writer
from .plan import Plan, complete
from .reason import NotExactError, Reason
from .report import Fold, FoldReport, Refusal
from .rules.table import is_alone, moves_of
from .savings import require_less_work, saved_by_plan
from .tensors import name_of
from .trunks import Trunks

__all__ = ["fold"]


def fold(
    model: ir.Model, *, kept_in: Callable[[ir.Graph], frozenset[ir.Node]] = lambda _: frozenset()
) -> tuple[ir.Model, FoldReport]:
    """Fold every affine operator that exact algebra lets go.

    Args:
        model: An ONNX graph whose shapes are inferred; stays unchanged.
        kept_in: Returns the operators of a graph that stay as they are, though algebra may allow
            more.

    Returns:
        A new model with the same inputs, outputs and results, and one row for each affine
        operator found: folded, or refused with a reason.
    """
    before = count_operators(model.graph)
    model = model.clone()
    names = Names.of(model.graph)
    graphs = (model.graph, *model.graph.subgraphs())
    walks = [_Walk(graph, names, kept_in(graph)) for graph in graphs]
    for walk in walks:
        walk.run()
    return model, FoldReport(
        tuple(row for walk in walks for row in walk.folds),
        tuple(row for walk in walks for row in walk.refusals.values()),
        before,
        count_operators(model.graph),
    )


Nodes = tuple[ir.Node, ...]


@dataclass
class _Walk:
    """Folds what one graph holds, to a fixed point."""

    graph: ir.Graph
    names: Names
    kept: frozenset[ir.Node]
    rows: dict[ir.Node, tuple[Fold, Nodes, Nodes]] = field(default_factory=dict)
    refusals: dict[ir.Node, Refusal] = field(default_factory=dict)
    looked_at: dict[ir.Node, set[ir.Node]] = field(default_factory=dict)
    added: dict[ir.Node, ir.Node] = field(default_factory=dict)

    def run(self) -> None:
        self.writer, self.trunks = Writer(self.graph, self.names), Trunks(self.graph)
        self.order: dict[ir.Node, float] = {
            node: position for position, node in enumerate(self.graph)
        }
        left = [node for node in self.graph if affine_input(node) is not None]
        while left:
            changed: set[ir.Node] = set()
            for node in left:
                if node.graph is self.graph:
                    changed |= self._try(node)
            left = [
                node
                for node in self.graph
                if affine_input(node) is not None
                and (node not in self.refusals or self.looked_at[node] & changed)
            ]

    def _try(self, node: ir.Node) -> set[ir.Node]:
        """Fold one operator, or note why not; return the nodes that changed."""
        seen, errors = {node}, dict[str, NotExactError]()
        try:
            affine = read(node)
        except NotExactError as e:
            return self._refuse(node, seen, {"backward": e})
        if affine is None:
            return set()
        if node in self.kept or not affine.map.is_finite:
            reason = Reason.FUSED if node in self.kept else Reason.NOT_FINITE
            return self._refuse(node, seen, {"backward": NotExactError(reason, name_of(node))})
        without_bias: set[ir.Node] = set()
        for way in _ways(affine, node.outputs[0]):
            if way.may_add and not without_bias:
                continue
            how = way.how
            plan = Plan(
                self.graph,
                node,
                self.order,
                moves_of,
                is_alone,
                way.may_undo,
                way.may_undo_shift,
                way.may_add,
                self.kept,
                seen=seen,
                without_bias=without_bias,
            )
            try:
                if way.may_undo and not affine.map.is_shift and way.how == "backward":
                    self.trunks.require_scalable(affine.input, affine.map, node, seen)
                way.begin(plan)
                plan = complete(plan)
                plan.require_exact()
                require_less_work(node, plan.all_edits(), plan.edits)
                _require_bypass(affine.input, node.outputs[0])
                require_precise(affine)
            except NotExactError as e:
                errors.setdefault(how, e)
            else:
                return self._carry_out(plan, affine, how)
        return self._refuse(node, seen, errors)

    def _refuse(
        self, node: ir.Node, seen: set[ir.Node], errors: dict[str, NotExactError]
    ) -> set[ir.Node]:
        """Note why an operator stays, and on which others that depends."""
        self.looked_at[node] = seen
        reasons: list[tuple[Reason | None, str]] = [
            (errors[how].reason, errors[how].detail) if how in errors else (None, "")
            for how in ("backward", "forward", "both")
        ]
        self.refusals[node] = Refusal(
            name_of(node),
            node.op_type,
            _layer(node),
            *reasons[0],  # type: ignore[arg-type]  # backward is tried always
            *reasons[1],
            *reasons[2],
        )
        return set()

    def _carry_out(self, plan: Plan, affine: AffineNode, how: str) -> set[ir.Node]:
        """Make the planned edits and remove the operator; return the nodes that changed."""
        node, edits = affine.node, plan.all_edits()
        self.refusals.pop(node, None)
        through = tuple(n for n in plan.edits if n not in edits)
        saved = saved_by_plan(node, edits, plan.edits)
        row = Fold(name_of(node), node.op_type, _layer(node), how, (), (), *saved)
        self._note(node, row, tuple(edits), through)
        self.writer.release(node)
        for edit in edits.values():
            added = self.writer.make(edit)
            if added is not None:
                self.order[added] = self.order[edit.node] + 0.5  # right behind it
                self.added[added] = node
                self.trunks.forget(edit.node.outputs[0])
        self.trunks.forget(affine.input, node.outputs[0])
        bypass(node, affine.input)
        return {node, *plan.edits, *edits}

    def _note(self, node: ir.Node, row: Fold, into: Nodes, through: Nodes) -> None:
        """Note a row; that of an Add which stood for another operator goes into that one's."""
        if node in self.added:
            node = self.added[node]
            first, into_first, through_first = self.rows[node]
            row = dataclasses.replace(
                first,
                how=first.how if first.how == row.how else "both",
                operations=first.operations + row.operations,
                bytes=first.bytes + row.bytes,
            )
            into = tuple(dict.fromkeys((*into_first, *into)))
            through = tuple(dict.fromkeys((*through_first, *through)))
        self.rows[node] = row, into, through

    @property
    def folds(self) -> list[Fold]:
        """One row for each operator removed, with the names that its neighbours have by now."""
        return [
            dataclasses.replace(
                row,
                into=tuple(dict.fromkeys(name for n in into for name in self._names_of(n))),
                through=tuple(dict.fromkeys(name for n in through for name in self._names_of(n))),
            )
            for row, into, through in self.rows.values()
        ]

    def _names_of(self, node: ir.Node) -> list[str]:
        """Return the name of a node, or of those that took it in if it is gone."""
        if node in self.added and node.graph is None:  # what it stood for has its row
            return []
        if node in self.rows:
            return [name for n in self.rows[node][1] for name in self._names_of(n)]
        return [name_of(node)]


Begin = Callable[[Plan], None]


class _Way(NamedTuple):
    """A way to remove an affine operator.

    Attributes:
        how: As the report calls it.
        begin: Sets the first changes in a plan.
        may_undo: As for `Plan`, likewise the others.
    """

    how: str
    begin: Begin
    may_undo: bool = False
    may_undo_shift: bool = False
    may_add: bool = False


def _ways(affine: AffineNode, output: ir.Value) -> Iterator[_Way]:
    """Yield the ways to remove an affine operator, best first."""
    a, node, data = affine.map, affine.node, affine.input

    def begin(demanded: Affine | None, pending: Affine | None) -> Begin:
        def changes(plan: Plan) -> None:
            if demanded is not None and not demanded.is_identity:
                plan.demand(data, demanded, node)
            if pending is not None and not pending.is_identity:
                plan.pend(output, pending)

        return changes

    yield _Way("backward", begin(a, None))
    if a.is_identity:
        return
    yield _Way("forward", begin(None, a))
    mild = _is_mild(affine)
    scale, shift = a.only_scale(), a.only_shift()
    both = not a.is_scale and not a.is_shift
    if both and mild:
        added = Affine(shift.scale, a.shift / a.scale)
        yield _Way("both", begin(added, scale), may_undo=True, may_undo_shift=True)
    if a.scale.all():
        yield _Way("backward", begin(a, None), may_undo=True, may_undo_shift=mild)
    if both:
        yield _Way("both", begin(scale, shift))
    if affine.moments is not None and not a.is_scale:  # an Add is half the work
        yield _Way("backward", begin(a, None), may_add=True)
        yield _Way("forward", begin(None, a), may_add=True)


def _is_mild(affine: AffineNode) -> bool:
    """Say whether x + shift / scale is as precise a number as x, but for `LOST_BITS` bits.

    What is added has to be of the size of x, which the moments of a batch norm tell.
    """
    a = affine.map
    if affine.moments is None or not a.scale.all():
        return False
    mean, variance = affine.moments
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.sqrt(mean**2 + variance)
        return bool((np.abs(a.shift.ravel() / a.scale.ravel()) <= size * 2.0**LOST_BITS).all())


def _require_bypass(source: ir.Value, output: ir.Value) -> None:
    """Require that a tensor can take the place of the one that an operator made of it."""
    if not output.is_graph_output():
        return
    if source.is_graph_output():
        raise NotExactError(Reason.GRAPH_OUTPUT, f"tensor {source.name!r}")
    producer = source.producer()
    if producer is None or producer.graph is not output.producer().graph:  # type: ignore[union-attr]
        raise NotExactError(Reason.GRAPH_INPUT, f"tensor {source.name!r}")


def _layer(node: ir.Node) -> str | None:
    """Return the path of the one Keras layer whose weights a node uses."""
    layers: set[str] = set()
    for value in node.inputs:
        if value is not None:
            layers |= value.meta.get("layers", frozenset())
    return layers.pop() if len(layers) == 1 else None
