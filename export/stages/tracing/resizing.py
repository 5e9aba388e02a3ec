"""TensorFlow's resizing of images, shape (N, H, W, C), in ONNX.

    ResizeNearestNeighbor(x), sizes known    Gather of the rows and columns it picks
    ResizeBilinear(x), ResizeBicubic(x),     Resize to exactly the size that is meant
        sizes known
    ResizeArea(x)                            AveragePool by whole factors, else y = R x C^T,
    ResizeBicubic(x) to fewer pixels, or     two MatMul on (N, C, H, W)
        from an unknown size

R and C hold the share that pixel j has in the new pixel i: with s = H / H', an area's

    R[i, j] = |[i s, (i + 1) s] and [j, j + 1]| / s

and, as a cubic's, the weights of R. G. Keys 1981, "Cubic convolution interpolation", a = -1/2, at
distance |(i + 1/2) s - 1/2 - j|, divided by their sum. As a Resize the latter would not run: where
ONNX Runtime moves the Transposes around it away it refuses what is left.

Each handler takes tf2onnx's graph and one node of it, and replaces that node. Where a size of x is
unknown the file computes the shares; where that to resize to is, areas and cubics are refused.
"""

import itertools
from typing import Any

import numpy as np
from tf2onnx.onnx_opset.nn import Resize
from tf2onnx.utils import map_onnx_to_numpy_type

from .conversions import Handler, _place_transposed, _replace

__all__ = ["RESIZING"]

# Attributes of Resize for the interpolations that it knows; a cubic one is Keys's with a = -1/2.
INTERPOLATIONS: dict[str, dict[str, Any]] = {
    "ResizeBilinear": {"mode": "linear"},
    "ResizeBicubic": {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
}
# Keys's weights within one pixel and two: factors of falling powers of the distance.
NEAR, FAR = (1.5, -2.5, 0.0, 1.0), (-0.5, 2.5, -4.0, 2.0)
SECOND = [0, 3, 1, 2]  # the channels


def _resize_nearest(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Pick the pixels that TensorFlow picks; Resize rounds otherwise where two are equally near."""
    del arguments
    shape = context.get_shape(node.input[0])
    if not node.inputs[1].is_const() or min(shape[1:3]) < 1:
        Resize.version_11(context, node)
        return
    flags = [bool(node.get_attr_value(key)) for key in ("align_corners", "half_pixel_centers")]
    sizes = node.inputs[1].get_tensor_value()
    picked = [_nearest(shape[axis + 1], size, *flags) for axis, size in enumerate(sizes)]
    rows, columns = (
        context.make_const(f"{name}/{what}", indices).output[0]
        for what, indices in zip(("rows", "columns"), picked, strict=True)
    )
    inner = context.make_node(
        "Gather",
        [node.input[0], rows],
        attr={"axis": 1},
        name=f"{name}/Gather",
        dtypes=[context.get_dtype(node.output[0])],
        shapes=[[shape[0], sizes[0], *shape[2:]]],
    )
    _replace(context, node, "Gather", [inner.output[0], columns], {"axis": 2}, f"{name}/Gather_1")


def _resize_smoothly(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Resize by scales that give the size: floor(size * out / in), rounded, can be one less."""
    del name, arguments
    shape = context.get_shape(node.input[0])
    same_dtype = context.get_dtype(node.input[0]) == context.get_dtype(node.output[0])
    half_pixel = bool(node.get_attr_value("half_pixel_centers"))
    is_known = node.inputs[1].is_const() and min(shape[1:3]) >= 1
    if node.type == "ResizeBicubic" and half_pixel and not is_known:
        _mix(context, node, _float(context, node))
        return
    # Without half-pixel centres TensorFlow has another cubic.
    if not same_dtype or not is_known or (node.type == "ResizeBicubic" and not half_pixel):
        Resize.version_11(context, node)
        return
    sizes = [(shape[i + 1], int(n)) for i, n in enumerate(node.inputs[1].get_tensor_value())]
    if node.type == "ResizeBicubic" and any(new < old for old, new in sizes):
        _mix(context, node, node.input[0])
        return
    scales = np.ones(4, np.float32)
    for axis, size in enumerate(node.inputs[1].get_tensor_value(), start=2):
        scales[axis] = size / shape[axis - 1]
        if float(scales[axis]) * shape[axis - 1] < size:
            scales[axis] = np.nextafter(scales[axis], np.float32(np.inf))
    mode = "half_pixel" if half_pixel else "asymmetric"
    mode = "align_corners" if node.get_attr_value("align_corners") else mode
    attributes = {**INTERPOLATIONS[node.type], "coordinate_transformation_mode": mode}
    inputs = [node.input[0], "", context.make_const(f"{node.name}/scales", scales).output[0]]
    _place_transposed(context, node, "Resize", inputs, attributes, SECOND)


def _resize_area(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    del arguments
    shape = context.get_shape(node.input[0])
    if node.get_attr_value("align_corners"):
        raise ValueError("an area with its corners aligned")
    x = _float(context, node)
    if node.inputs[1].is_const() and min(shape[1:3]) >= 1:
        before, after = list(shape[1:3]), [int(n) for n in node.inputs[1].get_tensor_value()]
        if all(old % new == 0 for old, new in zip(before, after, strict=True)):
            window = [old // new for old, new in zip(before, after, strict=True)]
            attributes = {"kernel_shape": window, "strides": window}
            _place_transposed(context, node, "AveragePool", [x], attributes, SECOND)
            return
    _mix(context, node, x)


def _float(context: Any, node: Any) -> str:
    """Return the image in the dtype of the result."""
    x: str = node.input[0]
    dtype = context.get_dtype(node.output[0])
    if context.get_dtype(x) == dtype:
        return x
    cast = context.make_node("Cast", [x], attr={"to": dtype}, name=f"{node.name}/Cast")
    context.set_dtype(cast.output[0], dtype)
    context.set_shape(cast.output[0], context.get_shape(x))
    return str(cast.output[0])


def _mix(context: Any, node: Any, x: str) -> None:
    """Write rows of new pixels as sums of old ones, and columns likewise."""
    if not node.inputs[1].is_const():
        raise ValueError("an image of unknown size to resize to")
    dtype, name, shape = context.get_dtype(node.output[0]), node.name, context.get_shape(x)
    height, width = (int(size) for size in node.inputs[1].get_tensor_value())
    rows = _placed_shares(context, node, 1, height)
    columns = _placed_shares(context, node, 2, width)

    def made(operator: str, inputs: list[str], what: str, shape: list[int], **attr: Any) -> str:
        result: str = context.make_node(
            operator, inputs, attr=attr, name=f"{name}/{what}", dtypes=[dtype], shapes=[shape]
        ).output[0]
        return result

    sizes = [shape[axis] for axis in SECOND]
    columns = made("Transpose", [columns], "columns", [shape[2], width], perm=[1, 0])
    x = made("Transpose", [x], "before", sizes, perm=SECOND)
    x = made("MatMul", [rows, x], "MatMul", [*sizes[:2], height, sizes[3]])
    x = made("MatMul", [x, columns], "MatMul_1", [*sizes[:2], height, width])
    _replace(context, node, "Transpose", [x], {"perm": [0, 2, 3, 1]}, f"{name}/after")


def _placed_shares(context: Any, node: Any, axis: int, after: int) -> str:
    """Return the shares along an axis, shape (after, before): a constant, or what computes them."""
    before, is_area = context.get_shape(node.input[0])[axis], node.type == "ResizeArea"
    name = f"{node.name}/shares_{axis}"
    if before >= 1:
        shares = (_shares if is_area else _cubic_shares)(before, after)
        kind = map_onnx_to_numpy_type(context.get_dtype(node.output[0]))
        return str(context.make_const(name, shares.astype(kind)).output[0])
    numbers = itertools.count()

    def const(value: Any, kind: Any = np.float32) -> str:
        return str(context.make_const(f"{name}/{next(numbers)}", np.array(value, kind)).output[0])

    def made(operator: str, *inputs: str, dtype: int = 1, **attr: Any) -> str:
        result: str = context.make_node(
            operator, list(inputs), attr=attr, name=f"{name}/{next(numbers)}", dtypes=[dtype]
        ).output[0]
        return result

    sizes = made("Shape", node.input[0], dtype=7)
    size = made("Cast", made("Gather", sizes, const(axis, np.int64), dtype=7), to=1)
    scale, pixels = made("Div", size, const(after)), made("Range", const(0), size, const(1))
    new = np.arange(after)[:, np.newaxis]
    if is_area:
        start = made("Max", made("Mul", const(new), scale), pixels)
        end = made("Min", made("Mul", const(new + 1), scale), made("Add", pixels, const(1)))
        covered = made("Max", made("Sub", end, start), const(0))
        return made("Div", covered, scale)
    place = made("Sub", made("Mul", const(new + 0.5), scale), const(0.5))
    d = made("Abs", made("Sub", place, pixels))

    def polynomial(*factors: float) -> str:
        value = const(factors[0])
        for factor in factors[1:]:
            value = made("Add", made("Mul", value, d), const(factor))
        return value

    far = made("Where", made("Less", d, const(2), dtype=9), polynomial(*FAR), const(0))
    weights = made("Where", made("Less", d, const(1), dtype=9), polynomial(*NEAR), far)
    return made("Div", weights, made("ReduceSum", weights, const([1], np.int64)))


def _shares(before: int, after: int) -> np.ndarray:
    """Return which share each old pixel has in each new one, shape (after, before)."""
    scale = np.float32(before) / np.float32(after)
    edges = (np.arange(after + 1, dtype=np.float32) * scale).astype(np.float64)[:, np.newaxis]
    pixels = np.arange(before)
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.asarray(np.maximum(covered, 0.0) / scale)


def _cubic_shares(before: int, after: int) -> np.ndarray:
    """Likewise by Keys's weights; pixels outside have none."""
    places = (np.arange(after) + 0.5) * (before / after) - 0.5
    d = np.abs(places[:, np.newaxis] - np.arange(before))
    near, far = np.polyval(NEAR, d), np.polyval(FAR, d)
    weights = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _nearest(before: int, after: int, align_corners: bool, half_pixel_centers: bool) -> Any:
    """Return which of `before` pixels each of `after` takes, in float32 as TensorFlow does."""
    aligned = align_corners and after > 1
    scale = np.float32(before - aligned) / np.float32(after - aligned)
    position = (np.arange(after, dtype=np.float32) + np.float32(0.5 * half_pixel_centers)) * scale
    picked = np.floor(position + np.float32(0.5)) if align_corners else np.floor(position)
    return np.clip(picked.astype(np.int64), 0, before - 1)


RESIZING: dict[str, Handler] = {
    "ResizeArea": (_resize_area, []),
    "ResizeBicubic": (_resize_smoothly, []),
    "ResizeBilinear": (_resize_smoothly, []),
    "ResizeNearestNeighbor": (_resize_nearest, []),
}
