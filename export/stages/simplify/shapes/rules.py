"""What each operator makes of the shapes that it is given: one rule for each operator.

A rule returns the shape of the first output, or None where it cannot say. Sizes that an operator
rounds or cuts short are named, not guessed (`KnownShapes.quotient`, `unknown`).
"""

from collections.abc import Callable

import onnx_ir as ir

from ....graph.exact import is_constant
from ....graph.families import BROADCASTING, REDUCING, UNARY
from .known import KnownShapes
from .sizes import Polynomial, Shape, Size, exact_quotient, is_nonnegative, product, unknown

__all__ = ["RULES"]

Rule = Callable[[KnownShapes, ir.Node], Shape | None]

SAME_SHAPE = UNARY.union(
    """BatchNormalization Dropout GroupNormalization Hardmax Identity InstanceNormalization
    LayerNormalization LogSoftmax LRN MeanVarianceNormalization Softmax""".split()
)


def _same(known: KnownShapes, node: ir.Node) -> Shape | None:
    return known.shape(node.inputs[0])


def _broadcast(known: KnownShapes, node: ir.Node) -> Shape | None:
    shapes = [known.shape(value) for value in node.inputs if value is not None]
    found = [shape for shape in shapes if shape is not None]
    return known.broadcast(found) if found and len(found) == len(shapes) else None


def _transpose(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape = known.shape(node.inputs[0])
    if shape is None:
        return None
    perm = node.attributes.get_ints("perm", tuple(reversed(range(len(shape)))))
    return tuple(shape[axis] for axis in perm)


def _reduce(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape, axes = known.shape(node.inputs[0]), known.axes(node)
    if shape is None or axes is None:
        return None
    if not axes and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        return shape
    reduced = {axis % len(shape) for axis in axes} if axes else set(range(len(shape)))
    if node.attributes.get_int("keepdims", 1):
        return tuple(1 if i in reduced else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in reduced)


def _matmul(known: KnownShapes, node: ir.Node) -> Shape | None:
    a, b = known.shape(node.inputs[0]), known.shape(node.inputs[1])
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return None
    return (*known.broadcast([a[:-2], b[:-2]]), a[-2], b[-1])


def _gemm(known: KnownShapes, node: ir.Node) -> Shape | None:
    a, b = known.shape(node.inputs[0]), known.shape(node.inputs[1])
    if a is None or b is None:
        return None
    rows = a[1] if node.attributes.get_int("transA", 0) else a[0]
    return rows, b[0] if node.attributes.get_int("transB", 0) else b[1]


def _concat(known: KnownShapes, node: ir.Node) -> Shape | None:
    shapes = [known.shape(value) for value in node.inputs]
    first = shapes[0]
    if first is None:
        return None
    axis = node.attributes.get_int("axis", 0) % len(first)
    length: Size = 0
    for shape in shapes:
        if shape is None:
            return None
        length = length + shape[axis]
    # All inputs have the same other sizes, or the graph fails; a number says most.
    sizes = [
        next((s[i] for s in shapes if s is not None and isinstance(s[i], int)), n)
        for i, n in enumerate(first)
    ]
    return (*sizes[:axis], length, *sizes[axis + 1 :])


def _slice(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape, cuts = known.shape(node.inputs[0]), known.cuts(node)
    if shape is None or cuts is None:
        return None
    sizes = list(shape)
    for axis, start, end, step in cuts:
        sizes[axis] = _sliced(shape[axis], start, end, step)
    return tuple(sizes)


def _sliced(size: Size, start: Size, end: Size, step: int) -> Size:
    """Return the length of size[start:end:step]; what might be cut short is unknown."""
    if all(isinstance(n, int) for n in (size, start, end)):
        return len(range(*slice(start, end, step).indices(size)))  # type: ignore[arg-type]
    if step != 1:
        return unknown()
    first = start if isinstance(start, Polynomial) or start >= 0 else size + start
    if isinstance(end, int) and end >= 2**31 - 1:
        last = size
    else:
        last = end if isinstance(end, Polynomial) or end >= 0 else size + end
    inside = (first, last - first, size - last)
    return last - first if all(map(is_nonnegative, inside)) else unknown()


def _pad(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape, pads = known.shape(node.inputs[0]), known.pads(node)
    if shape is None or pads is None:
        return None
    return tuple(n + begin + end for n, begin, end in zip(shape, *pads, strict=True))


def _reshape(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape, target = known.shape(node.inputs[0]), known.integers(node.inputs[1])
    if target is None or target.ndim != 1:
        return None
    sizes: list[Size] = list(target)
    if not node.attributes.get_int("allowzero", 0):
        for i, size in enumerate(sizes):
            if isinstance(size, int) and size == 0:
                sizes[i] = shape[i] if shape is not None and i < len(shape) else unknown()
    if -1 in sizes:
        at = sizes.index(-1)
        rest = product(sizes[:at] + sizes[at + 1 :])
        inferred = exact_quotient(product(shape), rest) if shape is not None else None
        sizes[at] = unknown() if inferred is None else inferred
    return tuple(sizes) if all(isinstance(n, int) or is_nonnegative(n) for n in sizes) else None


def _squeeze(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape, axes = known.shape(node.inputs[0]), known.axes(node)
    if shape is None or not axes:
        return None
    gone = {axis % len(shape) for axis in axes}
    return tuple(n for i, n in enumerate(shape) if i not in gone)


def _unsqueeze(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape, axes = known.shape(node.inputs[0]), known.axes(node)
    if shape is None or axes is None:
        return None
    rank = len(shape) + len(axes)
    added, rest = {axis % rank for axis in axes}, iter(shape)
    return tuple(1 if i in added else next(rest) for i in range(rank))


def _flatten(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape = known.shape(node.inputs[0])
    if shape is None:
        return None
    axis = node.attributes.get_int("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return product(shape[:axis]), product(shape[axis:])


def _expand(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape, target = known.shape(node.inputs[0]), known.integers(node.inputs[1])
    return None if shape is None or target is None else known.broadcast([shape, tuple(target)])


def _tile(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape, repeats = known.shape(node.inputs[0]), known.integers(node.inputs[1])
    if shape is None or repeats is None or len(shape) != repeats.size:
        return None
    return tuple(n * times for n, times in zip(shape, repeats, strict=True))


def _resize(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape = known.shape(node.inputs[0])
    unusual = {"axes", "keep_aspect_ratio_policy"} & set(node.attributes)
    mode = node.attributes.get_string("coordinate_transformation_mode", "")
    if shape is None or unusual or mode == "tf_crop_and_resize":
        return None
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        sizes = known.integers(node.inputs[3])
        return None if sizes is None else tuple(sizes)
    given = node.inputs[2] if len(node.inputs) > 2 else None
    scales = given.const_value if is_constant(given) and given is not None else None
    if scales is None or scales.size != len(shape):
        return None
    factors = [float(scale) for scale in scales.numpy()]
    return tuple(
        n * int(factor) if factor.is_integer() else unknown()
        for n, factor in zip(shape, factors, strict=True)
    )


def _gather(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape, indices = known.shape(node.inputs[0]), known.shape(node.inputs[1])
    if shape is None or indices is None:
        return None
    axis = node.attributes.get_int("axis", 0) % len(shape)
    return (*shape[:axis], *indices, *shape[axis + 1 :])


def _shape(known: KnownShapes, node: ir.Node) -> Shape | None:
    shape = known.shape(node.inputs[0])
    if shape is None:
        return None
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
    return (len(shape[start:end]),)


def _einsum(known: KnownShapes, node: ir.Node) -> Shape | None:
    inputs, arrow, output = (
        node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    )
    shapes = [known.shape(value) for value in node.inputs]
    names = inputs.split(",")
    if not arrow or "." in inputs or len(names) != len(shapes):
        return None
    sizes: dict[str, list[Shape]] = {}
    for letters, shape in zip(names, shapes, strict=True):
        if shape is None or len(shape) != len(letters):
            return None
        for letter, size in zip(letters, shape, strict=True):
            sizes.setdefault(letter, []).append((size,))
    return tuple(known.broadcast(sizes[letter])[0] for letter in output)


RULES: dict[str, Rule] = {
    **dict.fromkeys(SAME_SHAPE, _same),
    **dict.fromkeys(BROADCASTING, _broadcast),
    **dict.fromkeys(REDUCING, _reduce),
    "Concat": _concat,
    "Einsum": _einsum,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Size": lambda known, node: (),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
