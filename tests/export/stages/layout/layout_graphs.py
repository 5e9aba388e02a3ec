"""Random graphs of every operator that a layout rule knows, with Transposes in between."""

import math

import hypothesis
import numpy as np
from hypothesis import strategies as st

from tests.export.stages.layout.layout_builder import Builder, fixed, numbers

BATCH = 2  # what the dynamic dimension "N" is when a graph runs
# Not Softsign: onnx.reference fails on a scalar.
UNARY = ("Relu", "HardSigmoid", "Neg", "Abs", "LeakyRelu", "Selu", "Tanh")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")
REDUCE = ("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceL2")


def transpose(b):
    x = b.pick(lambda shape: len(shape) > 1)
    if x is None:
        return
    rank = len(b.tensors[x])
    to_nchw, to_nhwc = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
    perm = b.draw(
        st.sampled_from([to_nchw, to_nhwc, to_nchw, to_nhwc])
        if b.draw(st.integers(0, 3))
        else st.permutations(range(rank))
    )
    b.add("Transpose", [x], [b.tensors[x][a] for a in perm], f"perm = {numbers(perm)}")


def unary(b):
    x = b.pick()
    b.add(b.draw(st.sampled_from(UNARY)), [x], b.tensors[x])


def with_constant(b):
    x = b.pick()
    shape = b.tensors[x]
    start = b.draw(st.integers(0, len(shape)))
    sizes = [size if fixed(size) and b.draw(st.booleans()) else 1 for size in shape[start:]]
    operands = [x, b.weight(*sizes)]
    if b.draw(st.booleans()):
        operands.reverse()
    b.add(b.draw(st.sampled_from(BINARY)), operands, shape)


def broadcast(a, c):
    rank = max(len(a), len(c))
    a, c = (1,) * (rank - len(a)) + a, (1,) * (rank - len(c)) + c
    if all(x == y or 1 in (x, y) for x, y in zip(a, c, strict=True)):
        return tuple(y if x == 1 else x for x, y in zip(a, c, strict=True))
    return None


def two_tensors(b):
    x = b.pick()
    y = b.pick(lambda shape: broadcast(shape, b.tensors[x]) is not None)
    shape = broadcast(b.tensors[x], b.tensors[y])
    if b.draw(st.integers(0, 4)) == 0:
        condition = b.constant(b.rng.integers(0, 2, [s for s in shape[-1:] if fixed(s)]) > 0)
        b.add("Where", [condition, x, y], shape)
    else:
        b.add(b.draw(st.sampled_from(BINARY)), [x, y], shape)


def clip(b):
    x = b.pick()
    b.add("Clip", [x, b.constant(np.float32(-0.5)), b.constant(np.float32(2))], b.tensors[x])


def reduce(b):
    x = b.pick(len)
    if x is None:
        return
    shape, axes = b.tensors[x], b.axes(b.tensors[x])
    keep = b.draw(st.booleans())
    operator = b.draw(st.sampled_from(REDUCE))
    result = [1 if a in axes else s for a, s in enumerate(shape) if keep or a not in axes]
    signed = [a - len(shape) if b.draw(st.booleans()) else a for a in axes]
    if b.opset >= 18 or operator == "ReduceSum":
        b.add(operator, [x, b.indices(*signed)], result, f"keepdims = {int(keep)}")
    else:
        b.add(operator, [x], result, f"keepdims = {int(keep)}, axes = {numbers(signed)}")


def arg_max(b):
    x = b.pick(len)
    if x is None:
        return
    shape, keep = b.tensors[x], b.draw(st.booleans())
    axis = b.axis(shape)
    result = [1 if a == axis else s for a, s in enumerate(shape) if keep or a != axis]
    b.add_integers("ArgMax", [x], result, f"axis = {axis}, keepdims = {int(keep)}")


def along_axis(b):
    x = b.pick(len)
    if x is None:
        return
    axis = b.axis(b.tensors[x])
    operator = b.draw(st.sampled_from(("Softmax", "LogSoftmax", "CumSum")))
    if operator == "CumSum":
        b.add("CumSum", [x, b.constant(np.array(axis, np.int64))], b.tensors[x])
    else:
        b.add(operator, [x], b.tensors[x], f"axis = {axis}")


def layer_normalization(b):
    x = b.pick(lambda shape: len(shape) > 1 and fixed(shape[-1]))
    if x is not None and b.opset >= 17:
        size = b.tensors[x][-1]
        b.add("LayerNormalization", [x, b.weight(size), b.weight(size)], b.tensors[x], "axis = -1")


def concat(b):
    x = b.pick(lambda shape: any(map(fixed, shape)))
    if x is None:
        return
    shape = b.tensors[x]
    axis = b.axis(shape, fixed)
    y = b.pick(
        lambda other: (
            len(other) == len(shape)
            and fixed(other[axis])
            and all(a == axis or s == o for a, (s, o) in enumerate(zip(shape, other, strict=True)))
        )
    )
    operands, total = [x, y], shape[axis] + b.tensors[y][axis]
    if all(map(fixed, shape)) and b.draw(st.booleans()):
        operands.append(b.weight(*shape))
        total += shape[axis]
    b.add("Concat", operands, [*shape[:axis], total, *shape[axis + 1 :]], f"axis = {axis}")


def split(b):
    x = b.pick(lambda shape: any(fixed(s) and s > 1 for s in shape))
    if x is None:
        return
    shape = list(b.tensors[x])
    axis = b.axis(shape, lambda s: fixed(s) and s > 1)
    size = shape[axis]
    shape[axis] = size // 2
    if size % 2 == 0 and b.opset >= 18:
        b.add("Split", [x], shape, f"axis = {axis}, num_outputs = 2", outputs=2)
    elif size % 2 == 0:
        b.add("Split", [x, b.indices(size // 2, size // 2)], shape, f"axis = {axis}", outputs=2)


def cut_out(b):
    x = b.pick(lambda shape: any(map(fixed, shape)))
    if x is None:
        return
    shape = list(b.tensors[x])
    axis = b.axis(shape, fixed)
    which = b.draw(st.sampled_from(("Slice", "Gather", "Gather1", "TopK")))
    if which == "Slice":
        signed = axis - len(shape) if b.draw(st.booleans()) else axis
        shape[axis] = math.ceil(shape[axis] / 2)
        inputs = [x, b.indices(0), b.indices(1000), b.indices(signed), b.indices(2)]
        b.add("Slice", inputs, shape)
    elif which == "TopK":
        shape[axis] = 1
        _, indices = b.add("TopK", [x, b.indices(1)], shape, f"axis = {axis}", outputs=2)
        b.integers[indices] = b.tensors.pop(indices)
    elif which == "Gather":
        index = b.constant(np.array(shape[axis] - 1, np.int64))
        b.add("Gather", [x, index], shape[:axis] + shape[axis + 1 :], f"axis = {axis}")
    else:
        index = b.indices(0, shape[axis] - 1, 0)
        shape[axis] = 3
        b.add("Gather", [x, index], shape, f"axis = {axis}")


def grow(b):
    x = b.pick(lambda shape: any(map(fixed, shape)))
    if x is None:
        return
    shape = list(b.tensors[x])
    axis = b.axis(shape, fixed)
    which = b.draw(st.sampled_from(("Pad", "Pad18", "Tile", "Expand", "Resize")))
    ones = [1] * len(shape)
    if which == "Pad" or (which == "Pad18" and b.opset >= 18):
        begin, end = [0] * len(shape), [0] * len(shape)
        begin[axis], end[axis] = 1, 2
        shape[axis] += 3
        if which == "Pad":
            b.add("Pad", [x, b.indices(*begin, *end)], shape)
        else:
            b.add("Pad", [x, b.indices(1, 2), '""', b.indices(axis)], shape)
    elif which == "Tile":
        ones[axis] = 2
        shape[axis] *= 2
        b.add("Tile", [x, b.indices(*ones)], shape)
    elif which == "Expand" and shape[axis] == 1:
        ones[axis] = shape[axis] = 3
        b.add("Expand", [x, b.indices(*ones[b.draw(st.integers(0, axis)) :])], shape)
    elif which == "Resize" and len(shape) == 4 and shape[axis] < 6:
        ones[axis] = 2
        shape[axis] *= 2
        scales = b.constant(np.array(ones, np.float32))
        attributes = 'mode = "nearest", coordinate_transformation_mode = "asymmetric"'
        b.add("Resize", [x, '""', scales], shape, attributes + ', nearest_mode = "floor"')


def ones(b):
    if b.draw(st.booleans()):
        x = b.pick(lambda shape: 1 in shape)
        if x is None:
            return
        shape = list(b.tensors[x])
        axis = b.axis(shape, lambda size: size == 1)
        b.add("Squeeze", [x, b.indices(axis - len(shape))], shape[:axis] + shape[axis + 1 :])
    else:
        x = b.pick(lambda shape: len(shape) < 5)
        if x is None:
            return
        shape = list(b.tensors[x])
        axis = b.draw(st.integers(0, len(shape)))
        b.add("Unsqueeze", [x, b.indices(axis)], [*shape[:axis], 1, *shape[axis:]])


def convolution(b):
    x = b.pick(lambda shape: 3 <= len(shape) <= 5 and all(map(fixed, shape[1:])))
    if x is None:
        return
    shape = list(b.tensors[x])
    which = b.draw(st.sampled_from(("Conv", "GlobalAveragePool", "BatchNormalization")))
    if which == "Conv":
        weight = b.weight(2, shape[1], *[1] * (len(shape) - 2))
        b.add("Conv", [x, weight, b.weight(2)], [shape[0], 2, *shape[2:]])
    elif which == "GlobalAveragePool":
        b.add(which, [x], shape[:2] + [1] * (len(shape) - 2))
    else:
        vectors = [b.weight(shape[1]) for _ in range(3)]
        vectors.append(b.constant(b.rng.uniform(0.5, 2, shape[1]).astype(np.float32)))
        b.add(which, [x, *vectors], shape)


def dense(b):
    x = b.pick(lambda shape: len(shape) >= 2 and fixed(shape[-1]))
    if x is None:
        return
    *rest, size = b.tensors[x]
    columns = b.draw(st.sampled_from((2, 12)))
    if len(rest) == 1 and b.draw(st.booleans()):
        if b.draw(st.booleans()):
            b.add("Gemm", [x, b.weight(size, columns), b.weight(columns)], [*rest, columns])
        else:
            b.add("Gemm", [x, b.weight(columns, size)], [*rest, columns], "transB = 1")
    else:
        b.add("MatMul", [x, b.weight(size, columns)], [*rest, columns])


def reshape(b):
    x = b.pick(len)
    if x is None:
        return
    shape = list(b.tensors[x])
    which = b.draw(st.sampled_from(("flatten", "Flatten", "merge", "part", "ones", "same")))
    unknown = [a for a, s in enumerate(shape) if not fixed(s)]
    if which in ("flatten", "Flatten"):
        if unknown not in ([], [0]) or len(shape) < 2:
            return
        flat = [shape[0], math.prod(shape[1:])]
        if which == "Flatten":
            b.add("Flatten", [x], flat)
            return
        target, result = ([0, -1] if b.draw(st.booleans()) else None), flat
    elif which == "merge" and len(shape) > 1:
        axis = b.draw(st.integers(0, len(shape) - 2))
        pair = shape[axis : axis + 2]
        if not all(map(fixed, pair)):
            return
        target, result = None, [*shape[:axis], math.prod(pair), *shape[axis + 2 :]]
    elif which == "part":
        axis = b.axis(shape, lambda s: fixed(s) and s % 2 == 0)
        if axis is None or len(shape) > 4:
            return
        target, result = None, [*shape[:axis], shape[axis] // 2, 2, *shape[axis + 1 :]]
    elif which == "ones":
        left = [s for s in shape if s != 1]
        for _ in range(len(shape) - len(left)):
            left.insert(b.draw(st.integers(0, len(left))), 1)
        target, result = None, left
    else:
        target, result = None, shape
    if target is None and len(unknown) > 1:
        return
    if target is None:
        target = [s if fixed(s) else -1 for s in result]
    b.add("Reshape", [x, b.indices(*target)], result)


def shape_of(b):
    x = b.pick(len)
    if x is not None:
        b.add_integers("Shape", [x], [len(b.tensors[x])])


STEPS = (
    *[transpose] * 10,
    *[unary, with_constant, two_tensors, convolution, reshape] * 3,
    *[clip, reduce, reduce, arg_max, along_axis, layer_normalization, concat, concat, split],
    *[cut_out, cut_out, grow, grow, ones, ones, dense, dense, shape_of],
)


@st.composite
def layout_graphs(draw):
    """Draw (text, opset, weights, input shapes) of a graph with branches and several outputs."""
    b = Builder(draw, draw(st.sampled_from((13, 17, 18))))
    sizes = st.lists(st.sampled_from((1, 2, 3, 4)), min_size=2, max_size=4)
    for i, (first, *rest) in enumerate(draw(st.lists(sizes, min_size=1, max_size=2))):
        b.tensors[f"x{i}"] = ("N" if draw(st.booleans()) else first, *rest)
    inputs = dict(b.tensors)
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=3, max_size=15)):
        step(b)
    outputs = {
        name: shape
        for name, shape in b.tensors.items()
        if name not in inputs and (name not in b.read or draw(st.integers(0, 5)) == 0)
    }
    hypothesis.assume(outputs or b.integers)
    weights = [f"{declared(a)} {name}" for name, a in b.weights.items()]
    taken = ", ".join([*typed(inputs), *weights])
    results = typed(outputs) + typed(b.integers, "int64")
    text = f"g ({taken}) => ({', '.join(results)}) {{ {' '.join(b.lines)} }}"
    shapes = {n: [s if fixed(s) else BATCH for s in shape] for n, shape in inputs.items()}
    return text, b.opset, b.weights, shapes


def typed(tensors, kind="float"):
    return [
        f"{kind}[{','.join(map(str, shape))}] {name}" if shape else f"{kind} {name}"
        for name, shape in tensors.items()
    ]


def declared(array):
    kind = {"float32": "float", "int64": "int64", "bool": "bool"}[str(array.dtype)]
    return f"{kind}[{','.join(map(str, array.shape))}]" if array.shape else kind
