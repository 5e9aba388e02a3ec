"""Pieces of random graphs for the fold: what an affine map passes, and what stops it.

Like those of `fold_pieces.py`: each appends a few nodes behind a tensor.
"""

import numpy as np
from onnx import TensorProto, helper

from tests.export.stages.folding.fold_pieces import affine, axis_of, mark, operand_shape, weight


def either(g, axis, rank):
    """Count an axis from the front or from the back."""
    return int(axis) - rank * g.chance(0.3)


def transpose(g, x):
    rank, axis = len(g.shape(x)), axis_of(g, x)
    if rank == 0:
        return None
    if g.chance(0.1):  # without its attribute, it reverses
        return mark(g, g.node("Transpose", x), rank - 1 - axis)
    perm = [int(i) for i in g.rng.permutation(rank)]
    if rank == 4 and g.chance(0.6):
        perm = list(g.choice((0, 2, 3, 1), (0, 3, 1, 2)))
    return mark(g, g.node("Transpose", x, perm=perm), perm.index(axis))


def reshape(g, x):
    """Merge axes, split one, or change the rank; the first axis mostly keeps its place."""
    shape, axis = g.shape(x), axis_of(g, x)
    rank = len(shape)
    kind = g.rng.integers(5)
    if kind == 0 and rank > 1:
        return mark(g, g.node("Flatten", x, axis=g.choice(1, 1, rank - 1)), 1)
    if kind == 1 and rank > 2:
        return mark(g, g.node("Reshape", x, g.integers(0, 0, -1)), min(axis, 2))
    if kind == 2 and rank > 1:
        return mark(g, g.node("Reshape", x, g.integers(-1, shape[-1])), 1)
    if kind == 3 and 1 < rank < 5 and shape[axis] % 2 == 0 and axis > 0:
        sizes = [0, *shape[1:axis], 2, -1, *shape[axis + 1 :]]
        return mark(g, g.node("Reshape", x, g.integers(*sizes)), axis)
    if rank == 2:
        return mark(g, g.node("Reshape", x, g.integers(0, -1, 1, 1)), 1)
    return mark(g, g.node("Reshape", x, g.integers(0, -1)), 1) if rank else None


def unsqueeze(g, x):
    rank, axis = len(g.shape(x)), axis_of(g, x)
    new = int(g.rng.integers(rank + 1))
    return (
        mark(g, g.node("Unsqueeze", x, g.integers(either(g, new, rank + 1))), axis + (new <= axis))
        if rank < 5
        else None
    )


def squeeze(g, x):
    """Drop an axis of size 1, made by a reduction if there is none."""
    shape, axis = g.shape(x), axis_of(g, x)
    ones = [i for i, n in enumerate(shape) if n == 1 and i > 0]
    if not ones and len(shape) > 2:
        x = g.node("GlobalAveragePool", x)
        ones = [2]
    if not ones or x is None:
        return None
    if len(ones) == len(g.shape(x)) - 1 > 0 and g.shape(x)[0] > 1 and g.chance(0.3):
        return mark(g, g.node("Squeeze", x), 0)  # all that are of size 1
    gone = int(g.choice(*ones))
    axes = g.integers(either(g, gone, len(g.shape(x))))
    return mark(g, g.node("Squeeze", x, axes), axis - (gone < axis))


def unary(*operators):
    """Return a piece of one operator of one input, which keeps its shape."""

    def piece(g, x):
        return mark(g, g.node(g.choice(*operators), x), axis_of(g, x))

    return piece


def cast(g, x):
    """To float32, which does nothing, or to float64 and back, maybe with a product between."""
    axis = axis_of(g, x)
    if g.chance(0.3):
        return mark(g, g.node("Cast", x, to=TensorProto.FLOAT), axis)
    wide = mark(g, g.node("Cast", x, to=TensorProto.DOUBLE), axis)
    g.wide.add(wide)
    if g.chance(0.5):
        wide = g.node("Mul", wide, g.constant(g.rng.normal(size=operand_shape(g, wide))))
        g.wide.add(wide)
    return mark(g, g.node("Cast", wide, to=TensorProto.FLOAT), axis)


def pool(g, x):
    shape = g.shape(x)
    if not 3 <= len(shape) <= 5:
        return None
    kernel = [int(min(g.rng.integers(1, 4), n)) for n in shape[2:]]
    window = {"kernel_shape": kernel, "strides": [g.choice(1, 2)] * len(kernel)}
    kind = g.rng.integers(4)
    if kind == 0:
        window["pads"] = [int(g.rng.integers(0, k)) for k in kernel * 2]
    elif kind == 1:
        window |= {"auto_pad": "SAME_UPPER", "strides": [1] * len(kernel)}
    if g.chance(0.4):
        return mark(g, g.node("MaxPool", x, **window), 1)
    include = int(g.rng.integers(2))
    return mark(g, g.node("AveragePool", x, count_include_pad=include, **window), 1)


def reduce(g, x):
    shape, axis = g.shape(x), axis_of(g, x)
    if len(shape) > 2 and g.chance(0.4):
        return mark(g, g.node(g.choice("GlobalAveragePool", "GlobalMaxPool"), x), 1)
    if len(shape) < 2:
        return None
    others = [i for i in range(1, len(shape)) if i != axis] or [len(shape) - 1]
    axes = others if g.chance(0.4) else [int(g.rng.integers(len(shape)))]
    keepdims = int(g.rng.integers(2))
    signed = [either(g, a, len(shape)) for a in axes]
    y = g.reduce(g.choice("ReduceMean", "ReduceSum", "ReduceMax"), x, *signed, keepdims=keepdims)
    return mark(g, y, axis if keepdims else max(axis - sum(a < axis for a in axes), 0))


def resize(g, x):
    shape = g.shape(x)
    if not 3 <= len(shape) <= 4:
        return None
    factors = g.constant(np.float32([1, 1, *g.rng.integers(1, 3, len(shape) - 2)]))
    mode, transformation = g.choice(
        ("nearest", "asymmetric"), ("linear", "half_pixel"), ("linear", "asymmetric")
    )
    options = {"nearest_mode": "floor"} if mode == "nearest" else {}
    y = g.node("Resize", x, "", factors, mode=mode, coordinate_transformation_mode=transformation, **options)  # fmt: skip  # noqa: E501
    return mark(g, y, 1)


def cut(g, x):
    shape, axis = g.shape(x), axis_of(g, x)
    if not shape:
        return None
    where = axis if g.chance(0.4) else int(g.rng.integers(len(shape)))
    start, step = int(g.rng.integers(0, shape[where] // 2 + 1)), g.choice(1, 1, 2)
    bounds = (-1, -(2**31), -1) if g.chance(0.15) else (start, g.choice(2**31 - 1, -1), step)
    start, end, step = bounds
    signed = either(g, where, len(shape))
    y = g.node("Slice", x, *(g.integers(n) for n in (start, end, signed, step)))
    return mark(g, y, axis)


def gather(g, x):
    """Take some indices along an axis, in any order."""
    shape, axis = g.shape(x), axis_of(g, x)
    if not shape:
        return None
    where = axis if g.chance(0.5) else int(g.rng.integers(len(shape)))
    if g.chance(0.2) and len(shape) > 1:
        one = g.constant(np.int64(g.rng.integers(shape[where])))
        y = g.node("Gather", x, one, axis=either(g, where, len(shape)))
        return mark(g, y, axis - (where < axis))
    indices = g.integers(*g.rng.integers(-shape[where], shape[where], g.choice(1, 2, 4)))
    return mark(g, g.node("Gather", x, indices, axis=either(g, where, len(shape))), axis)


def pad(g, x):
    shape, axis = g.shape(x), axis_of(g, x)
    rank = len(shape)
    if rank == 0:
        return None
    mode = g.choice("constant", "constant", "edge", "reflect" if min(shape) > 2 else "edge")
    fill = [g.constant(np.float32(g.choice(0.0, 1.0, -2.0)))] if g.chance(0.5) else []
    fill, where = fill if mode == "constant" else [], g.choice(axis, *range(rank))
    if fill and g.opset >= 18 and g.chance(0.5):
        return mark(g, g.node("Pad", x, g.integers(1, 0), *fill, g.integers(where)), axis)
    pads = np.zeros((2, rank), np.int64)
    pads[:, where : where + g.choice(1, 2)] = g.rng.integers(0, 2, (2, 1))
    return mark(g, g.node("Pad", x, g.integers(*pads.ravel()), *fill, mode=mode), axis)


def spread(g, x):
    """Repeat a tensor along an axis of size 1, or all of it."""
    shape, axis = list(g.shape(x)), axis_of(g, x)
    ones = [i for i, n in enumerate(shape) if n == 1]
    if ones and g.chance(0.6):
        shape[g.choice(*ones)] = 3
        return mark(g, g.node("Expand", x, g.integers(*shape)), axis)
    where = int(g.rng.integers(len(shape))) if shape else None
    times = [2 if i == where else 1 for i in range(len(shape))]
    return mark(g, g.node("Tile", x, g.integers(*times)), axis) if shape else None


def blocks(g, x):
    shape = g.shape(x)
    if len(shape) != 4:
        return None
    if g.chance(0.5):
        x = mark(g, g.node("Conv", x, weight(g, 8, shape[1], 1, 1)), 1)
        x = affine(g, x) or x if g.chance(0.5) else x
    shape = g.shape(x)
    if len(shape) != 4:
        return None
    if shape[1] % 4 == 0:
        y = g.node("DepthToSpace", x, blocksize=2, mode=g.choice("DCR", "CRD"))
    elif shape[2] % 2 == shape[3] % 2 == 0:
        y = g.node("SpaceToDepth", x, blocksize=2)
    else:
        if min(shape[2:]) < 2:
            return None
        shrunk = g.node("Slice", x, g.integers(0, 0), g.integers(2, 2), g.integers(2, 3))
        y = g.node("SpaceToDepth", shrunk, blocksize=2)
    return mark(g, y, 1)


def activation(g, x):
    axis, shape = axis_of(g, x), g.shape(x)
    kind = g.rng.integers(12)
    if kind < 2:
        low, high = g.choice((0.0, 6.0), (-1.0, 0.5))
        y = g.node("Clip", x, g.constant(np.float32(low)), g.constant(np.float32(high)))
    elif kind == 2:
        y = g.node("Softmax", x, axis=-1) if shape else None
    elif kind == 3:
        per_channel = shape and g.chance(0.6)
        slope = (shape[axis], *[1] * (len(shape) - 1 - axis)) if per_channel else (1,)
        y = g.node("PRelu", x, weight(g, *slope)) if shape else None
    elif kind == 4:
        y = g.node("LeakyRelu", x, alpha=g.choice(0.1, 0.3, -0.5, 2.0))
    else:
        y = g.node(g.choice("Relu", "Relu", "Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Elu"), x)
    return mark(g, y, axis)


def conditional(g, x):
    """An If whose branches read the tensor from outside."""
    rank = len(g.shape(x))
    if rank == 0:
        return None
    total = g.reduce("ReduceSum", x, *range(rank), keepdims=0)
    above = g.node("Greater", total, g.constant(np.float32(0)))

    def branch(operator, name):
        result = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
        return helper.make_graph([helper.make_node(operator, [x], [name])], name, [], result)

    name = f"{g.count}"
    both = {"then_branch": branch("Neg", f"t{name}"), "else_branch": branch("Relu", f"e{name}")}
    return mark(g, g.node("If", above, **both), axis_of(g, x))


PASSING = (
    *[transpose] * 2,
    *[reshape] * 3,
    *(unsqueeze, squeeze),
    unary("Identity", "Dropout"),
    *[pool] * 2,
    *[reduce] * 2,
    *[spread] * 2,
    *[blocks] * 3,
    *(cast, resize, cut, pad, gather),
)
STOPPING = (*[activation] * 12, conditional)
