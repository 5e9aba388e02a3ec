"""Faults put into an ONNX file."""

import onnx
from onnx import numpy_helper


def change_weight(path, name, change):
    """Change one initializer of a file: what `change` makes of a copy of its values."""
    proto = onnx.load(path)
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))
    onnx.save(proto, path)


def scale_first(factor):
    """Return a change that multiplies what stands first on the first axis."""

    def change(array):
        array[0] *= factor
        return array

    return change
