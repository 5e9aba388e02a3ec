"""The names taken in a graph, and new ones."""

import re
from collections import Counter
from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["Names"]

SUFFIX = re.compile(r"_\d+$")


class Names:
    """The names taken in a graph, and new ones on request.

    >>> names = Names(["conv/bias", "conv/bias_1"])
    >>> names.new("conv/bias"), names.new("conv/bias")
    ('conv/bias_2', 'conv/bias_3')
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: Counter[str] = Counter()

    @classmethod
    def of(cls, graph: ir.Graph) -> "Names":
        """Collect the names of a graph's inputs, initializers and node outputs, inner ones too."""
        graphs = [graph, *graph.subgraphs()]
        values = [value for g in graphs for value in (*g.inputs, *g.initializers.values())]
        for node in graph.all_nodes():
            values.extend(node.outputs)
        return cls(str(value.name) for value in values)

    def new(self, wanted: str) -> str:
        """Return `wanted`, or the first of `wanted_1`, `wanted_2`, ... not taken; it is now."""
        name = wanted
        while name in self._taken:
            self._next[wanted] += 1
            name = f"{wanted}_{self._next[wanted]}"
        self._taken.add(name)
        return name

    def release(self, name: str) -> None:
        """Make a name available again."""
        self._taken.discard(name)
        self._next.pop(SUFFIX.sub("", name), None)
