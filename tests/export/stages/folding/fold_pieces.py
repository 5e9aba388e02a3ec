"""Pieces of random graphs for the fold: affine operators, and linear ones with constant weights.

Each piece appends a few nodes behind a tensor `x` of a draft and returns the result, or None where
the tensor does not fit. `g.axis` holds which axis of a tensor its channels are at.
"""

import numpy as np

AFFINE = ("BatchNormalization", "Mul", "Add", "Sub", "Div")


def axis_of(g, x):
    """Return the axis of the channels: what a linear operator made, or the second or last."""
    rank = len(g.shape(x))
    if x not in g.axis:
        g.axis[x] = 1 if rank > 1 and g.chance(0.7) else max(rank - 1, 0)
    return min(g.axis[x], max(rank - 1, 0))


def mark(g, y, axis):
    """Note where the channels of a result are; return it."""
    if y is not None:
        g.axis[y] = axis
    return y


def weight(g, *shape):
    """Return a constant: a new one, or one that other nodes read."""
    same = [name for name, array in g.constants.items() if _is_like(array, shape)]
    if same and g.chance(0.25):
        return g.choice(*same)
    return g.constant(np.float32(g.rng.normal(size=shape) / max(1.0, np.prod(shape[1:])) ** 0.4))


def _is_like(array, shape):
    return array.dtype == np.float32 and array.shape == tuple(shape)


def scales(g, *shape):
    """Return factors: of any sign, positive only, or with zeros and ones among them."""
    same = [n for n, a in g.constants.items() if _is_like(a, shape) and np.abs(a).min() > 0.05]
    if same and g.chance(0.15):
        return g.choice(*same)
    factors = g.rng.uniform(0.3, 2.0, shape)
    kind = g.rng.integers(8)
    if kind < 3:
        factors = factors * g.rng.choice([-1, 1], shape)
    elif kind == 3:
        factors = g.rng.choice([0.0, 1.0, -1.0, 0.5], shape)
    elif kind == 4:
        factors = np.full(shape, g.choice(1.0, 1.0, 0.0, -1.0, 2.0))
    elif kind == 5:
        factors = factors * 10.0 ** g.rng.integers(-2, 2, shape)
    return g.constant(np.float32(factors))


def shifts(g, *shape):
    """Return summands, some of them zero, or all."""
    array = g.rng.normal(size=shape) * g.choice(1.0, 1.0, 5.0)
    kind = g.rng.integers(6)
    if kind == 0:
        array = np.zeros(shape)
    elif kind == 1:
        array = array * g.rng.integers(0, 2, shape)
    return g.constant(np.float32(array))


def operand_shape(g, x):
    """Return the shape of a constant for arithmetic: one number per channel, mostly."""
    shape = g.shape(x)
    rank, axis = len(shape), axis_of(g, x)
    per_channel = (shape[axis], *[1] * (rank - 1 - axis)) if rank else ()
    if g.chance(0.65):
        return per_channel
    ones = (1,) * rank
    return g.choice(
        (),
        (1,),
        ones,
        (*[1] * axis, *per_channel),
        shape[-1:],
        shape,
        tuple(n if g.chance(0.4) else 1 for n in shape),
        (shape[-2], 1) if rank > 1 else (),
        (shape[0], *[1] * (rank - 1)) if rank else (),
        (1, *shape) if rank < 3 else ones,
    )


def affine(g, x, kind=None):
    """Append one affine operator."""
    kind = kind or g.choice(*AFFINE)
    shape, axis = g.shape(x), axis_of(g, x)
    if kind == "BatchNormalization":
        if len(shape) < 2:
            return None
        n = shape[1]
        variance = g.constant(np.float32(g.rng.uniform(0.1, 2.0, n)))
        parameters = (scales(g, n), shifts(g, n), shifts(g, n), variance)
        y = g.node(kind, x, *parameters, epsilon=g.choice(1e-3, 1e-5))
        return mark(g, y, axis)
    wanted = operand_shape(g, x)
    if kind == "Div":
        divisor = g.rng.uniform(0.5, 3.0, wanted) * g.rng.choice([-1, 1, 1], wanted)
        return mark(g, g.node(kind, x, g.constant(np.float32(divisor))), axis)
    operand = scales(g, *wanted) if kind == "Mul" else shifts(g, *wanted)
    pair = (x, operand) if g.chance(0.7) else (operand, x)
    grown = len(wanted) > len(shape)
    return mark(g, g.node(kind, *pair), axis + grown)


def affines(g, x):
    """Append a chain of affine operators."""
    for _ in range(g.choice(1, 1, 2, 3)):
        x = affine(g, x) or x
    return x


def conv(g, x):
    shape = g.shape(x)
    if not 3 <= len(shape) <= 5:
        return None
    channels, rank = shape[1], len(shape) - 2
    group = g.choice(1, 1, channels, 2 if channels % 2 == 0 else 1)
    outputs = group * g.choice(1, 2) if group > 1 else g.choice(1, 3, 4, channels, channels)
    kernel = [int(min(g.rng.integers(1, 4), n)) for n in shape[2:]]
    window = {"strides": [g.choice(1, 1, 2)] * rank, "group": group}
    kind = g.rng.integers(6)
    if kind == 0:
        window["pads"] = [int(n) for n in g.rng.integers(0, 2, 2 * rank)]
    elif kind in (1, 2):  # the size is kept, so that branches can be joined
        window |= {"auto_pad": g.choice("SAME_UPPER", "SAME_LOWER"), "strides": [1] * rank}
    elif kind == 3:
        window |= {"dilations": [2] * rank, "pads": [1] * 2 * rank}
    bias = [weight(g, outputs)] if g.chance(0.5) else []
    return mark(g, g.node("Conv", x, weight(g, outputs, channels // group, *kernel), *bias, **window), 1)  # fmt: skip  # noqa: E501


def conv_transpose(g, x):
    shape = g.shape(x)
    if not 3 <= len(shape) <= 5:
        return None
    channels, rank = shape[1], len(shape) - 2
    group = g.choice(1, 1, channels, 2 if channels % 2 == 0 else 1)
    outputs = g.choice(1, 2)
    stride = g.choice(1, 2)
    kernel = [int(n) for n in g.rng.integers(1, 4, rank)]
    window = {"strides": [stride] * rank, "group": group}
    if stride == 2 and g.chance(0.4):
        window["output_padding"] = [1] * rank
    if g.chance(0.3):
        window["pads"] = [int(g.rng.integers(0, k)) for k in kernel * 2]
    bias = [weight(g, outputs * group)] if g.chance(0.5) else []
    y = g.node("ConvTranspose", x, weight(g, channels, outputs, *kernel), *bias, **window)
    return mark(g, y, 1)


def gemm(g, x):
    shape = g.shape(x)
    if len(shape) > 2:
        x = g.node("Flatten", x, axis=1) if g.chance(0.7) else None
    if x is None or len(shape) < 2:
        return None
    x = affine(g, mark(g, x, 1)) or x if g.chance(0.3) else x
    shape = g.shape(x)
    if len(shape) > 2:
        return None
    flipped, units = int(g.chance(0.2)), g.choice(1, 3, 4)
    rows, columns = shape[::-1] if flipped else shape
    transposed = int(g.rng.integers(2))
    kernel = weight(g, units, columns) if transposed else weight(g, columns, units)
    bias_shape = g.choice(None, (units,), (1, units), (), (1,), (rows, 1), (rows, units))
    bias = [] if bias_shape is None else [weight(g, *bias_shape)]
    by_row = bias_shape and bias_shape[0] == rows > 1
    factors = {"alpha": g.choice(1.0, 0.5, -2.0)}
    factors["beta"] = g.choice(1.0, 3.0, -1.0 if by_row else 0.0, -1.0)
    y = g.node("Gemm", x, kernel, *bias, transA=flipped, transB=transposed, **factors)
    return mark(g, y, 1)


def matmul(g, x):
    shape = g.shape(x)
    if not 2 <= len(shape) <= 5:
        return None
    units, rank = g.choice(1, 3, 4, shape[-1]), len(shape)
    stack = list(shape[:-2]) if g.chance(0.2) else []
    right = g.chance(0.7)
    if right:
        y = g.node("MatMul", x, weight(g, *stack, shape[-1], units))
    else:
        y = g.node("MatMul", weight(g, *stack, units, shape[-2]), x)
    axis = rank - 1 if right else rank - 2
    if y and g.chance(0.5):
        summand = weight(g, units, *[1] * (rank - 1 - axis))
        y = g.node("Add", *((y, summand) if g.chance(0.7) else (summand, y)))
    return mark(g, y, axis)


def einsum(g, x):
    shape = g.shape(x)
    rank = len(shape)
    if not 2 <= rank <= 4:
        return None
    labels, units = "abcd"[:rank], g.choice(1, 3)
    summed = g.choice(*labels[1:])
    others = [label for label in labels if label != summed]
    batched = [label for label in others if g.chance(0.25)]
    sizes = dict(zip(labels, shape, strict=True)) | {"z": units}
    kernel = [str(label) for label in g.rng.permutation([*batched, summed, "z"])]
    result = [str(label) for label in g.rng.permutation([*others, "z"])]
    constant = weight(g, *(sizes[label] for label in kernel))
    first = g.chance(0.3)
    operands = ["".join(kernel), labels] if first else [labels, "".join(kernel)]
    equation = f"{','.join(operands)}->{''.join(result)}"
    y = g.node("Einsum", *((constant, x) if first else (x, constant)), equation=equation)
    return mark(g, y, result.index("z"))


def table(g, x):
    """Look up indices, an input of the graph, in a table: it starts anew."""
    if len(g.inputs) > 3:
        return None
    rows, width = 5, g.choice(3, 4)
    indices = g.indices(rows, *g.choice((g.batch,), (g.batch, 3), (g.batch, 2, 3)))
    y = g.node("Gather", weight(g, rows, width), indices, axis=0)
    return mark(g, y, len(g.shape(y)) - 1)


def recurrent(kind):
    """Return the piece of a recurrent operator."""
    return lambda g, x: _recurrent(g, x, kind)


def _recurrent(g, x, kind):
    shape = g.shape(x)
    if len(shape) == 2:
        x = g.node("Unsqueeze", x, g.integers(g.choice(0, 1)))
    elif len(shape) == 4:
        x = g.node("Reshape", x, g.integers(0, 0, -1))
    if x is None or not 2 <= len(shape) <= 4:
        return None
    x = affine(g, mark(g, x, 2)) or x if g.chance(0.4) else x
    shape, hidden = g.shape(x), g.choice(1, 2)
    if len(shape) > 3:
        return None
    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * hidden
    count = g.choice(1, 1, 2)
    bias = [weight(g, count, 2 * rows)] if g.chance(0.6) else []
    options = {"linear_before_reset": int(g.rng.integers(2))} if kind == "GRU" else {}
    options["direction"] = "bidirectional" if count == 2 else g.choice("forward", "reverse")
    results = g.nodes_of(
        kind, x, weight(g, count, rows, shape[2]), weight(g, count, rows, hidden), *bias,
        results=g.choice(1, 2), hidden_size=hidden, **options,
    )  # fmt: skip
    return results and mark(g, results[-1], len(g.shape(results[-1])) - 1)


LINEAR = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "Einsum": einsum,
    "Gather": table,
    **{kind: recurrent(kind) for kind in ("LSTM", "GRU", "RNN")},
}
