"""Convolutions that tf2onnx converts wrongly, or not at all, in a layout or rank that few use.

    BiasAdd(x, b), channels first                  ->  Add, b along axis 1
    Conv3D(x, w) in groups                         ->  Conv of as many groups
    Conv..BackpropInput, channels first, any size  ->  ConvTranspose, cut along the right axes

Handlers as in `conversions.py`.
"""

from typing import Any

import numpy as np
from tf2onnx.onnx_opset.nn import (
    BiasAdd,
    ConvOp,
    ConvTranspose,
    get_shape_from_const_or_concat,
)

from .conversions import Handler, _replace

__all__ = ["CHANNELS_FIRST", "add_along_the_last_axis"]

CHANNELS_LAST = {"NCHW": "NHWC", "NCDHW": "NDHWC"}


def add_along_the_last_axis(definition: Any) -> None:
    """Keep tf2onnx from taking what is added along the last axis for a convolution's bias.

    Keras adds a bias along the last axis where that is as long as there are channels, even if these
    are first.

    Args:
        definition: A TensorFlow graph, to be changed in place.
    """
    layouts = {n.name: n.attr["data_format"].s for n in definition.node if "data_format" in n.attr}
    for node in definition.node:
        source = layouts.get(node.input[0], b"") if node.op == "BiasAdd" else b""
        if source.startswith(b"NC") and layouts.get(node.name, b"NHWC") == b"NHWC":
            node.op = "AddV2"
            node.attr.pop("data_format", None)


def _bias_add(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Add along axis 1 where that has the channels; tf2onnx does so with constants alone."""
    del arguments
    if node.data_format != "NCHW":  # what TensorFlow calls it whatever the rank
        BiasAdd.version_7(context, node)
        return
    space = np.arange(1, len(context.get_shape(node.input[0])) - 1, dtype=np.int64)
    axes = context.make_const(f"{name}/axes", space).output[0]
    bias = context.make_node("Unsqueeze", [node.input[1], axes], name=f"{name}/Unsqueeze")
    _replace(context, node, "Add", [node.input[0], bias.output[0]], {}, f"{name}/Add")


def _conv_3d(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Count the groups, which tf2onnx does in two dimensions alone."""
    del name, arguments
    channels = context.get_shape(node.input[0])[1 if node.data_format == "NCDHW" else -1]
    depth = context.get_shape(node.input[1])[-2]
    ConvOp.version_13(context, node)
    if channels > 0:
        node.set_attr("group", channels // depth)


def _conv_transpose(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Cut what is too large along the right axes: tf2onnx takes the channels to be last there."""
    del arguments
    last = CHANNELS_LAST.get(node.data_format)
    if last is None or get_shape_from_const_or_concat(context, node.inputs[0]) is not None:
        ConvTranspose.version_11(context, node)
        return
    sizes, kernel, x, *bias = node.input  # tf2onnx has put a bias there
    rank, dtype = len(last), context.get_dtype(x)
    order, back = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
    attributes: dict[str, Any] = {
        key: [node.get_attr(key).ints[axis] for axis in order] for key in ("strides", "dilations")
    }
    attributes |= {"data_format": last, "padding": node.get_attr_str("padding")}

    def moved(value: str) -> list[int]:
        shape = context.get_shape(value)
        return [shape[axis] for axis in order]

    places = context.make_const(f"{name}/order", np.array(order, np.int64)).output[0]
    inputs = [
        context.make_node("Gather", [sizes, places], name=f"{name}/Gather").output[0],
        kernel,
        context.make_node(
            "Transpose",
            [x],
            attr={"perm": order},
            name=f"{name}/before",
            shapes=[moved(x)],
            dtypes=[dtype],
        ).output[0],
        *bias,
    ]
    inner = context.make_node(
        node.type,
        inputs,
        attr=attributes,
        name=f"{name}/ConvTranspose",
        shapes=[moved(node.output[0])],
        dtypes=[dtype],
    )
    _replace(context, node, "Transpose", [inner.output[0]], {"perm": back}, f"{name}/after")
    ConvTranspose.version_11(context, inner)


CHANNELS_FIRST: dict[str, Handler] = {
    "BiasAdd": (_bias_add, []),
    "Conv2DBackpropInput": (_conv_transpose, []),
    "Conv3D": (_conv_3d, []),
    "Conv3DBackpropInputV2": (_conv_transpose, []),
}
