"""A linear operator and an affine one with a way between them, and what the algebra says of it.

    behind:   operator -> way -> affine
    before:   affine -> way -> operator

An affine operator folds unless the way, or the operator, stops its shift or its scale.
"""

import dataclasses

from keras_bn.export.report import Reason
from tests.export.stages.folding.fold_operators import start
from tests.export.stages.folding.fold_ways import ANY, BEFORE, BEHIND, WAYS, Way


@dataclasses.dataclass(frozen=True)
class Structure:
    """A linear operator and an affine operator, a way between them, and what else reads there."""

    direction: str
    way: Way
    also: str = ""

    @property
    def name(self):
        return " ".join(filter(None, [self.direction, self.way.name, self.also]))

    def draw(self, g, operator, affine):
        """Fill a draft; return the names of the graph's outputs, or None if they do not fit."""
        return (self._behind if self.direction == BEHIND else self._before)(g, operator, affine)

    def _behind(self, g, operator, affine):
        if operator.axis_out is None:
            return None
        weights = []
        if self.also == "shared weight":
            probe = len(g.constants)
            y = operator.build(g, start(g, operator))
            weights = [next(iter(list(g.constants)[probe:]))]
            second = operator.build(g, start(g, operator), *weights)
        else:
            y = operator.build(g, start(g, operator))
        if not self.way.behind or not self.way.fits(len(g.shape(y)), operator.axis_out):
            return None
        branch = lambda: operator.build(g, start(g, operator))  # noqa: E731
        z, axis = self.way.append(g, y, operator.axis_out, branch)
        if z is None or not affine.fits(len(g.shape(z)), axis):
            return None
        result = affine.append(g, z, axis)
        match self.also:
            case "shared weight":
                return [result, second]
            case "graph output":
                return [z, result]
            case "nonlinear reader":
                return [result, g.node("Sigmoid", z)]
        return [result]

    def _before(self, g, operator, affine):
        if operator.axis_in is None or self.way.source is None:
            return None
        if not self.way.fits(len(operator.shape), operator.axis_in):
            return None
        shape, axis = self.way.source(operator.shape, operator.axis_in)
        if not affine.fits(len(shape), axis) or min(shape) < 1:
            return None
        x = affine.append(g, g.input(*shape), axis)

        def branch():
            if self.way.name == "Concat":
                return g.input(*(1 if i == axis else n for i, n in enumerate(shape)))
            return g.input(*shape)

        z, _ = self.way.append(g, x, axis, branch)
        if z is None:
            return None
        result = operator.build(g, z)
        match self.also:
            case "graph output":
                return [x, result]
            case "nonlinear reader":
                return [result, g.node("Sigmoid", z)]
            case "second operator":
                return [result, operator.build(g, z)]
        return [result]

    def keeps_batch(self, operator):
        """Say whether the input's first axis is neither its channels nor the weights'."""
        axes = {0 if "acd" in operator.name else operator.axis_in}
        if self.direction == BEFORE:
            axes.add(self.way.source(operator.shape, operator.axis_in)[1])
        return 0 not in axes

    def stops(self, operator, affine):
        """Return why the affine operator has to stay; empty if it has to fold."""
        reasons = set(self.way.stops(affine, self.direction))
        if self.direction == BEFORE and affine.shifts and operator.no_shift:
            reasons |= {operator.no_shift, Reason.ZERO_PADDING, Reason.SHIFT}
            if self.way.name in ("Add", "Sub"):
                reasons |= ANY  # that of the other summand may be told
        if self.also == "graph output":
            reasons.add(Reason.GRAPH_OUTPUT)
        if self.also == "nonlinear reader":
            reasons |= ANY  # the other reader, or what comes behind one of the two
        return reasons

    def summands(self, operator, affine):
        """Return how many Adds may remain as the place of a bias."""
        if operator.name.split()[0] not in ("MatMul", "Einsum"):
            return 0
        twice = self.also in ("shared weight", "second operator")
        branches = 2 if twice or (self.direction == BEHIND and self.way.name in BRANCHING) else 1
        return branches if affine.shifts or "bias=1" in operator.name else 0


BRANCHING = ("Concat", "Add", "Sub", "Mul", "Div")
STRUCTURES = [
    *(Structure(direction, way) for direction in (BEHIND, BEFORE) for way in WAYS),
    *(
        Structure(direction, WAYS[0], also)
        for direction, also in [
            (BEHIND, "shared weight"),
            (BEHIND, "graph output"),
            (BEHIND, "nonlinear reader"),
            (BEFORE, "graph output"),
            (BEFORE, "nonlinear reader"),
            (BEFORE, "second operator"),
        ]
    ),
]
