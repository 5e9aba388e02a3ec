"""Evaluate one node on constants: a rearranged or scaled weight is a view, the rest is float64.

The operators that weights meet have a line of NumPy each; all others run in
`onnx.reference.ReferenceEvaluator`, which needs half a millisecond to get ready. Floating-point
results keep the graph's dtype and are rounded to it only when they are read (`ExactTensor`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from ...graph.exact import FLOATS, ExactTensor, rearranged
from ...graph.families import DISCRETE, TAKING

__all__ = ["evaluate"]

# A value that the graph rounds to 1.0 must not become 0 because its exact value is 0.99999997.
ROUNDING = DISCRETE | {"Cast"}
INTEGERS = frozenset({ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64})
ARITHMETIC: dict[str, Callable[..., np.ndarray]] = {
    "Add": np.add,
    "Div": np.divide,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
}

Tensor = ir.TensorProtocol
Inputs = Sequence[Tensor | None]
Move = Callable[[np.ndarray], np.ndarray]


def evaluate(node: ir.Node, inputs: Inputs, opset: int) -> list[Tensor]:
    """Compute the outputs of a node whose inputs are constants.

    Args:
        node: A node of the standard domain, deterministic and without subgraphs.
        inputs: Its inputs, None where an optional one is left out.
        opset: The version of the standard domain.

    Returns:
        The outputs.

    Raises:
        Exception: Whatever the reference evaluator raises if it cannot.
    """
    fast = _fast(node, inputs)
    return _by_reference(node, inputs, opset) if fast is None else [fast]


def _fast(node: ir.Node, inputs: Inputs) -> Tensor | None:
    """Evaluate one of the usual operators in NumPy; None if it is another, or an unusual use."""
    if node.op_type == "Constant":
        value = node.attributes.get("value")
        return None if value is None else _unnamed(value.as_tensor())
    tensor = inputs[0] if inputs else None
    if tensor is None or tensor.dtype not in FLOATS | INTEGERS | {ir.DataType.DOUBLE}:
        return None
    if node.op_type in ("Shape", "Size"):
        return _measured(node, tensor)
    if node.op_type == "ConstantOfShape":
        return _filled(node, tensor)
    if node.op_type == "Cast":
        return _cast(tensor, ir.DataType(node.attributes.get_int("to", 0)))
    if node.op_type == "CastLike":
        like = _liked(node)
        return None if like is None else _cast(tensor, like)
    if node.op_type in ARITHMETIC:
        return _arithmetic(node.op_type, [value for value in inputs if value is not None])
    move = _move(node, inputs, tensor)
    return None if move is None else rearranged(tensor, move)


def _unnamed(tensor: Tensor) -> Tensor:
    """Return the same elements in a tensor of its own, which a graph can name."""
    if tensor.dtype is ir.DataType.STRING:
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype)


def _move(node: ir.Node, inputs: Inputs, tensor: Tensor) -> Move | None:
    """Return what a node does to the places of elements, or None if it does something else."""
    match node.op_type:
        case "Identity":
            return lambda array: array
        case "Transpose":
            perm = node.attributes.get_ints("perm", None)
            return lambda array: array.transpose(perm)
        case "Reshape":
            shape = _reshaped(node, inputs, tensor)
            return None if shape is None else lambda array: array.reshape(shape)
        case "Expand":
            wanted = inputs[1]
            if wanted is None:
                return None
            shape = np.broadcast_shapes(tensor.shape.numpy(), tuple(wanted.numpy().tolist()))
            return lambda array: np.broadcast_to(array, shape)
        case "Flatten":
            split = node.attributes.get_int("axis", 1)
            sizes = tensor.shape.numpy()
            sides = math.prod(sizes[:split]), math.prod(sizes[split:])
            return lambda array: array.reshape(sides)
        case "Squeeze":
            axes = _axes(node, inputs)
            return lambda array: array.squeeze(axes)
        case "Unsqueeze":
            axes = _axes(node, inputs)
            return None if axes is None else lambda array: np.expand_dims(array, axes)
    return None


def _measured(node: ir.Node, tensor: Tensor) -> Tensor:
    sizes = tensor.shape.numpy()
    if node.op_type == "Size":
        return ir.Tensor(np.array(math.prod(sizes), np.int64))
    start, end = (node.attributes.get_int(name, None) for name in ("start", "end"))
    return ir.Tensor(np.array(sizes[start:end], np.int64))


def _filled(node: ir.Node, sizes: Tensor) -> Tensor | None:
    """Return a tensor of one number, which takes no memory until it is written."""
    value = node.attributes.get("value")
    fill = ir.tensor([0.0], ir.DataType.FLOAT) if value is None else value.as_tensor()
    if fill.size != 1 or fill.dtype not in FLOATS | {ir.DataType.DOUBLE}:
        return None
    shape = tuple(sizes.numpy().ravel().tolist())
    return ExactTensor(np.broadcast_to(fill.numpy().reshape(()), shape), fill.dtype)


def _reshaped(node: ir.Node, inputs: Inputs, tensor: Tensor) -> tuple[int, ...] | None:
    wanted = inputs[1] if len(inputs) > 1 else None
    if wanted is None or node.attributes.get_int("allowzero", False):
        return None
    old = tensor.shape.numpy()
    sizes = enumerate(wanted.numpy().tolist())
    return tuple(old[axis] if size == 0 else size for axis, size in sizes)


def _axes(node: ir.Node, inputs: Inputs) -> tuple[int, ...] | None:
    """Return the axes of a Squeeze or Unsqueeze: an input, before opset 13 an attribute."""
    given = inputs[1] if len(inputs) > 1 else None
    if given is not None:
        return tuple(given.numpy().ravel().tolist())
    axes = node.attributes.get_ints("axes", None)
    return None if axes is None else tuple(axes)


def _cast(tensor: Tensor, target: ir.DataType) -> Tensor | None:
    if tensor.dtype in FLOATS and target in FLOATS:
        wanted = ExactTensor.of(tensor).with_dtype(target)
        # A cast to half precision is meant to round.
        return wanted if target is ir.DataType.FLOAT else ExactTensor(wanted.numpy(), target)
    if tensor.dtype in INTEGERS and target in INTEGERS:
        return ir.Tensor(tensor.numpy().astype(target.numpy()))
    return None


def _arithmetic(operator: str, tensors: list[Tensor]) -> Tensor | None:
    if tensors[0].dtype in INTEGERS:
        if operator not in ("Add", "Mul", "Sub") or tensors[0].dtype is ir.DataType.BOOL:
            return None
        arrays = (tensor.numpy() for tensor in tensors)
        return ir.Tensor(np.asarray(ARITHMETIC[operator](*arrays)))
    values = [ExactTensor.of(tensor) for tensor in tensors]
    with np.errstate(all="ignore"):  # NaN and Inf are for the fold to refuse
        scaled = _scaled(operator, values)
        if scaled is not None:
            return scaled
        return ExactTensor(ARITHMETIC[operator](*(v.exact for v in values)), tensors[0].dtype)


def _scaled(operator: str, values: list[ExactTensor]) -> ExactTensor | None:
    """Return a product without computing it, if one operand is much larger than the other."""
    if operator == "Neg":
        return values[0] * np.array(-1.0)
    if operator not in ("Div", "Mul"):
        return None
    large, small = values
    if operator == "Mul" and small.size > large.size:
        large, small = small, large
    sizes = large.base.shape
    if not large.outweighs(small.size) or np.broadcast_shapes(sizes, small.base.shape) != sizes:
        return None
    return large * (small.exact if operator == "Mul" else 1.0 / small.exact)


def _by_reference(node: ir.Node, inputs: Inputs, opset: int) -> list[Tensor]:
    """Run one node on float64 copies of its float inputs; the results keep the graph's dtype."""
    alone = _alone(node)
    tensors = {name: t for name, t in zip(alone.input, inputs, strict=True) if name and t}
    floats = [tensor.dtype for tensor in tensors.values() if tensor.dtype in FLOATS]
    dtype = floats[0] if floats and alone.op_type != "Cast" else None  # a Cast decides its own
    single = onnx.helper.make_model(
        onnx.helper.make_graph(
            [alone],
            "constant",
            [onnx.ValueInfoProto(name=name) for name in tensors],
            [onnx.ValueInfoProto(name=str(output.name)) for output in node.outputs],
        ),
        opset_imports=[onnx.helper.make_opsetid("", opset)],
    )
    arrays = {name: _array(alone.op_type, tensor) for name, tensor in tensors.items()}
    with np.errstate(all="ignore"):
        results: Any = ReferenceEvaluator(single).run(None, arrays)
    if any(isinstance(result, list) for result in results):
        raise TypeError(f"evaluate: `node` must make tensors. Received: {node.op_type}.")
    return [_tensor(np.asarray(result), dtype) for result in results]


def _alone(node: ir.Node) -> onnx.NodeProto:
    """Return a node as onnx has it; a CastLike as the Cast that it is, which reads one tensor."""
    proto = ir.to_proto(node)
    if node.op_type == "CastLike":
        like = _liked(node)
        if like is None:
            raise TypeError("evaluate: the second input of CastLike must have a dtype.")
        proto.op_type = "Cast"
        del proto.input[1:], proto.attribute[:]
        proto.attribute.append(onnx.helper.make_attribute("to", like.value))
    return proto


def _liked(node: ir.Node) -> ir.DataType | None:
    """Return the dtype that a CastLike casts to, if it is known."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    return None if value is None else value.dtype


def _array(operator: str, tensor: Tensor) -> np.ndarray:
    if tensor.dtype not in FLOATS or operator in ROUNDING:
        return tensor.numpy()
    held = ExactTensor.of(tensor)
    # What copies elements computes nothing: float32 is as good as float64 and half its size.
    as_it_is = operator in TAKING and not held.factors and held.base.dtype == np.float32
    return held.base if as_it_is else held.exact


def _tensor(array: np.ndarray, dtype: ir.DataType | None) -> Tensor:
    if dtype is not None and array.dtype in (np.float32, np.float64):
        return ExactTensor(array, dtype)
    return ir.tensor(array)  # strings, too
