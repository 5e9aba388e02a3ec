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

No linear operator is ever duplicated, and nothing is added: each fold removes one operator.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...graph.names import Names
from .affine_nodes import AffineNode, affine_input, read
from .algebra.affine import Affine
from .differences import require_precise
from .edits import LOST_BITS, Writer
from .plan import Plan, complete
from .reason import NotExactError, Reason
from .report import Fold, FoldReport, Refusal
from .savings import saved_by
from .tensors import name_of

__all__ = ["fold"]


def fold(model: ir.Model) -> tuple[ir.Model, FoldReport]:
    """Fold every affine operator that exact algebra lets go.

    Args:
        model: An ONNX graph whose shapes are inferred; stays unchanged.

    Returns:
        A new model with the same inputs, outputs and results, and one row for each affine
        operator found: folded, or refused with a reason.
    """
    model = model.clone()
    names = Names.of(model.graph)
    walks = [_Walk(graph, names) for graph in (model.graph, *model.graph.subgraphs())]
    for walk in walks:
        walk.run()
    return model, FoldReport(
        tuple(row for walk in walks for row in walk.folds),
        tuple(row for walk in walks for row in walk.refusals.values()),
    )


Nodes = tuple[ir.Node, ...]


@dataclass
class _Walk:
    """Folds what one graph holds, to a fixed point."""

    graph: ir.Graph
    names: Names
    rows: dict[ir.Node, tuple[Fold, Nodes, Nodes]] = field(default_factory=dict)
    refusals: dict[ir.Node, Refusal] = field(default_factory=dict)
    looked_at: dict[ir.Node, set[ir.Node]] = field(default_factory=dict)

    def run(self) -> None:
        self.writer = Writer(self.graph, self.names)
        self.order = {node: position for position, node in enumerate(self.graph)}
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
        if not affine.map.is_finite:
            error = NotExactError(Reason.NOT_FINITE, name_of(node))
            return self._refuse(node, seen, {"backward": error})
        for how, may_undo, may_undo_shift, begin in _ways(affine, node.outputs[0]):
            plan = Plan(self.graph, node, self.order, may_undo, may_undo_shift, seen=seen)
            try:
                begin(plan)
                plan = complete(plan)
                plan.require_exact()
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
        row = Fold(name_of(node), node.op_type, _layer(node), how, (), (), *saved_by(node))
        self.rows[node] = row, tuple(edits), through
        data = affine.input
        self.writer.release(node)
        for edit in edits.values():
            self.writer.make(edit)
        self.writer.bypass(node, node.outputs[0], data)
        return {node, *plan.edits, *edits}

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
        if node in self.rows:
            return [name for n in self.rows[node][1] for name in self._names_of(n)]
        return [name_of(node)]


Begin = Callable[[Plan], None]


def _ways(affine: AffineNode, output: ir.Value) -> Iterator[tuple[str, bool, bool, Begin]]:
    """Yield the ways to remove an affine operator.

    Yields:
        How; whether other readers of what changes may undo a scale, and a shift; and what sets
        the first changes in a plan.
    """
    a, node, data = affine.map, affine.node, affine.input

    def begin(demanded: Affine | None, pending: Affine | None) -> Begin:
        def changes(plan: Plan) -> None:
            if demanded is not None and not demanded.is_identity:
                plan.demand(data, demanded, node)
            if pending is not None and not pending.is_identity:
                plan.pend(output, pending)

        return changes

    yield "backward", False, False, begin(a, None)
    if a.is_identity:
        return
    yield "forward", False, False, begin(None, a)
    mild = _is_mild(affine)
    scale, shift = a.only_scale(), a.only_shift()
    both = not a.is_scale and not a.is_shift
    if both and mild:
        yield "both", True, True, begin(Affine(shift.scale, a.shift / a.scale), scale)
    if a.scale.all():
        yield "backward", True, mild, begin(a, None)
    if both:
        yield "both", False, False, begin(scale, shift)


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
