"""For each operator, one other layout in which it could run.

Three sweeps over the graph, each filling in what the one before left open:

    down   what an operator reads is stored in another order (a Transpose before it): follow that
    up     its readers want another order (a Transpose behind it): lead there
    down   an operand is about to be led: follow

Whether an operator does change over is decided afterwards, for all of them at once.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from ...graph.exact import is_constant
from ...graph.operators import is_onnx
from .move import Move, Rule
from .permutation import Layout, Shuffled, identity
from .rules import axes, dense, reshape, shuffle
from .views import Views

__all__ = ["find_moves"]

PERMUTED: Mapping[str, Rule] = {
    **axes.RULES,
    **dense.RULES,
    **reshape.RULES,
}
SHUFFLED = {**shuffle.RULES, **reshape.SHUFFLED_RULES}


def find_moves(views: Views) -> dict[ir.Node, Move]:
    """Return how each operator would run in its other layout, if it has one."""
    moves: dict[ir.Node, Move] = {}
    ruled = PERMUTED.keys() | SHUFFLED.keys()
    open_nodes = [node for node in views.nodes if is_onnx(node) and node.op_type in ruled]
    _sweep_down(views, open_nodes, moves)
    _sweep_up(views, [node for node in open_nodes if node not in moves], moves)
    _sweep_down(views, [node for node in open_nodes if node not in moves], moves)
    return moves


def _sweep_down(views: Views, nodes: Iterable[ir.Node], moves: dict[ir.Node, Move]) -> None:
    for node in nodes:
        offers: Counter[tuple[int, Layout]] = Counter()
        for at, value in enumerate(node.inputs):
            if value is None or is_constant(value):
                continue
            root, perm = views.root(value)
            natural = identity(len(perm))
            for stored in _stored(root, natural, moves):
                layout = views.of_view(value, stored)
                if layout is not None and layout != natural:
                    offers[at, layout] += 1
                    break
        _take(node, _by_layout(offers), moves)


def _stored(root: ir.Value, natural: Layout, moves: dict[ir.Node, Move]) -> tuple[Layout, ...]:
    """Return the layouts in which a root can be had without a Transpose, the likelier first."""
    producer = root.producer()
    move = moves.get(producer) if producer is not None else None
    if move is None:
        return (natural,)
    index = root.index()
    return (move.outputs[index if index is not None else 0], natural)


def _sweep_up(views: Views, nodes: Iterable[ir.Node], moves: dict[ir.Node, Move]) -> None:
    for node in reversed(list(nodes)):
        offers: Counter[tuple[int, Layout]] = Counter()
        for index, output in enumerate(node.outputs):
            for layout in _wanted(views, output, moves):
                offers[~index, layout] += 1
        _take(node, _by_layout(offers), moves)


def _wanted(views: Views, root: ir.Value, moves: dict[ir.Node, Move]) -> list[Layout]:
    """Return the layouts that readers want a root in, other than as it is."""
    wanted: list[Layout] = []
    for member in views.members[root]:
        perm = views.root(member)[1]
        if member in views.pinned:
            wanted.append(perm)
        for reader, at in member.uses():
            if reader not in views.transposes:
                move = moves.get(reader)
                wanted.append(views.of_root(member, move.inputs[at] if move else None))
    natural = views.root(root)[1]
    return [layout for layout in wanted if layout != natural]


def _by_layout(offers: Counter[tuple[int, Layout]]) -> list[tuple[int, Layout]]:
    """Return each layout offered once, the most frequent first."""
    votes: Counter[Layout] = Counter()
    first: dict[Layout, int] = {}
    for (at, layout), count in offers.items():
        votes[layout] += count
        first.setdefault(layout, at)
    return [(first[layout], layout) for layout, _ in votes.most_common()]


def _take(node: ir.Node, offers: list[tuple[int, Layout]], moves: dict[ir.Node, Move]) -> None:
    """Keep the first move that the operator's rule allows."""
    for at, layout in offers:
        if isinstance(layout, Shuffled):
            shuffled = SHUFFLED.get(node.op_type)
            move = shuffled(node, at, layout) if shuffled is not None else None
        else:
            permuted = PERMUTED.get(node.op_type)
            move = permuted(node, at, layout) if permuted is not None else None
        if move is not None:
            moves[node] = move
            return
