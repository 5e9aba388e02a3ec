"""Which operators change over to their other layout: the choice with the fewest Transposes.

Give each operator u that has a move a variable x_u: 0 as in the source graph, 1 in its other
layout. A tensor costs one Transpose for every order of its axes that someone reads and its
producer does not store:

    cost = sum over tensors t, orders k of   w * [some reader of t wants k] * [t is not stored as k]

With two choices for each operator that is a minimum cut, found exactly, wherever all who want k
and the producer that stores k can be put on one side. Sides follow from a union-find with parity;
an operator that would have to be on both keeps its source layout. No operator moving at all is one
of the choices, so the result never has more Transposes than the source.

Far smaller costs break ties: Reshapes that move dimensions of size 1, a MatMul that turns into a
Conv, and the number of bytes to transpose.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ...graph.exact import is_constant
from .candidates import find_moves
from .minimum_cut import MinimumCut
from .move import Move
from .permutation import Layout, Shuffled, order, units
from .views import Views

__all__ = ["Choice", "choose_layouts"]

TRANSPOSE, RESHAPE, CONVERSION = 1 << 24, 1 << 10, 1 << 4
FORBIDDEN = 1 << 50

Literal = tuple[ir.Node, int]  # true where the operator's variable has this value


@dataclass(frozen=True, slots=True)
class Choice:
    """The moves to carry out, and what that is worth.

    Attributes:
        moves: The operators that change over.
        transposes: How many Transposes are left.
        saves: Whether these are fewer than if no operator moves, or of smaller tensors.
    """

    moves: dict[ir.Node, Move]
    transposes: int
    saves: bool


@dataclass(slots=True)
class _Term:
    """weight * [any of `wanted`, or always] * [not `stored`]; None is never stored."""

    weight: int
    wanted: list[Literal]
    always: bool
    stored: Literal | None


@dataclass(slots=True)
class _Tensor:
    """Who stores a root, in which layouts, and who wants it in which: as it is, and moved."""

    producer: ir.Node | None
    stored: tuple[Layout, Layout]
    readers: list[tuple[ir.Node | None, Layout, Layout]] = field(default_factory=list)


def choose_layouts(views: Views) -> Choice:
    """Find the moves that leave the fewest Transposes."""
    moves = find_moves(views)
    sides = _Sides()
    terms = [
        term
        for root, tensor in _tensors(views, moves).items()
        for term in _terms(root, tensor)
        if sides.agree(term)
    ]
    terms += [
        _Term(CONVERSION, [], True, (node, 0)) for node, move in moves.items() if move.op_type
    ]
    moved = _cut(terms, sides)
    costs = [term for term in terms if TRANSPOSE <= term.weight < FORBIDDEN]
    left = [term.weight for term in costs if _is_paid(term, moved)]
    unmoved = sum(term.weight for term in costs if _is_paid(term, set()))
    chosen = {node: move for node, move in moves.items() if node in moved}
    return Choice(chosen, len(left), sum(left) < unmoved)


def _tensors(views: Views, moves: dict[ir.Node, Move]) -> dict[ir.Value, _Tensor]:
    tensors: dict[ir.Value, _Tensor] = {}

    def tensor_of(root: ir.Value) -> _Tensor:
        if root not in tensors:
            natural, producer = views.root(root)[1], root.producer()
            move = moves.get(producer) if producer is not None else None
            stored = move.outputs[root.index() or 0] if move else natural
            tensors[root] = _Tensor(producer if move else None, (natural, stored))
        return tensors[root]

    for node in views.nodes:
        move = moves.get(node)
        for index, value in enumerate(node.inputs):
            if value is None or is_constant(value):
                continue
            root, perm = views.root(value)
            wanted = views.of_root(value, move.inputs[index]) if move else perm
            tensor_of(root).readers.append((node if move else None, perm, wanted))
    for value in views.pinned:
        if not is_constant(value):
            root, perm = views.root(value)
            tensor_of(root).readers.append((None, perm, perm))
    return tensors


def _terms(root: ir.Value, tensor: _Tensor) -> list[_Term]:
    """Return what a tensor may cost."""
    natural = tensor.stored[0]
    if natural == tensor.stored[1] and all(r[1:] == tensor.stored for r in tensor.readers):
        return []
    layouts = dict.fromkeys([*tensor.stored, *(layout for r in tensor.readers for layout in r[1:])])
    terms = []
    if any(isinstance(layout, Shuffled) for layout in layouts):  # no way leads there, or back
        kinds = {k: k if isinstance(k, Shuffled) else () for k in layouts}
        terms += _terms_of(tensor, kinds, FORBIDDEN)
    ones = units(root.shape)
    orders = {k: k if isinstance(k, Shuffled) else order(k, ones) for k in layouts}
    terms += _terms_of(tensor, orders, TRANSPOSE + _size(root))
    if ones:
        terms += _terms_of(tensor, {layout: layout for layout in layouts}, RESHAPE)
    return terms


def _size(root: ir.Value) -> int:
    """Return a small number that grows with a tensor's bytes."""
    sizes = [size if isinstance(size, int) else 32 for size in root.shape or ()]
    width = 4 if root.dtype in (None, ir.DataType.STRING) else root.dtype.itemsize
    return int(16 * math.log2(max(1.0, math.prod(sizes) * width))) + len(sizes)


def _terms_of(tensor: _Tensor, label: Mapping[Layout, Layout], weight: int) -> list[_Term]:
    before, after = (label[layout] for layout in tensor.stored)
    always: set[Layout] = set()
    wanted: dict[Layout, list[Literal]] = {}
    for node, source, other in tensor.readers:
        if node is None or label[source] == label[other]:
            always.add(label[source])
            continue
        wanted.setdefault(label[source], []).append((node, 0))
        wanted.setdefault(label[other], []).append((node, 1))
    terms = []
    for key in dict.fromkeys([*always, *wanted]):
        if key == before == after:
            continue
        stored = None
        if tensor.producer is not None and key in (before, after):
            stored = (tensor.producer, int(key == after))
        literals = [] if key in always else wanted[key]
        terms.append(_Term(weight, literals, key in always, stored))
    return terms


class _Sides:
    """On which side of the cut each operator's 1 is, relative to its component's."""

    def __init__(self) -> None:
        self._parent: dict[ir.Node, tuple[ir.Node, int]] = {}
        self.fixed: set[ir.Node] = set()

    def side(self, literal: Literal) -> tuple[ir.Node, int]:
        """Return a component and the side of its cut on which a literal is true."""
        node, value = literal
        path = []
        while node in self._parent:
            path.append(node)
            node = self._parent[node][0]
        parity = 0
        for step in reversed(path):
            parity ^= self._parent[step][1]
            self._parent[step] = node, parity
        return node, value ^ parity

    def agree(self, term: _Term) -> bool:
        """Put a term's literals on one side; False if it costs nothing whatever is chosen."""
        if not self._simplify(term) or term.always:
            return term.always
        literals = [*term.wanted, *([] if term.stored is None else [term.stored])]
        for literal in literals[1:]:
            component, side = self.side(literal)
            other, wanted_side = self.side(literals[0])
            if component is not other:
                self._parent[component] = other, side ^ wanted_side
            elif side != wanted_side:
                self.fixed.add(literal[0])
        return self._simplify(term)

    def _simplify(self, term: _Term) -> bool:
        """Evaluate the literals of fixed operators, whose variable is 0."""
        if term.stored is not None and term.stored[0] in self.fixed:
            if term.stored[1] == 0:
                return False
            term.stored = None
        if any(node in self.fixed and value == 0 for node, value in term.wanted):
            term.wanted, term.always = [], True
        term.wanted = [literal for literal in term.wanted if literal[0] not in self.fixed]
        return bool(term.wanted) or term.always


def _is_paid(term: _Term, moved: set[ir.Node]) -> bool:
    if term.stored is not None and (term.stored[0] in moved) == term.stored[1]:
        return False
    return term.always or any((node in moved) == value for node, value in term.wanted)


def _cut(terms: list[_Term], sides: _Sides) -> set[ir.Node]:
    """Return the operators to move."""
    cut = MinimumCut()
    numbers: dict[ir.Node, int] = {}

    def number(node: ir.Node) -> int:
        if node not in numbers:
            numbers[node] = cut.add_node()
        return numbers[node]

    def add(tail: int, head: int, capacity: int, *, towards_sink: bool) -> None:
        cut.add_arc(*((tail, head) if towards_sink else (head, tail)), capacity)

    for node in sides.fixed:
        side = sides.side((node, 0))[1]
        ends = (cut.SOURCE, number(node)) if side == 0 else (number(node), cut.SINK)
        cut.add_arc(*ends, FORBIDDEN)
    for term in terms:
        some = term.wanted[0] if term.wanted else term.stored
        if some is None:
            continue
        sink = bool(sides.side(some)[1])
        near, far = (cut.SOURCE, cut.SINK) if sink else (cut.SINK, cut.SOURCE)
        if term.always:
            add(number(some[0]), far, term.weight, towards_sink=sink)
            continue
        tail = near if term.stored is None else number(term.stored[0])
        if len(term.wanted) == 1:
            add(tail, number(some[0]), term.weight, towards_sink=sink)
            continue
        hub = cut.add_node()
        add(tail, hub, term.weight, towards_sink=sink)
        for node, _ in term.wanted:
            add(hub, number(node), FORBIDDEN, towards_sink=sink)
    at_source = cut.source_side()
    return {node for node, i in numbers.items() if sides.side((node, 1))[1] == (not at_source[i])}
