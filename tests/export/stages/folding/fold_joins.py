"""Pieces of random graphs for the fold: where two tensors meet, as they do in networks.

Residual branches, gates that squeeze and excite, pre-activation, channels that are split and joined
again. Like those of `fold_pieces.py`: each appends a few nodes behind a tensor.
"""

import numpy as np

from tests.export.stages.folding.fold_passages import either
from tests.export.stages.folding.fold_pieces import (
    LINEAR,
    affine,
    affines,
    axis_of,
    mark,
    operand_shape,
    weight,
)


def same_shape(g, x):
    """Return a tensor of the same shape: another one if there is one."""
    names = [name for name in g.floats() if g.shape(name) == g.shape(x)]
    others = [name for name in names if name != x]
    return g.choice(*(others if others and g.chance(0.9) else names))


def join(g, x):
    axis, other = axis_of(g, x), same_shape(g, x)
    kind = g.rng.integers(9)
    if kind == 0:
        return mark(g, g.node("Sum", x, other, same_shape(g, x)), axis)
    if kind == 1:
        away = mark(g, g.node("Add", g.node("Abs", x), g.constant(np.float32(0.5))), axis)
        if g.chance(0.7):
            factors = g.rng.uniform(0.5, 2.0, operand_shape(g, away))
            away = g.node("Mul", away, g.constant(np.float32(factors)))
        return mark(g, g.node("Div", other, away), axis)
    pair = (x, other) if g.chance(0.5) else (other, x)
    kind = g.choice("Add", "Add", "Add", "Sub", "Sub", "Mul", "Mul", "Max", "Min")
    return mark(g, g.node(kind, *pair), axis)


def concat(g, x):
    shape, axis = g.shape(x), axis_of(g, x)
    if not shape:
        return None
    where = axis if g.chance(0.7) else int(g.rng.integers(len(shape)))
    fitting = [
        name
        for name in g.floats()
        if len(g.shape(name)) == len(shape)
        and all(a == b or i == where for i, (a, b) in enumerate(zip(g.shape(name), shape, strict=True)))  # noqa: E501
    ]  # fmt: skip
    others = [g.choice(*fitting) for _ in range(g.choice(1, 1, 2))]
    return mark(g, g.node("Concat", x, *others, axis=either(g, where, len(shape))), axis)


def split(g, x):
    """Cut a tensor in two, work on the parts, and maybe join them again."""
    shape, axis = g.shape(x), axis_of(g, x)
    if not shape or shape[axis] < 2:
        return None
    first = int(g.rng.integers(1, shape[axis]))
    if g.chance(0.3):  # in two halves
        options = {"num_outputs": 2} if g.opset >= 18 else {}
        even = shape[axis] % 2 == 0
        parts = even and g.nodes_of("Split", x, results=2, axis=axis, **options)
    else:
        parts = g.split(x, either(g, axis, len(shape)), first, shape[axis] - first)
    if not parts:
        return None
    parts = [mark(g, part, axis) for part in parts]
    parts = [affine(g, part) or part if g.chance(0.5) else part for part in parts]
    if g.chance(0.5) or len({len(g.shape(part)) for part in parts}) > 1:
        return g.choice(*parts)
    return mark(g, g.node("Concat", *parts, axis=axis), axis)


def branches(g, x):
    """Two branches of a linear operator each, or one with a shortcut, and their sum or union."""
    piece = g.choice(LINEAR["Conv"], LINEAR["MatMul"], LINEAR["Gemm"])
    ends = []
    for _ in range(g.choice(2, 2, 3)):
        end = piece(g, x) if g.chance(0.8) else x
        ends.append(affines(g, end) if end and g.chance(0.5) else end)
    if None in ends:
        return None
    if len({g.shape(end) for end in ends}) == 1:
        return mark(g, g.node(g.choice("Add", "Add", "Sub", "Mul"), *ends[:2]), axis_of(g, ends[0]))
    return concat(g, ends[0])


def gate(g, x):
    """Squeeze and excite: channels are scaled by what the whole image says of them."""
    shape = g.shape(x)
    if len(shape) not in (3, 4):
        return None
    y = mark(g, g.node("GlobalAveragePool", x), 1)
    kernel = weight(g, shape[1], shape[1], *[1] * (len(shape) - 2))
    y = mark(g, g.node("Conv", y, kernel), 1)
    y = affine(g, y) if y and g.chance(0.5) else y
    y = y and g.node(g.choice("Sigmoid", "Relu", "Identity"), y)
    return mark(g, g.node("Mul", *((x, y) if g.chance(0.5) else (y, x))), 1)


def preactivation(g, x):
    """x + conv(relu(norm(x))): the shift may go back, the scale forward."""
    shape = g.shape(x)
    if len(shape) not in (3, 4):
        return None
    y = affine(g, x, "BatchNormalization" if g.chance(0.7) else None)
    y = y and g.node(g.choice("Relu", "Relu", "Identity", "LeakyRelu"), y)
    kernel = weight(g, shape[1], shape[1], *[3] * (len(shape) - 2))
    y = y and g.node("Conv", y, kernel, pads=[1] * 2 * (len(shape) - 2))
    return mark(g, g.node("Add", x, y), 1)


JOINING = (*[split] * 3, *[join] * 4, *[concat] * 2, *[branches] * 3, gate, *[preactivation] * 2)
