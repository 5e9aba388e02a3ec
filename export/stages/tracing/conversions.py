"""Conversions that tf2onnx lacks, or that it writes in more nodes than ONNX needs.

    an operator that `place_operator` put down    ->  that ONNX operator
    Erfc(x)                                       ->  1 - Erf(x)
    Expm1(x)                                      ->  Tanh(x / 2) * (Exp(x) + 1)
    Log1p(x)                                      ->  Log(u) * x / (u - 1), u = 1 + x; x where u = 1
    ReverseV2(x, axes)                            ->  Slice with steps of -1
    Select(c, x, y)                               ->  Where, exact where the other branch is NaN
    Bitcast(x) & sign bit                         ->  x < 0 or 1 / x < 0, as `keras.ops.argmax` asks
    Bucketize(x)                                  ->  how many boundaries are not above x

Each handler takes tf2onnx's graph and one node of it, and replaces that node.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tf2onnx.onnx_opset.controlflow import Select
from tf2onnx.utils import map_onnx_to_numpy_type

__all__ = ["HANDLERS", "Handler", "place_operator"]

MARKER = "PyFuncStateless"  # an operator that means nothing to TensorFlow by itself
SIGN_BIT = np.iinfo(np.int32).min
LARGEST = np.iinfo(np.int64).max

Handler = tuple[Callable[[Any, Any, str, list[Any]], None], list[Any]]


def place_operator(
    operator: str,
    inputs: list[Any],
    shapes: list[Any],
    attributes: dict[str, Any],
    order: list[int] | None = None,
) -> list[Any]:
    """Put an ONNX operator into the TensorFlow graph that is being traced.

    Args:
        operator: Its name.
        inputs: TensorFlow tensors; None for an operand that is left out.
        shapes: Shape of each output; their dtype is that of the first input.
        attributes: Its attributes, as JSON can hold them.
        order: A permutation of axes: the operator takes the first input transposed by it, and its
            first output is transposed back.

    Returns:
        The outputs, tensors that can only be converted, not computed.
    """
    given = [tensor for tensor in inputs if tensor is not None]
    token = {
        "operator": operator,
        "inputs": [tensor is not None for tensor in inputs],
        "attributes": attributes,
        "order": order,
    }
    outputs: list[Any] = tf.raw_ops.PyFuncStateless(
        input=given, token=json.dumps(token), Tout=[given[0].dtype] * len(shapes)
    )
    for output, shape in zip(outputs, shapes, strict=True):
        output.set_shape(shape)
    return outputs


def _placed(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    del arguments
    try:
        token = json.loads(node.get_attr_str("token"))
        operator, attributes, order = (token[k] for k in ("operator", "attributes", "order"))
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError("a Python function, which is not part of the graph") from e
    given = iter(node.input)
    inputs = [next(given) if is_given else "" for is_given in token["inputs"]]
    while not inputs[-1]:
        inputs.pop()
    if order is None or order == sorted(order):
        _replace(context, node, operator, inputs, attributes, f"{name}/{operator}")
    else:
        _place_transposed(context, node, operator, inputs, attributes, order)


def _place_transposed(
    context: Any, node: Any, operator: str, inputs: list[str], attributes: Any, order: list[int]
) -> None:
    """Write Transpose(operator(Transpose(x, order), ...), inverse)."""
    dtype = context.get_dtype(node.output[0])

    def moved(shape: list[int], permutation: list[int]) -> list[int]:
        return [shape[axis] for axis in permutation]

    before = context.make_node(
        "Transpose",
        inputs[:1],
        attr={"perm": order},
        name=f"{node.name}/before",
        dtypes=[dtype],
        shapes=[moved(context.get_shape(inputs[0]), order)],
    )
    inner = context.make_node(
        operator,
        [before.output[0], *inputs[1:]],
        attr=attributes,
        name=f"{node.name}/{operator}",
        dtypes=[dtype],
        shapes=[moved(context.get_shape(node.output[0]), order)],
    )
    back = {"perm": [order.index(axis) for axis in range(len(order))]}
    _replace(context, node, "Transpose", [inner.output[0]], back, f"{node.name}/after")


def _erfc(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    del arguments
    kind = node.input[0], node.output[0]
    dtype, shape = context.get_dtype(kind[1]), context.get_shape(kind[1])
    erf = context.make_node("Erf", [kind[0]], name=f"{name}/Erf", dtypes=[dtype], shapes=[shape])
    one = context.make_const(f"{name}/one", np.array(1.0, map_onnx_to_numpy_type(dtype)))
    _replace(context, node, "Sub", [one.output[0], erf.output[0]], {}, f"{name}/Sub")


def _expm1(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Unlike Exp(x) - 1 this keeps its digits near 0."""
    del arguments
    x, dtype, shape = node.input[0], context.get_dtype(node.output[0]), node.output_shapes[0]

    def made(operator: str, inputs: list[str], what: str) -> str:
        result: str = context.make_node(
            operator, inputs, name=f"{name}/{what}", dtypes=[dtype], shapes=[shape]
        ).output[0]
        return result

    half, one = (
        context.make_const(f"{name}/{what}", np.array(value, map_onnx_to_numpy_type(dtype))).output[
            0
        ]
        for what, value in (("half", 0.5), ("one", 1.0))
    )
    tanh = made("Tanh", [made("Mul", [x, half], "Mul")], "Tanh")
    above = made("Add", [made("Exp", [x], "Exp"), one], "Add")
    _replace(context, node, "Mul", [tanh, above], {}, f"{name}/Mul_1")


def _log1p(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Make up for what 1 + x rounds off (D. Goldberg 1991, ACM Computing Surveys 23, theorem 4)."""
    del arguments
    x, dtype, shape = node.input[0], context.get_dtype(node.output[0]), node.output_shapes[0]

    def made(operator: str, inputs: list[str], kind: int = dtype) -> str:
        result: str = context.make_node(
            operator, inputs, name=f"{name}/{operator}", dtypes=[kind], shapes=[shape]
        ).output[0]
        return result

    one = context.make_const(f"{name}/one", np.array(1.0, map_onnx_to_numpy_type(dtype))).output[0]
    above = made("Add", [x, one])
    share = made("Div", [x, made("Sub", [above, one])])
    y = made("Mul", [made("Log", [above]), share])
    _replace(context, node, "Where", [made("Equal", [above, one], 9), x, y], {}, f"{name}/Where")


def _bitcast(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Write the sign bit of a float, which -0.0 has too; ONNX cannot see the others."""
    del arguments
    readers = context.find_output_consumers(node.output[0])
    kinds = [context.get_dtype(value) for value in (node.input[0], node.output[0])]
    if kinds != [1, 6] or not all(_is_sign_mask(reader) for reader in readers):
        raise ValueError("the bits of a number, which ONNX has no operator for")
    shape = context.get_shape(node.output[0])

    def made(operator: str, inputs: list[str], what: str, dtype: int) -> str:
        result: str = context.make_node(
            operator, inputs, name=f"{name}/{what}", dtypes=[dtype], shapes=[shape]
        ).output[0]
        return result

    zero = context.make_const(f"{name}/zero", np.array(0.0, np.float32)).output[0]
    inverse = made("Reciprocal", [node.input[0]], "Reciprocal", 1)
    below = [
        made("Less", [value, zero], f"Less_{i}", 9)
        for i, value in enumerate((node.input[0], inverse))
    ]
    negative = made("Or", below, "Or", 9)
    bits = [
        context.make_const(f"{name}/{what}", np.array(value, np.int32)).output[0]
        for what, value in (("set", SIGN_BIT), ("clear", 0))
    ]
    for reader in readers:  # no other bit is there to be masked
        reader.type = "Identity"
        context.replace_inputs(reader, [node.output[0]])
    _replace(context, node, "Where", [negative, *bits], {}, f"{name}/Where")


def _is_sign_mask(node: Any) -> bool:
    values = [v.get_tensor_value(as_list=False) for v in node.inputs if v.is_const()]
    return node.type == "BitwiseAnd" and [np.ravel(v).tolist() for v in values] == [[SIGN_BIT]]


def _bucketize(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    del arguments
    boundaries = np.array(node.get_attr("boundaries").floats, np.float32)
    last = context.make_const(f"{name}/axes", np.array([-1], np.int64)).output[0]
    limits = context.make_const(f"{name}/boundaries", boundaries).output[0]
    x = context.make_node("Unsqueeze", [node.input[0], last], name=f"{name}/Unsqueeze").output[0]
    x = context.make_node("Cast", [x], attr={"to": 1}, name=f"{name}/Cast").output[0]
    above = context.make_node("Less", [x, limits], name=f"{name}/Less").output[0]
    reached = context.make_node("Not", [above], name=f"{name}/Not").output[0]
    ones = context.make_node("Cast", [reached], attr={"to": 6}, name=f"{name}/Cast_1").output[0]
    _replace(context, node, "ReduceSum", [ones, last], {"keepdims": 0}, f"{name}/ReduceSum")


def _reverse(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    del arguments
    rank = len(context.get_shape(node.input[0]))
    axes = np.asarray(node.inputs[1].get_tensor_value(as_list=False), np.int64).ravel() % rank
    back, end = np.full_like(axes, -1), np.full_like(axes, -LARGEST)
    constants = {"starts": back, "ends": end, "axes": axes, "steps": back}
    inputs = [
        context.make_const(f"{name}/{what}", value).output[0] for what, value in constants.items()
    ]
    _replace(context, node, "Slice", [node.input[0], *inputs], {}, f"{name}/Slice")


def _select(context: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Keep tf2onnx from writing x * c + y * (1 - c), which is NaN where either branch is."""
    del name, arguments
    node.set_attr("handles_nan", 1)
    Select.version_9(context, node)


def _replace(
    context: Any, node: Any, operator: str, inputs: list[str], attributes: Any, name: str
) -> None:
    outputs = list(node.output)
    shapes = [context.get_shape(output) for output in outputs]
    dtypes = [context.get_dtype(output) for output in outputs]
    context.remove_node(node.name)
    context.make_node(
        operator,
        inputs,
        attr=attributes,
        outputs=outputs,
        shapes=shapes,
        dtypes=dtypes,
        name=name,
    )


HANDLERS: dict[str, Handler] = {
    MARKER: (_placed, []),
    "Bitcast": (_bitcast, []),
    "Bucketize": (_bucketize, []),
    "Erfc": (_erfc, []),
    "Expm1": (_expm1, []),
    "Log1p": (_log1p, []),
    "ReverseV2": (_reverse, []),
    "Select": (_select, []),
    "SelectV2": (_select, []),
}
