"""A plan to remove one affine operator: which tensors change, and how their neighbours make up.

A tensor x of the graph can become another one, x', in two ways:

    demanded A     x' = A x: the operator that makes it gives that, somehow
    pending P      x = P x': the operators that read it apply P, somehow

A demanded tensor that others read too is pending for them, with A^-1. Rules say how an operator
takes part (`rules/ways.py`); it may pass the change on to other tensors. The plan is complete when
no operator has a change left to make up for; nothing of the graph changes before that.
"""

import dataclasses
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ...graph.exact import is_constant
from ...graph.operators import is_onnx
from .algebra.affine import Affine, same
from .edits import Edit, New
from .maps import mapped, require_fit
from .reason import NotExactError, Reason
from .rules.ways import Maps, Move, MovesOf
from .tensors import name_of

__all__ = ["Plan", "complete"]

SHAPES = frozenset({"Shape", "Size"})
LONGEST = 400  # operators that one search may look at


@dataclass(frozen=True)
class _Change:
    """What becomes of a tensor."""

    map: Affine
    demanded_by: ir.Node | None  # None where it is pending

    @property
    def pending(self) -> Affine:
        return self.map if self.demanded_by is None else self.map.inverse()


@dataclass
class Plan:
    """What has been decided, and what is left to decide.

    Attributes:
        graph: The graph that may change.
        removed: The affine operator to remove.
        order: Where each node is in the graph.
        moves_of: Returns the ways in which a node can take part.
        is_alone: Says whether no change elsewhere helps a node that has a map to apply.
        may_undo: Whether other readers of a demanded tensor may undo a scale.
        may_undo_shift: Likewise a shift.
        may_add: Whether a linear operator without a bias may get an Add behind it.
        kept: The operators that stay as they are.
        changes: What becomes of each tensor that changes.
        edits: What becomes of each operator that takes part; None if it only passes changes on.
        constants: What becomes of constants that are summands or parts, by reader and input.
        passed_on: The operators that cannot take part again, as they have passed changes on.
        queue: The operators that have changes to make up for, first in the graph first.
        queued: The same operators.
        seen: The operators on which the result depends.
        steps: How many operators were looked at.
        without_bias: Operators that lack a bias, where none may be added.
    """

    graph: ir.Graph
    removed: ir.Node
    order: Mapping[ir.Node, float]
    moves_of: MovesOf
    is_alone: Callable[[ir.Node], bool]
    may_undo: bool = False
    may_undo_shift: bool = False
    may_add: bool = False
    kept: frozenset[ir.Node] = frozenset()
    changes: dict[ir.Value, _Change] = field(default_factory=dict)
    edits: dict[ir.Node, Edit | None] = field(default_factory=dict)
    constants: dict[tuple[ir.Node, int], New] = field(default_factory=dict)
    passed_on: set[ir.Node] = field(default_factory=set)
    queue: list[tuple[float, ir.Node]] = field(default_factory=list)
    queued: set[ir.Node] = field(default_factory=set)
    seen: set[ir.Node] = field(default_factory=set)
    steps: list[int] = field(default_factory=lambda: [0])
    without_bias: set[ir.Node] = field(default_factory=set)

    def copy(self) -> "Plan":
        """Return a plan that goes on from here; it shares what was seen, and the steps left."""
        return dataclasses.replace(
            self,
            changes=dict(self.changes),
            edits=dict(self.edits),
            constants=dict(self.constants),
            passed_on=set(self.passed_on),
            queue=list(self.queue),
            queued=set(self.queued),
        )

    def demand(self, value: ir.Value, a: Affine, by: ir.Node) -> None:
        """Let a tensor become A x, for one of its readers."""
        producer, readers = value.producer(), _readers(value)
        self.seen.update(readers)
        if value.is_graph_output():
            raise NotExactError(Reason.GRAPH_OUTPUT, f"tensor {value.name!r}")
        if producer is None:
            raise NotExactError(Reason.GRAPH_INPUT, f"tensor {value.name!r}")
        if producer.graph is not self.graph:
            raise NotExactError(Reason.OTHER_GRAPH, f"tensor {value.name!r}")
        require_fit(a, value)
        self.seen.add(producer)
        if self.changes.get(value) is not None:
            self._require_same(value, _Change(a, by))
            return
        self.changes[value] = _Change(a, by)
        self._push(producer)
        for reader in readers:
            if reader is not by:
                self._require_undoable(value, a)
                self._push_reader(reader)

    def pend(self, value: ir.Value, p: Affine) -> None:
        """Let the readers of a tensor apply P."""
        readers = _readers(value)
        self.seen.update(readers)
        if value.is_graph_output():
            raise NotExactError(Reason.GRAPH_OUTPUT, f"tensor {value.name!r}")
        require_fit(p, value)
        if self.changes.get(value) is not None:
            self._require_same(value, _Change(p, None))
            return
        self.changes[value] = _Change(p, None)
        for reader in readers:
            self._push_reader(reader)

    def apply(self, node: ir.Node, move: Move) -> None:
        """Let an operator take part in one way."""
        if move.edit is not None and move.edit.added is not None and not self.may_add:
            self.without_bias.add(node)
            detail = f"{node.op_type} {name_of(node)}"
            raise NotExactError(Reason.OPERATOR_HAS_NO_BIAS, detail)
        self.edits[node] = move.edit
        for key in [key for key in self.constants if key[0] is node]:
            del self.constants[key]
        for index, a in move.demands.items():
            value = node.inputs[index]
            if value is None or a.is_identity:
                continue
            for other, operand in enumerate(node.inputs):
                also = move.demands.get(other)
                if operand is value and (also is None or not same(also, a)):
                    raise NotExactError(Reason.USED_ELSEWHERE, f"tensor {value.name!r}")
            if is_constant(value):
                self.constants[node, index] = New(mapped(value, a), value, "")
            else:
                self.passed_on.add(node)
                self.demand(value, a, node)
        for index, p in move.pendings.items():
            if not p.is_identity:
                self.passed_on.add(node)
                self.pend(node.outputs[index], p)

    def pending_of(self, node: ir.Node) -> dict[int, Affine]:
        """Return the maps that a node has to apply to its inputs."""
        changes = ((i, self.changes.get(value)) for i, value in enumerate(node.inputs) if value)
        return {
            i: change.pending
            for i, change in changes
            if change is not None and change.demanded_by is not node
        }

    def demanded_of(self, node: ir.Node) -> dict[int, Affine]:
        """Return the maps that the outputs of a node are to go through."""
        changes = ((i, self.changes.get(value)) for i, value in enumerate(node.outputs))
        return {
            i: change.map
            for i, change in changes
            if change is not None and change.demanded_by is not None
        }

    def ways_of(self, node: ir.Node, demanded: Maps) -> list[Move]:
        """Return the ways in which a node can take part; an error tells which node it is."""
        try:
            return self.moves_of(node, self.pending_of(node), demanded, self.removed)
        except NotExactError as e:
            detail = f"{node.op_type} {name_of(node)}" + (f": {e.detail}" if e.detail else "")
            raise NotExactError(e.reason, detail) from None
        except Exception as e:  # operands that do not fit together: the caller tells the origin
            e.add_note(f"{node.op_type} {name_of(node)}")
            raise

    def pop(self) -> ir.Node | None:
        """Return the first node that has a change to make up for, None if there is none."""
        if not self.queue:
            return None
        self.steps[0] += 1
        if self.steps[0] > LONGEST:
            raise NotExactError(Reason.SEARCH_TOO_LONG, f"more than {LONGEST}")
        node = heapq.heappop(self.queue)[1]
        self.queued.remove(node)
        return node

    def require_exact(self) -> None:
        """Require that no constant loses anything that matters; see `New.require_exact`."""
        for edit in self.edits.values():
            if edit is not None:
                edit.require_exact()
        for new in self.constants.values():
            new.require_exact()

    def all_edits(self) -> dict[ir.Node, Edit]:
        """Return one edit for each operator whose constants change."""
        edits = {node: edit for node, edit in self.edits.items() if edit is not None}
        for (node, index), new in self.constants.items():
            edit = edits.get(node) or Edit(node, node.op_type, tuple(node.inputs))
            inputs = (*edit.inputs[:index], new, *edit.inputs[index + 1 :])
            edits[node] = dataclasses.replace(edit, inputs=inputs)
        return edits

    def _require_same(self, value: ir.Value, change: _Change) -> None:
        before = self.changes[value]
        if before.demanded_by is not change.demanded_by or not same(before.map, change.map):
            raise NotExactError(Reason.USED_ELSEWHERE, f"tensor {value.name!r}")

    def _push(self, node: ir.Node) -> None:
        if node is self.removed or node in self.passed_on:
            raise NotExactError(Reason.USED_ELSEWHERE, f"two ways meet at {name_of(node)}")
        if node.graph is not self.graph:
            raise NotExactError(Reason.OTHER_GRAPH, f"{node.op_type} {name_of(node)}")
        if node in self.kept:
            raise NotExactError(Reason.FUSED, f"{node.op_type} {name_of(node)}")
        if node not in self.queued:
            self.queued.add(node)
            heapq.heappush(self.queue, (self.order[node], node))

    def _push_reader(self, node: ir.Node) -> None:
        """Let a reader of a changed tensor make up for it; what cannot is best told at once."""
        self._push(node)
        if self.is_alone(node):
            self.ways_of(node, {})

    def _require_undoable(self, value: ir.Value, a: Affine) -> None:
        if not self.may_undo:
            raise NotExactError(
                Reason.USED_ELSEWHERE,
                f"tensor {value.name!r} has {len(_readers(value))} readers",
            )
        if not a.is_scale and not self.may_undo_shift:
            raise NotExactError(Reason.BITS_LOST, f"another reader of tensor {value.name!r}")


def complete(plan: Plan) -> Plan:
    """Decide what is left to decide, and return the plan.

    Raises:
        NotExactError: If no way leads to the end.
    """
    while (node := plan.pop()) is not None:
        moves = plan.ways_of(node, plan.demanded_of(node))
        if len(moves) == 1:
            plan.apply(node, moves[0])
            continue
        error = NotExactError(Reason.NOT_LINEAR, f"{node.op_type} {name_of(node)}")
        for move in moves:
            branch = plan.copy()
            try:
                branch.apply(node, move)
                return complete(branch)
            except NotExactError as e:
                error = e
                if e.reason is Reason.SEARCH_TOO_LONG:
                    break
        raise error
    return plan


def _readers(value: ir.Value) -> list[ir.Node]:
    """Return the nodes that read the elements of a tensor; no change alters its shape."""
    nodes = dict.fromkeys(use.node for use in value.uses())
    return [node for node in nodes if node.op_type not in SHAPES or not is_onnx(node)]
