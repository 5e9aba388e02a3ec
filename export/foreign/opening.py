"""A model from a stranger, in any of three forms -> an onnx_ir.Model, or one clear error.

    a path              read as binary protobuf; weights in other files stay there
    onnx.ModelProto     its weights must be in it
    onnx_ir.Model       taken as it is

Some things onnx_ir cannot hold: sparse tensors, types that are maps, and training information. A
model with one of those is opened without it, to be looked at, and `Opened.lost` says so.
"""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ..errors import ExportError, Origin, invalid_model, one_line
from ..files.paths import require_file, require_no_keras_file
from ..files.wire import LARGEST_FILE
from ..graph.onnx_inference import captured_logs
from .soundness import require_sound, require_unique_names
from .weight_files import external_tensors

__all__ = ["Opened", "open_model"]

MAPS, SPARSE, TRAINING = "types that are maps", "sparse tensors", "training information"


@dataclass(frozen=True)
class Opened:
    """A model that was found to be sound.

    Attributes:
        model: The model, but for what is lost.
        lost: What is in the given one and not here, in words.
        source: What it came from.
    """

    model: ir.Model
    lost: tuple[str, ...]
    source: Origin

    @property
    def inputs(self) -> list[ir.Value]:
        """The inputs of the graph that have no constant for when they are not given."""
        graph = self.model.graph
        return [value for value in graph.inputs if value.name not in graph.initializers]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs of the graph."""
        return [str(value.name) for value in self.model.graph.outputs]


def open_model(
    model: onnx.ModelProto | ir.Model | str | os.PathLike[str], *, where: str = "fold"
) -> Opened:
    """Open a model and see that it is sound.

    Args:
        model: A path, an `onnx.ModelProto` or an `onnx_ir.Model`; stays unchanged.
        where: The command or function that opens it, for the errors.

    Raises:
        TypeError: If it is something else.
        ExportError: If it cannot be read, is no ONNX model, or is not sound.
    """
    if isinstance(model, ir.Model):
        opened = Opened(model, (), Origin("an onnx_ir.Model", where))
    elif isinstance(model, onnx.ModelProto):
        opened = _from_proto(model, Origin("an onnx.ModelProto", where), None)
    elif isinstance(model, str | os.PathLike):
        path = Path(model)
        source = Origin(repr(str(path)), where)
        opened = _from_proto(_read(path, source), source, path.absolute().parent)
    else:
        raise TypeError(
            f"{where}: the model must be a path, an onnx.ModelProto or an onnx_ir.Model. "
            f"Received: {type(model).__name__}."
        )
    require_sound(opened.model, opened.source, complete=not opened.lost)
    return opened


def _read(path: Path, source: Origin) -> onnx.ModelProto:
    require_file(path, "The ONNX model")
    require_no_keras_file(path, f"{source.where}: the model")
    try:
        size = path.stat().st_size
        if not 0 < size <= LARGEST_FILE:
            raise invalid_model(source, f"it has {size:,} bytes")
        proto: onnx.ModelProto = onnx.ModelProto.FromString(path.read_bytes())
        return proto
    except OSError as e:
        raise invalid_model(source, e.strerror or str(e)) from e
    except DecodeError as e:
        raise invalid_model(source, "it is truncated, or no ONNX file") from e


def _from_proto(proto: onnx.ModelProto, source: Origin, folder: Path | None) -> Opened:
    if not proto.HasField("graph"):
        raise invalid_model(source, "it holds no graph")
    require_unique_names(proto, source)
    lost = _lost(proto)
    try:
        with captured_logs(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of keys that onnx does not know
            model = ir.from_proto(_without_lost(proto) if lost else proto)
    except Exception as e:  # onnx_ir wraps whatever a broken model makes it stumble over
        raise invalid_model(source, one_line(_first_cause(e))) from e
    external = external_tensors(model)
    if external and folder is None:
        raise ExportError(
            f"{source.where}: the weights of an onnx.ModelProto must be in it. "
            f"Received: one with weights in {os.fspath(external[0].location)!r}. "
            "Pass the file's path, or load it with its data."
        )
    for tensor in external:
        tensor.base_dir = str(folder)
    return Opened(model, lost, source)


def _first_cause(error: BaseException) -> Exception:
    while before := error.__cause__ or error.__context__:
        error = before
    return error if isinstance(error, Exception) else Exception(str(error))


def _lost(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Return what onnx_ir would lose or refuse."""
    lost = {TRAINING} if proto.training_info else set()
    for graph in _graphs(proto):
        if graph.sparse_initializer:
            lost.add(SPARSE)
        values = (graph.input, graph.output, graph.value_info)
        if any(_has_map(value.type) for group in values for value in group):
            lost.add(MAPS)
    if any(_is_sparse(a) for node in _nodes(proto) for a in node.attribute):
        lost.add(SPARSE)
    return tuple(sorted(lost))


def _without_lost(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without that."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.training_info[:]
    for graph in _graphs(copy):
        del graph.sparse_initializer[:]
        for group in (graph.input, graph.output, graph.value_info):
            for value in group:
                if _has_map(value.type):
                    value.ClearField("type")
    for node in _nodes(copy):
        for i in reversed(range(len(node.attribute))):
            if _is_sparse(node.attribute[i]):
                del node.attribute[i]
    return copy


def _graphs(proto: onnx.ModelProto) -> list[onnx.GraphProto]:
    """Return the main graph and all within it and within functions."""
    graphs = [proto.graph]
    graphs += [g for function in proto.functions for node in function.node for g in _bodies(node)]
    for graph in graphs:  # which grows
        graphs += [body for node in graph.node for body in _bodies(node)]
    return graphs


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for group in (*_graphs(proto), *proto.functions):
        yield from group.node


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return bodies + [graph for attribute in node.attribute for graph in attribute.graphs]


def _is_sparse(attribute: onnx.AttributeProto) -> bool:
    return attribute.HasField("sparse_tensor") or len(attribute.sparse_tensors) > 0


def _has_map(type_: onnx.TypeProto) -> bool:
    """Say whether a type is a map, or a sequence or optional of one."""
    kind = type_.WhichOneof("value")
    if kind in ("sequence_type", "optional_type"):
        return _has_map(getattr(type_, kind).elem_type)
    return bool(kind == "map_type")
