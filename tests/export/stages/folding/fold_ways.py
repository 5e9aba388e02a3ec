"""Affine operators for the table, and what may stand between them and a linear operator.

Each way says what it lets through: of a shift, of a scale, and of a negative one.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_bn.export.report import Reason

NOTHING, ANY = frozenset(), frozenset(Reason)
BEFORE, BEHIND = "before", "behind"


@dataclasses.dataclass(frozen=True)
class Affine:
    """One or two nodes that map a tensor; `positive` if no scale is negative."""

    name: str
    scales: bool
    shifts: bool
    positive: bool = True

    def fits(self, rank, axis):
        return self.name != "BatchNormalization" or (axis == 1 and rank > 1)

    def append(self, g, x, axis):
        """Append it behind `x`, along an axis."""
        shape = g.shape(x)
        channels = shape[axis]
        if self.name == "BatchNormalization":
            variance = g.normal(channels, least=0.2)
            parameters = (self._vector(g, channels), g.normal(channels), g.normal(channels))
            return g.node("BatchNormalization", x, *parameters, variance, epsilon=1e-3)
        sizes = [channels, *[1] * (len(shape) - 1 - axis)]
        if self.name == "k - x":
            return g.node("Sub", g.normal(*sizes), x)
        for operator in self.name.split("+"):
            x = g.node(operator, x, self._vector(g, *sizes))
        return x

    def _vector(self, g, *sizes):
        """Draw numbers that are not small; one is negative unless all have to be positive."""
        name = g.normal(*sizes, least=0.3)
        if not self.positive:
            signs = g.rng.choice([-1, 1], sizes)
            signs.flat[0] = -1
            g.constants[name] *= np.float32(signs)
        return name


AFFINES = [
    Affine("BatchNormalization", True, True),
    Affine("BatchNormalization", True, True, positive=False),
    Affine("Mul", True, False),
    Affine("Mul", True, False, positive=False),
    Affine("Div", True, False),
    Affine("Add", False, True),
    Affine("Sub", False, True),
    Affine("k - x", True, True, positive=False),
    Affine("Mul+Add", True, True),
]


@dataclasses.dataclass(frozen=True)
class Way:
    """What stands between an affine and a linear operator.

    Attributes:
        name: Of the operator.
        append: Takes a draft, a tensor, the axis of its channels and a function that gives a second
            branch; returns the result and the axis of the channels in it.
        source: The shape and axis of a tensor from which it makes one of a given shape and axis;
            None if it is tried behind the linear operator only.
        fits: Whether it takes a tensor of a rank, with its channels at an axis.
        stops: Why an affine map cannot pass; any of the reasons may be told.
        behind: Whether it is tried behind the linear operator, too.
    """

    name: str
    append: Callable
    source: Callable | None = lambda shape, axis: (shape, axis)
    fits: Callable = lambda rank, axis: True
    stops: Callable = lambda affine, direction: NOTHING
    behind: bool = True


def _other_axis(rank, axis):
    """Return an axis that is not the channels."""
    return rank - 1 if axis != rank - 1 else 0


def _unary(operator, **attributes):
    return lambda g, x, axis, _: (g.node(operator, x, **attributes), axis)


def _transpose(g, x, axis, _):
    rank = len(g.shape(x))
    return g.node("Transpose", x, perm=list(range(rank))[::-1]), rank - 1 - axis


def _reshape(g, x, axis, _):
    """Append an axis of size 1, or merge it, which is the way back."""
    return g.node("Reshape", x, g.integers(*[0] * (axis + 1), -1)), axis


def _drop_last(g, x, axis, _):
    return g.node("Reshape", x, g.integers(*[0] * (len(g.shape(x)) - 1))), axis


def _window(operator, **attributes):
    def append(g, x, axis, _):
        return g.node(operator, x, kernel_shape=[2] * (len(g.shape(x)) - 2), **attributes), axis

    return append


def _mean(g, x, axis, _):
    other = _other_axis(len(g.shape(x)), axis)
    y = g.reduce("ReduceMean", x, other, keepdims=0)
    return y, axis - (other < axis)


def _concat(g, x, axis, branch):
    return g.node("Concat", x, branch(), axis=axis), axis


def _residual(g, x, axis, branch):
    return g.node("Add", x, branch()), axis


def _difference(g, x, axis, branch):
    return g.node("Sub", branch(), x), axis


def _gate(g, x, axis, branch):
    return g.node("Mul", g.node("Sigmoid", branch()), x), axis


def _divisor(g, x, axis, branch):
    return g.node("Div", branch(), x), axis


def _to_depth(g, x, axis, _):
    shape = g.shape(x)
    fits = len(shape) == 4 and shape[2] % 2 == shape[3] % 2 == 0
    return g.node("SpaceToDepth", x, blocksize=2) if fits else None, axis


def _pad(g, x, axis, _):
    rank = len(g.shape(x))
    pads = [0] * 2 * rank
    pads[_other_axis(rank, axis)] = 1
    return g.node("Pad", x, g.integers(*pads)), axis


def _slice(g, x, axis, _):
    other = g.integers(_other_axis(len(g.shape(x)), axis))
    return g.node("Slice", x, g.integers(1), g.integers(2**31 - 1), other), axis


def _resize(g, x, axis, _):
    scales = np.float32([*[1] * (len(g.shape(x)) - 1), 2])
    y = g.node("Resize", x, "", g.constant(scales), mode="nearest")
    return y, axis


def _grown(by):
    """Return what `source` is for an operator that takes `by` from an axis."""

    def source(shape, axis):
        other = _other_axis(len(shape), axis)
        return tuple(n + by * (i == other) for i, n in enumerate(shape)), axis

    return source


def _spread(shape, axis):
    """Return the shape of what SpaceToDepth makes a tensor of; one that it refuses if none."""
    if len(shape) != 4 or shape[1] % 4:
        return (1,), 0
    return (shape[0], shape[1] // 4, 2 * shape[2], 2 * shape[3]), axis


def _is_image(rank, axis):
    return rank > 2 and axis == 1


def _never_negative(affine, direction):
    return NOTHING if affine.positive else {Reason.NEGATIVE_SCALE}


def _homogeneous(affine, direction):
    stops = set(_never_negative(affine, direction))
    return stops | {Reason.SHIFT, Reason.NOT_LINEAR} if affine.shifts else stops


def _no_shift(affine, direction):
    return {Reason.ZERO_PADDING} if affine.shifts else NOTHING


def _only_scale(affine, direction):
    return {Reason.SHIFT, Reason.NOT_LINEAR} if affine.shifts else NOTHING


def _only_shift(affine, direction):
    return ANY if affine.scales and direction == BEFORE else NOTHING


WAYS = [
    Way("nothing", lambda g, x, axis, _: (x, axis)),
    Way("Identity", _unary("Identity")),
    Way("Dropout", _unary("Dropout")),
    Way("Transpose", _transpose, lambda shape, axis: (shape[::-1], len(shape) - 1 - axis)),
    Way("Reshape", _reshape, None),
    Way("Reshape to fewer", _drop_last, lambda s, axis: ((*s, 1), axis), behind=False),
    Way("Unsqueeze", lambda g, x, a, _: (g.node("Unsqueeze", x, g.integers(0)), a + 1), None),
    Way(
        "Squeeze",
        lambda g, x, a, _: (g.node("Squeeze", x, g.integers(0)), a - 1),
        lambda shape, axis: ((1, *shape), axis + 1),
        behind=False,
    ),
    Way(
        "AveragePool",
        _window("AveragePool"),
        lambda s, axis: ((*s[:2], *(n + 1 for n in s[2:])), axis),
        _is_image,
    ),
    Way(
        "MaxPool",
        _window("MaxPool"),
        lambda s, axis: ((*s[:2], *(n + 1 for n in s[2:])), axis),
        _is_image,
        _never_negative,
    ),
    Way("GlobalAveragePool", _unary("GlobalAveragePool"), None, _is_image),
    Way("ReduceMean", _mean, lambda shape, axis: ((*shape, 2), axis)),
    Way(
        "Concat",
        _concat,
        lambda s, axis: (tuple(n - (i == axis) for i, n in enumerate(s)), axis),
    ),
    Way("Add", _residual, stops=_only_shift),
    Way("Sub", _difference, stops=_only_shift),
    Way("Mul", _gate, stops=_only_scale),
    Way("Div", _divisor, stops=_only_scale, behind=False),  # what is behind some is 0 in places
    Way("SpaceToDepth", _to_depth, _spread, _is_image, behind=False),
    Way("Pad", _pad, _grown(-1), stops=_no_shift),
    Way("Slice", _slice, _grown(1)),
    Way("Resize", _resize, None, _is_image),
    Way("Relu", _unary("Relu"), stops=_homogeneous),
    Way("Sigmoid", _unary("Sigmoid"), stops=lambda affine, direction: {Reason.NOT_LINEAR}),
]
