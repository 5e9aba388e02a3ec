"""TensorFlow's graph -> ONNX, by tf2onnx; what it cannot convert is named by operator and layer."""

import re
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
import tensorflow as tf
import tf2onnx.utils
from tf2onnx.tf_utils import TF_TO_ONNX_DTYPE
from tf2onnx.tfonnx import process_tf_graph

from ...errors import ExportError
from ...graph.layer_paths import LayerPaths
from ...graph.onnx_inference import captured_logs
from .channels_first import CHANNELS_FIRST, add_along_the_last_axis
from .conversions import HANDLERS
from .resizing import RESIZING

__all__ = ["require_dtypes", "to_onnx"]

# How tf2onnx names an operator in what it raises and logs: its type and its name.
FAILED = re.compile(r"OP=(\w+)(?:\s|\\n)+Name=([^\s\\']+)")
UNSUPPORTED = re.compile(r"op \[([^\s:\]]+): (\w+)\] is not supported")
MOST = 4  # operators that a message names
REPLACE = "Replace that layer, or compute it outside."
RESIZE = "Say to which size to resize, or resize outside."
ADVICE = {
    "Random": "It draws random numbers, as layers do that are called with `training=True`: call it "
    "without, or draw them outside.",
    "ResizeArea": RESIZE,
    "ResizeBicubic": RESIZE,
}


def require_dtypes(graph: Any, layers: LayerPaths, *, allow_bfloat16: bool) -> None:
    """Raise `ExportError` if a graph computes in a dtype that a file could not.

    Args:
        graph: TensorFlow's graph.
        layers: The layers of the model.
        allow_bfloat16: Whether bfloat16 is no obstacle.
    """
    half = []
    for operation in graph.get_operations():
        for tensor in operation.outputs:
            if tensor.dtype == tf.bfloat16:
                half.append(operation.name)
            elif tensor.dtype.as_datatype_enum not in TF_TO_ONNX_DTYPE:
                raise ExportError(
                    "export: the model must compute in dtypes that ONNX Runtime computes in. "
                    f"Received: {tensor.dtype.name} in layer {_layer(layers, operation.name)!r}. "
                    "Export the model as it was before it was quantized to that dtype, or build it "
                    "in float32."
                )
    if half and not allow_bfloat16:
        first = max(half, key=lambda name: name.count("/"))  # in a layer, not in the model
        raise ExportError(
            "export: `precision` must be 'float32' or 'float16' for a model that computes in "
            f"bfloat16, which ONNX Runtime does not on a CPU. Received: precision='keep' and layer "
            f"{_layer(layers, first)!r}, in bfloat16."
        )


def to_onnx(
    name: str,
    definition: Any,
    inputs: list[Any],
    outputs: list[Any],
    layers: LayerPaths,
    opset: int,
) -> Any:
    """Convert a graph without weights.

    Args:
        name: What the graph says of itself.
        definition: The `GraphDef`.
        inputs: Its inputs, tensors of those names.
        outputs: Its outputs.
        layers: The layers of the model.
        opset: Version of ONNX's operators.

    Returns:
        An `onnx.ModelProto`.

    Raises:
        ExportError: If an operator cannot be converted; the text names it and its layer.
    """
    with tf.Graph().as_default() as graph, captured_logs() as messages:
        add_along_the_last_axis(definition)
        tf.import_graph_def(definition, name="")
        # tf2onnx numbers its names through a process and sorts nodes by them: start anew, so that
        # the same model becomes the same file whatever was exported before.
        tf2onnx.utils.INTERNAL_NAME = 1
        try:
            proto = process_tf_graph(
                graph,
                opset=opset,
                custom_op_handlers=HANDLERS | RESIZING | CHANNELS_FIRST,
                input_names=[tensor.name for tensor in inputs],
                output_names=[tensor.name for tensor in outputs],
            ).make_model(name)
        except Exception as e:  # tf2onnx raises whatever its handlers meet
            raise _not_convertible(name, layers, _named(messages, e), type(e).__name__) from e
    # tf2onnx only logs an operator that it does not know, and leaves it in the graph.
    unknown = [(n.op_type, n.name) for n in _all_nodes(proto.graph) if not _is_onnx(n)]
    if unknown:
        raise _not_convertible(name, layers, unknown)
    return proto


def _named(messages: Iterable[str], error: BaseException) -> list[tuple[str, str]]:
    """Return type and name of the operators that tf2onnx says it failed on."""
    text = "\n".join([*messages, str(error)])
    found = FAILED.findall(text) + [(kind, name) for name, kind in UNSUPPORTED.findall(text)]
    if not found:  # then the handler that failed had one in its hands
        for frame, _ in traceback.walk_tb(error.__traceback__):
            node: Any = frame.f_locals.get("node")
            if isinstance(getattr(node, "type", None), str) and hasattr(node, "name"):
                found = [(node.type, str(node.name))]
    return found


def _layer(layers: LayerPaths, name: str) -> str:
    return layers.of(name) or name


def _not_convertible(
    model: str, layers: LayerPaths, operators: list[tuple[str, str]], failure: str = ""
) -> ExportError:
    found = sorted({f"TensorFlow's {kind} in layer {_layer(layers, n)!r}" for kind, n in operators})
    if len(found) > MOST:
        found[MOST:] = [f"{len(found) - MOST} more"]
    said = ", ".join(found) or f"a graph that ends the conversion in {failure}"
    advice = next((text for part, text in ADVICE.items() if part in said), REPLACE)
    return ExportError(
        "export: every TensorFlow operator of the model must have an ONNX equivalent. "
        f"Received: model {model!r}: {said}. {advice}"
    )


def _all_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g)


def _is_onnx(node: Any) -> bool:
    return node.domain not in ("", "ai.onnx") or onnx.defs.has(node.op_type)
