"""Minimum cut of a directed graph by Dinic's algorithm.

    minimise   sum of capacity(u -> v) over the arcs with u on the source's side, v on the sink's

The maximum flow has the same value (Ford & Fulkerson); what the source still reaches once it flows
is the smallest source's side of such a cut. Each round is linear in the arcs, and rounds are few
where few arcs are cut.
"""

from collections import deque

__all__ = ["MinimumCut"]


class MinimumCut:
    """Nodes 0 (source), 1 (sink), and as many more as `add_node` makes."""

    SOURCE, SINK = 0, 1

    def __init__(self) -> None:
        self._arcs: list[list[int]] = [[], []]  # by node, the arcs that leave it
        self._heads: list[int] = []  # arc i leads there; arc i ^ 1 is its reverse
        self._room: list[int] = []

    def add_node(self) -> int:
        """Return a new node."""
        self._arcs.append([])
        return len(self._arcs) - 1

    def add_arc(self, tail: int, head: int, capacity: int) -> None:
        """Let `capacity` flow from `tail` to `head`."""
        self._arcs[tail].append(len(self._heads))
        self._arcs[head].append(len(self._heads) + 1)
        self._heads += (head, tail)
        self._room += (capacity, 0)

    def source_side(self) -> list[bool]:
        """Return for each node whether it is on the source's side of a minimum cut."""
        while (levels := self._levels())[self.SINK] >= 0:
            self._block(levels)
        return [level >= 0 for level in levels]

    def _levels(self) -> list[int]:
        """Return each node's distance from the source where there is room, else -1."""
        levels = [-1] * len(self._arcs)
        levels[self.SOURCE] = 0
        queue = deque([self.SOURCE])
        while queue:
            node = queue.popleft()
            for arc in self._arcs[node]:
                head = self._heads[arc]
                if levels[head] < 0 < self._room[arc]:
                    levels[head] = levels[node] + 1
                    queue.append(head)
        return levels

    def _block(self, levels: list[int]) -> None:
        """Send flow along shortest paths until each is blocked."""
        following = [0] * len(self._arcs)
        path: list[int] = []
        node = self.SOURCE
        while True:
            if node == self.SINK:
                flow = min(self._room[arc] for arc in path)
                for arc in path:
                    self._room[arc] -= flow
                    self._room[arc ^ 1] += flow
                path, node = [], self.SOURCE
                continue
            arcs = self._arcs[node]
            while following[node] < len(arcs):
                arc = arcs[following[node]]
                if self._room[arc] > 0 and levels[self._heads[arc]] == levels[node] + 1:
                    break
                following[node] += 1
            if following[node] < len(arcs):
                path.append(arc)
                node = self._heads[arc]
            elif path:
                node = self._heads[path.pop() ^ 1]
                following[node] += 1
            else:
                return
