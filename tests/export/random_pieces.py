"""Pieces of random graphs: each appends some operators behind a tensor of a graph under way.

They return the name of what they made, or None where the tensor does not fit.
"""

import numpy as np
from onnx import TensorProto


def _activation(g, x):
    scalar = lambda number: g.constant(np.float32(number))  # noqa: E731
    kind = g.rng.integers(11)
    if kind < 3:
        low, high = [(0, 6), sorted(g.rng.normal(size=2)), (-0.2, 0.5)][kind]
        return g.node("Clip", x, scalar(low), scalar(high))
    if kind == 3:
        return g.node("HardSigmoid", x, alpha=g.choice(1 / 6, 0.2), beta=0.5)
    if kind == 4:
        return g.node("Mul", x, g.node(g.choice("Sigmoid", "HardSigmoid"), x))
    if kind == 5:  # Gelu as TensorFlow writes it
        erf = g.node("Erf", g.node("Mul", x, scalar(2**-0.5)))
        return g.node("Mul", g.node("Mul", x, scalar(0.5)), g.node("Add", erf, scalar(1)))
    if kind == 6:  # hard swish, its slope a power of two: HardSigmoid rounds it to float32
        four = g.node("Clip", g.node("Add", x, scalar(2)), scalar(0), scalar(4))
        return g.node("Mul", g.node("Mul", x, four), scalar(1 / 4))
    return g.node(g.choice("Relu", "Relu", "Sigmoid", "Tanh", "Elu", "LeakyRelu", "Abs"), x)


def _window(g, x, *, pads):
    """Return the attributes of a window that fits, and its kernel."""
    shape = g.shape(x)[2:]
    kernel = [int(min(g.rng.integers(1, 4), n)) for n in shape]
    strides = [int(n) for n in g.rng.integers(1, 3, len(shape))]
    attributes = {"kernel_shape": kernel, "strides": strides}
    if g.chance(0.7):
        attributes["pads"] = [int(g.rng.integers(0, pads(k))) for k in kernel * 2]
    elif g.chance(0.5):
        attributes["auto_pad"] = g.choice("VALID", "SAME_UPPER", "SAME_LOWER")
        if attributes["auto_pad"] != "VALID":  # see runtime_traps
            attributes["strides"] = [min(k, s) for k, s in zip(kernel, strides, strict=True)]
    return attributes, kernel


def _conv(g, x):
    channels = g.shape(x)[1]
    attributes, kernel = _window(g, x, pads=lambda k: 3)
    group, each = g.choice((1, g.choice(1, 3, 8)), (channels, g.choice(1, 2)))
    weight = g.normal(group * each, channels // group, *kernel)
    bias = [g.normal(group * each)] if g.chance(0.5) else []
    return g.node("Conv", x, weight, *bias, group=group, **attributes)


def _conv_transpose(g, x):
    channels, shape = g.shape(x)[1], g.shape(x)[2:]
    kernel = [int(n) for n in g.rng.integers(1, 4, len(shape))]
    strides = [int(n) for n in g.rng.integers(1, 3, len(shape))]
    y = g.node(
        "ConvTranspose", x, g.normal(channels, 3, *kernel), kernel_shape=kernel, strides=strides
    )
    if y is None or g.chance(0.5) or min(g.shape(y)[2:]) < 3:
        return y
    ends = [int(g.choice(-1, n - 1, 2**31 - 1)) for n in g.shape(y)[2:]]
    axes = list(range(2, 2 + len(shape)))
    return g.node("Slice", y, g.integers(*([0] * len(axes))), g.integers(*ends), g.integers(*axes))


def _pool(g, x):
    attributes, _ = _window(g, x, pads=lambda k: k)
    if g.chance(0.6):
        return g.node("MaxPool", x, **attributes)
    return g.node("AveragePool", x, count_include_pad=int(g.rng.integers(2)), **attributes)


def _pad(g, x):
    rank = len(g.shape(x))
    pads = np.zeros((2, rank), np.int64)
    pads[:, min(2, rank - 1) :] = g.rng.integers(0, 3, pads[:, min(2, rank - 1) :].shape)
    mode = g.choice("constant", "constant", "constant", "edge")
    fill = [g.constant(np.float32(g.choice(0, 0, 1)))] if g.chance(0.5) else []
    return g.node("Pad", x, g.integers(*pads.ravel()), *fill, mode=mode)


def _pad_and_pool(g, x):
    """A Pad, channels last or first, in front of a window."""
    if g.chance(0.5):
        x = g.node("Relu", x)
    rank = len(g.shape(x))
    if g.chance(0.3):
        x = g.node("Transpose", x, perm=[0, *range(2, rank), 1])
        pads = np.zeros((2, rank), np.int64)
        pads[:, 1:-1] = g.rng.integers(0, 3, (2, rank - 2))
        padded = g.node("Pad", x, g.integers(*pads.ravel()))
        padded = g.node("Transpose", padded, perm=[0, rank - 1, *range(1, rank - 1)])
    else:
        padded = _pad(g, x)
    return padded and g.choice(_pool, _pool, _conv)(g, padded)


def _binary(g, x):
    shape = g.shape(x)
    same = [name for name, array in g.values.items() if array.shape == shape]
    per_channel = [n if i == 1 else 1 for i, n in enumerate(shape)]
    some = [n if g.chance(0.5) else 1 for n in shape]
    other = g.choice(
        g.choice(*same), g.normal(), g.normal(*per_channel), g.normal(*some), g.normal(shape[-1])
    )
    if other.startswith("v") and g.values[other].dtype != np.float64:
        return None
    pair = (x, other) if g.chance(0.7) else (other, x)
    return g.node(g.choice("Add", "Add", "Mul", "Sub", "Max", "Min"), *pair)


def _divide(g, x):
    return g.node("Div", x, g.normal(g.shape(x)[-1], least=0.5))


def _transpose(g, x):
    rank = len(g.shape(x))
    perm = g.choice((0, 2, 3, 1), (0, 3, 1, 2), tuple(range(rank)), tuple(g.rng.permutation(rank)))
    perm = perm if len(perm) == rank else tuple(g.rng.permutation(rank))
    return g.node("Transpose", x, perm=[int(i) for i in perm])


def _reshape(g, x):
    shape = g.shape(x)
    if len(shape) < 5 and g.chance(0.3):
        return g.node("Unsqueeze", x, g.integers(g.rng.integers(len(shape) + 1)))
    ones = [i for i, n in enumerate(shape) if n == 1 and i > 0]
    if ones and g.chance(0.4):
        return g.node("Squeeze", x, g.integers(g.choice(*ones)))
    if g.chance(0.3):
        return g.node("Flatten", x, axis=g.choice(1, 1, -1))
    target = g.choice([0, -1], [-1, shape[-1]], [*shape[:-1], -1], [shape[0], -1, 1, shape[-1]])
    return g.node("Reshape", x, g.integers(*target))


def _computed_reshape(g, x):
    """Reshape to sizes that are read off x, cast, sliced, multiplied and joined, as in TF."""
    shape = g.shape(x)
    if len(shape) < 3:
        return None
    sizes = g.node("Cast", g.node("Shape", x), to=TensorProto.INT32)
    first = g.node("Slice", sizes, g.integers(0), g.integers(1), g.integers(0))
    if g.chance(0.5):
        rest = g.node(
            "ReduceProd",
            g.node("Slice", sizes, g.integers(1), g.integers(2**31 - 1), g.integers(0)),
            **({"axes": [0]} if g.opset < 18 else {}),
            keepdims=1,
        )
        target = g.node("Concat", first, rest, axis=0)
    else:
        scalar = g.node("Squeeze", g.node("Gather", sizes, g.integers(1)), g.integers(0))
        joined = g.node("Mul", scalar, g.constant(np.int32(shape[2])))
        middle = g.node("Unsqueeze", joined, g.integers(0))
        rest = [g.constant(np.array([n], np.int32)) for n in shape[3:]]
        target = g.node("Concat", first, middle, *rest, axis=0)
    return g.node("Reshape", x, g.node("Cast", target, to=TensorProto.INT64))


def _repeat(g, x):
    """UpSampling as TensorFlow writes it."""
    shape, axis, times = list(g.shape(x)), 1, g.choice(2, 3)
    if len(shape) > 4:
        return None
    axis = int(g.rng.integers(len(shape)))
    repeats = [1] * (len(shape) + 1)
    repeats[axis + 1] = times
    spread = g.node("Unsqueeze", x, g.integers(axis + 1))
    shape[axis] *= times
    return g.node("Reshape", g.node("Tile", spread, g.integers(*repeats)), g.integers(*shape))


def _one_dimensional(g, x):
    """A Conv1D or a 1-D pool in two dimensions, with something between, on channels-last data."""
    if len(g.shape(x)) != 3:
        return None
    y = g.node("Unsqueeze", x, g.integers(g.choice(1, -3)))
    y = g.node("Transpose", y, perm=[0, 3, 1, 2])
    for _ in range(g.choice(1, 2)):
        y = y and g.choice(_flat_window, _flat_window, _flat_bias, _activation)(g, y)
    y = g.node("Transpose", y, perm=[0, 2, 3, 1])
    return g.node("Squeeze", y, g.integers(1)) if g.chance(0.8) else y


def _flat_window(g, x):
    kernel = [1, int(min(g.rng.integers(1, 4), g.shape(x)[3]))]
    pads = [0, int(g.rng.integers(kernel[1])), 0, int(g.rng.integers(kernel[1]))]
    attributes = {"kernel_shape": kernel, "strides": [1, g.choice(1, 2)], "pads": pads}
    channels = g.shape(x)[1]
    if g.chance(0.4):
        return g.node("Conv", x, g.normal(4, channels, *kernel), **attributes)
    if g.chance(0.5):
        return g.node("MaxPool", x, **attributes)
    return g.node(
        "ConvTranspose", x, g.normal(channels, 2, *kernel), **{**attributes, "pads": [0] * 4}
    )


def _flat_bias(g, x):
    return g.node("Add", x, g.normal(g.shape(x)[1], 1, 1))


def _resize(g, x):
    scales = np.array([1, 1, *g.rng.integers(1, 3, len(g.shape(x)) - 2)], np.float32)
    mode, transformation, nearest = g.choice(
        ("nearest", "asymmetric", "floor"),
        ("nearest", "half_pixel", "round_prefer_ceil"),
        ("linear", "half_pixel", "floor"),
    )
    return g.node(
        "Resize",
        x,
        "",
        g.constant(scales),
        mode=mode,
        coordinate_transformation_mode=transformation,
        nearest_mode=nearest,
    )


def _concat(g, x):
    shape = g.shape(x)
    axis = int(g.rng.integers(len(shape)))
    fitting = [
        name
        for name, array in g.values.items()
        if array.ndim == len(shape)
        and array.dtype == np.float64
        and all(a == b or i == axis for i, (a, b) in enumerate(zip(array.shape, shape)))  # noqa: B905
    ]
    others = [g.choice(*fitting) for _ in range(g.choice(0, 1, 2))]
    return g.node("Concat", x, *others, axis=axis)


def _slice(g, x):
    shape = g.shape(x)
    axis = int(g.rng.integers(len(shape)))
    start, step = int(g.rng.integers(0, shape[axis] // 2 + 1)), g.choice(1, 1, 2)
    end = g.choice(shape[axis], -1, 2**31 - 1)
    return g.node("Slice", x, *(g.integers(n) for n in (start, end, axis, step)))


def _reduce(g, x):
    rank, keepdims = len(g.shape(x)), int(g.rng.integers(2))
    axes = [2, 3] if rank == 4 and g.chance(0.6) else [int(g.rng.integers(rank))]
    op_type = g.choice("ReduceMean", "ReduceMean", "ReduceMax", "ReduceSum")
    if g.opset >= 18 or op_type == "ReduceSum":
        return g.node(op_type, x, g.integers(*axes), keepdims=keepdims)
    return g.node(op_type, x, axes=axes, keepdims=keepdims)


def _matmul(g, x):
    shape = g.shape(x)
    if len(shape) < 2:
        return None
    units = g.choice(1, 3, 8)
    if len(shape) > 2 and g.chance(0.5):  # as TensorFlow's tensordot
        flat = g.node("Reshape", x, g.integers(-1, shape[-1]))
        y = g.node("MatMul", flat, g.normal(shape[-1], units))
        y = g.node("Reshape", y, g.integers(*shape[:-1], units))
    else:
        y = g.node("MatMul", x, g.normal(shape[-1], units))
    return g.node("Add", y, g.normal(units)) if y and g.chance(0.6) else y


def _gemm(g, x):
    if len(g.shape(x)) != 2:
        return None
    rows, columns = g.shape(x)
    units, transposed = g.choice(1, 3, 5), int(g.rng.integers(2))
    weight = g.normal(units, columns) if transposed else g.normal(columns, units)
    bias = g.choice([], [g.normal(units)], [g.normal(1, units)], [g.normal()], [g.normal(rows, 1)])
    return g.node("Gemm", x, weight, *bias, transB=transposed, alpha=0.5, beta=g.choice(1.0, 2.0))


def _batch_norm(g, x):
    if len(g.shape(x)) < 2:
        return None
    n = g.shape(x)[1]
    statistics = [g.normal(n), g.normal(n), g.normal(n), g.normal(n, least=0.2)]
    return g.node("BatchNormalization", x, *statistics, epsilon=1e-3)


def _layer_norm(g, x):
    def mean(v):
        if g.opset >= 18:
            return v and g.node("ReduceMean", v, g.integers(-1), keepdims=1)
        return v and g.node("ReduceMean", v, axes=[-1], keepdims=1)

    centred = g.node("Sub", x, mean(x))
    variance = mean(g.node("Mul", centred, centred))
    deviation = g.node("Sqrt", g.node("Add", variance, g.constant(np.float32(0.1))))
    y = g.node("Div", centred, deviation)
    return g.node("Add", g.node("Mul", y, g.normal(g.shape(x)[-1])), g.normal(g.shape(x)[-1]))


def _nothing(g, x):
    rank = len(g.shape(x))
    return g.choice(
        lambda: g.node("Identity", x),
        lambda: g.node("Pad", x, g.integers(*[0] * 2 * rank)),
        lambda: g.node("Concat", x, axis=0),
        lambda: g.node("Tile", x, g.integers(*[1] * rank)),
        lambda: g.node("Expand", x, g.node("Shape", x)),
        lambda: g.node("Dropout", x),
        lambda: g.node("Reshape", x, g.node("Shape", x)),
        lambda: g.node("Slice", x, g.integers(0), g.integers(2**31 - 1), g.integers(0)),
    )()


ANYWHERE = (
    *[_activation] * 3,
    *[_binary] * 2,
    *[_reshape] * 3,
    *[_computed_reshape] * 2,
    *(_divide, _transpose, _repeat, _one_dimensional, _concat, _slice, _reduce),
    *(_matmul, _gemm, _batch_norm, _layer_norm, _nothing),
)
SPATIAL = (
    *[_conv] * 3,
    *[_pad_and_pool] * 3,
    *(_conv_transpose, _pool, _pad, _resize),
    lambda g, x: g.node("GlobalAveragePool", x),
)
