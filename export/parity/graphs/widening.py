"""An ONNX graph -> the same graph in float64: its weights, constants, casts and bodies."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["NARROW", "coarsest_epsilon", "widened", "widened_array"]

EPSILONS: dict[int, float] = {
    TensorProto.FLOAT: 2.0**-23,
    TensorProto.FLOAT16: 2.0**-10,
    TensorProto.BFLOAT16: 2.0**-7,
}
NARROW = frozenset(EPSILONS)
CONSTANT_FLOATS = ("value_float", "value_floats")
TYPES = {"Cast": "to", "EyeLike": "dtype"}  # operators that name the dtype of what they return


def widened(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a copy of an operator that computes in float64, with all that is in its bodies.

    Args:
        node: An operator of the standard; what it reads is taken to be in float64.
    """
    wide = onnx.NodeProto()
    wide.CopyFrom(node)
    for attribute in wide.attribute:
        if attribute.HasField("t"):
            attribute.t.CopyFrom(_widened_tensor(attribute.t))
        if wide.op_type == "Constant" and attribute.name in CONSTANT_FLOATS:
            values = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            tensor = numpy_helper.from_array(np.asarray(values, np.float64))
            attribute.CopyFrom(helper.make_attribute("value", tensor))
        if attribute.name == TYPES.get(wide.op_type) and attribute.i in NARROW:
            attribute.i = TensorProto.DOUBLE
        if attribute.HasField("g"):
            _widen_body(attribute.g)
    if wide.op_type == "ConstantOfShape" and not wide.attribute:
        zero = numpy_helper.from_array(np.zeros(1))
        wide.attribute.append(helper.make_attribute("value", zero))
    return wide


def widened_array(array: np.ndarray) -> np.ndarray:
    """Return floats, bfloat16 too, in float64, and anything else as it is."""
    narrow = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return array.astype(np.float64) if narrow else array


def coarsest_epsilon(proto: onnx.ModelProto) -> float:
    """Return the spacing at 1 of the coarsest dtype that a graph may compute in.

    Constants that a Cast alone reads are not computed with: their numbers are what they are.
    """
    found = {TensorProto.FLOAT, *_dtypes(proto.graph)}
    return max(EPSILONS[dtype] for dtype in found & NARROW)


def _dtypes(graph: onnx.GraphProto) -> Iterator[int]:
    cast = _only_cast(graph)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name not in cast:
            yield value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        if tensor.name not in cast:
            yield tensor.data_type
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == TYPES.get(node.op_type):
                yield attribute.i
            if attribute.HasField("t") and not cast.issuperset(node.output):
                yield attribute.t.data_type
            if attribute.HasField("g"):
                yield from _dtypes(attribute.g)


def _only_cast(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the constants of a graph that nothing but Cast reads."""
    constants = {tensor.name for tensor in graph.initializer}
    constants.update(*(node.output for node in graph.node if node.op_type == "Constant"))
    others = {name for node in graph.node if node.op_type != "Cast" for name in node.input}
    bodies = {name for node in graph.node for a in node.attribute for name in _read_in(a.g)}
    return constants - others - bodies - {value.name for value in graph.output}


def _read_in(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            yield from _read_in(attribute.g)


def _widened_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type not in NARROW:
        return tensor
    return numpy_helper.from_array(widened_array(numpy_helper.to_array(tensor)), tensor.name)


def _widen_body(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        tensor.CopyFrom(_widened_tensor(tensor))
    nodes = [widened(node) for node in graph.node]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in NARROW:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
