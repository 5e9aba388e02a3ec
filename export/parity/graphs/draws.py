"""The inputs of an ONNX graph -> what to draw for each.

indices      whole numbers below the size of the table that a Gather takes by them
uint8        0 to 255
integers     else 0 or 1
floats       normal, mean 0, deviation 1
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from ...errors import ExportError
from ...graph.onnx_inference import infer_shapes
from ...stages.constants.evaluate import evaluate_constants
from ...stages.simplify.told_shapes import tell_shapes
from ..samples.distribution import Distribution, require_limits, uniform
from .float64 import fed_inputs

__all__ = ["GraphInput", "distributions_of_graph", "inputs_of"]

MOVING = frozenset("Cast Flatten Identity Reshape Squeeze Transpose Unsqueeze".split())


@dataclasses.dataclass(frozen=True)
class GraphInput:
    """An input of a graph, as a `tf.TensorSpec` is one of a model.

    Attributes:
        name: Its name.
        shape: Its sizes, None for one that is free.
        dtype: Its dtype.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: "_DType"


@dataclasses.dataclass(frozen=True)
class _DType:
    as_numpy_dtype: np.dtype[Any]

    @property
    def name(self) -> str:
        return str(self.as_numpy_dtype.name)

    @property
    def is_floating(self) -> bool:
        return self.as_numpy_dtype.kind == "f"

    @property
    def is_bool(self) -> bool:
        return self.as_numpy_dtype.kind == "b"

    @property
    def min(self) -> float:
        limits = np.finfo if self.is_floating else np.iinfo
        return float(limits(self.as_numpy_dtype).min)

    @property
    def max(self) -> float:
        limits = np.finfo if self.is_floating else np.iinfo
        return float(limits(self.as_numpy_dtype).max)


def inputs_of(
    proto: onnx.ModelProto,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    told: bool = False,
) -> list[GraphInput]:
    """Return the inputs of a graph that must be given.

    Args:
        proto: The model.
        shapes: Sizes to take for some inputs, by name.
        told: Whether to ask the weights for the sizes that are free, such as channels.

    Raises:
        ExportError: If `shapes` names no input, or does not fit one.
        ExportError: If an input holds no numbers.
    """
    values = fed_inputs(proto.graph)
    names, shapes = [value.name for value in values], shapes or {}
    for name in shapes:
        if name not in names:
            raise ExportError(
                f"check: `input_shapes` must be of inputs of the model, {names}. "
                f"Received: {name!r}."
            )
    specs = [_input(value, shapes.get(value.name)) for value in values]
    if told and any(None in spec.shape[1:] for spec in specs):
        return _told(proto, specs)
    return specs


def _told(proto: onnx.ModelProto, specs: list[GraphInput]) -> list[GraphInput]:
    """Take the sizes that weights tell for those that are free."""
    try:
        model = ir.from_proto(proto)
        infer_shapes(model, lenient=True)
        graph = evaluate_constants(model, grown=True).graph
        tell_shapes(graph)
    except Exception:  # what cannot be followed tells nothing
        return specs
    shapes = {value.name: value.shape for value in graph.inputs if value.shape is not None}
    return [
        dataclasses.replace(
            spec,
            shape=tuple(
                size if own is None and isinstance(size, int) and size > 0 else own
                for own, size in zip(spec.shape, shapes[spec.name], strict=True)
            ),
        )
        if len(shapes.get(spec.name, ())) == len(spec.shape)
        else spec
        for spec in specs
    ]


def _input(value: onnx.ValueInfoProto, wanted: Sequence[int] | None) -> GraphInput:
    type_ = value.type.tensor_type
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(type_.elem_type))
    except (KeyError, TypeError):
        dtype = np.dtype(object)
    if dtype.kind not in "fiub":
        raise ExportError(
            f"check: input {value.name!r} must be a tensor of numbers that NumPy's files hold. "
            f"Received: {'a tensor' if value.type.HasField('tensor_type') else 'another type'} of "
            f"{dtype.name}. Cast it in the file from float32 or int64."
        )
    if not type_.HasField("shape") and wanted is None:
        raise ExportError(
            f"check: input {value.name!r} must be of known rank. Received: an input without a "
            f"shape. Give its sizes, and no samples: --input-shape {value.name}=1x3x224x224."
        )
    # Paddle's exporter writes -1 for a size that is free.
    sizes = [d.dim_value if d.HasField("dim_value") else -1 for d in type_.shape.dim]
    sizes = sizes if type_.HasField("shape") else [-1] * len(wanted or ())
    shape = tuple(None if size < 0 else size for size in sizes)
    if wanted is not None:
        fits = len(wanted) == len(shape) and all(
            size > 0 and free in (None, size) for size, free in zip(wanted, shape, strict=True)
        )
        if not fits:
            raise ExportError(
                f"check: `input_shapes` must fit input {value.name!r} of shape {list(shape)}. "
                f"Received: {list(wanted)}."
            )
        shape = tuple(wanted)
    return GraphInput(value.name, shape, _DType(dtype))


def distributions_of_graph(
    proto: onnx.ModelProto,
    specs: Sequence[GraphInput],
    ranges: Mapping[str, tuple[float, float]],
    otherwise: tuple[float, float] | None,
) -> list[Distribution]:
    """Return what to draw for each input.

    Args:
        proto: The model.
        specs: Its inputs.
        ranges: Smallest and largest value of some inputs, by name.
        otherwise: Likewise of other floats, instead of normal ones.

    Raises:
        ExportError: If `ranges` names something else, or does not fit the dtype.
    """
    by_name = {spec.name: spec for spec in specs}
    for name, limits in ranges.items():
        if name not in by_name:
            raise ExportError(
                f"check: `ranges` must be of inputs of the model, {list(by_name)}. "
                f"Received: {name!r}."
            )
        require_limits(name, limits, by_name[name].dtype)
    return [
        uniform(spec, ranges[spec.name], ", as stated")
        if spec.name in ranges
        else _inferred(proto, spec, otherwise)
        for spec in specs
    ]


def _inferred(
    proto: onnx.ModelProto, spec: GraphInput, otherwise: tuple[float, float] | None
) -> Distribution:
    dtype = spec.dtype.as_numpy_dtype
    if dtype.kind == "f":
        if otherwise is not None:
            return uniform(spec, otherwise)
        return Distribution(dtype, 0.0, 1.0, True, False, "normal, mean 0 and deviation 1")
    if dtype.kind == "b":
        return Distribution(dtype, 0.5, 0.5, False, True, "False or True")
    tables = list(_tables(proto.graph, spec.name))
    largest = max(min(tables) - 1, 0) if tables else 255 if dtype == np.uint8 else 1
    because = ", the indices of the table that reads them" if tables else ""
    largest = min(largest, int(np.iinfo(dtype).max))
    why = f"whole numbers from 0 to {largest}{because}"
    return Distribution(dtype, largest / 2, largest / 2, False, True, why)


def _tables(graph: onnx.GraphProto, name: str) -> Iterator[int]:
    """Yield the sizes of the constants that are taken from by indices of this name."""
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    names = {name}
    for node in graph.node:
        if node.op_type in MOVING and node.input[0] in names:
            names.add(node.output[0])
        if node.op_type == "Gather" and node.input[1] in names and sizes.get(node.input[0]):
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            yield sizes[node.input[0]][axis]
