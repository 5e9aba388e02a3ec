"""TensorFlow's resizing of images, shape (N, H, W, C), in ONNX.

    ResizeNearestNeighbor(x), sizes known    Gather of the rows and columns it picks
    ResizeBilinear(x), ResizeBicubic(x),     Resize to exactly the size that is meant
        sizes known
    ResizeArea(x), sizes known               AveragePool by whole factors, else y = R x C^T,
    ResizeBicubic(x) to fewer pixels         two MatMul on (N, C, H, W)

R and C hold the share that pixel j has in the new pixel i: with s = H / H', an area's

    R[i, j] = |[i s, (i + 1) s] and [j, j + 1]| / s

and, as a cubic's, the weights of R. G. Keys 1981, "Cubic convolution interpolation", a = -1/2, at
distance |(i + 1/2) s - 1/2 - j|, divided by their sum. As a Resize the latter would not run: where
ONNX Runtime moves the Transposes around it away it refuses what is left.

Each handler takes tf2onnx's graph and one node of it, and replaces that node. An area or a cubic of
unknown size is refused: the shares would have to be computed by the file.
"""

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
    if node.type == "ResizeBicubic" and not is_known:
        raise ValueError("a cubic of unknown size")
    # Without half-pixel centres TensorFlow has another cubic.
    if not same_dtype or not is_known or (node.type == "ResizeBicubic" and not half_pixel):
        Resize.version_11(context, node)
        return
    sizes = [(shape[i + 1], int(n)) for i, n in enumerate(node.inputs[1].get_tensor_value())]
    if node.type == "ResizeBicubic" and any(new < old for old, new in sizes):
        _mix(context, node, [_cubic_shares(*pair) for pair in sizes])
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
    if not node.inputs[1].is_const() or min(shape[1:3]) < 1 or node.get_attr_value("align_corners"):
        raise ValueError("an area of unknown size")
    before, after = list(shape[1:3]), [int(size) for size in node.inputs[1].get_tensor_value()]
    x, dtype = node.input[0], context.get_dtype(node.output[0])
    if context.get_dtype(x) != dtype:
        cast = context.make_node("Cast", [x], attr={"to": dtype}, name=f"{name}/Cast")
        x = cast.output[0]
        context.set_dtype(x, dtype)
        context.set_shape(x, shape)
    if all(old % new == 0 for old, new in zip(before, after, strict=True)):
        window = [old // new for old, new in zip(before, after, strict=True)]
        attributes = {"kernel_shape": window, "strides": window}
        _place_transposed(context, node, "AveragePool", [x], attributes, SECOND)
        return
    _mix(context, node, [_shares(*pair) for pair in zip(before, after, strict=True)], x)


def _mix(context: Any, node: Any, shares: list[np.ndarray], x: str = "") -> None:
    """Write rows of new pixels as sums of old ones, and columns likewise."""
    dtype, name, x = context.get_dtype(node.output[0]), node.name, x or node.input[0]
    (height, width), shape = (len(part) for part in shares), context.get_shape(x)
    kind = map_onnx_to_numpy_type(dtype)

    def made(operator: str, inputs: list[str], what: str, shape: list[int], **attr: Any) -> str:
        result: str = context.make_node(
            operator, inputs, attr=attr, name=f"{name}/{what}", dtypes=[dtype], shapes=[shape]
        ).output[0]
        return result

    rows = context.make_const(f"{name}/rows", shares[0].astype(kind)).output[0]
    columns = context.make_const(f"{name}/columns", shares[1].T.astype(kind)).output[0]
    sizes = [shape[axis] for axis in SECOND]
    x = made("Transpose", [x], "before", sizes, perm=SECOND)
    x = made("MatMul", [rows, x], "MatMul", [*sizes[:2], height, sizes[3]])
    x = made("MatMul", [x, columns], "MatMul_1", [*sizes[:2], height, width])
    _replace(context, node, "Transpose", [x], {"perm": [0, 2, 3, 1]}, f"{name}/after")


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
    near, far = (1.5 * d - 2.5) * d**2 + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
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
