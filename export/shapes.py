"""Shape and type inference by onnx, in place, without its log lines."""

import contextlib
import logging
import math
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

__all__ = ["captured_logs", "infer_shapes"]

LARGEST_FOLLOWED = 2**16  # elements


def infer_shapes(model: ir.Model, *, lenient: bool = False) -> None:
    """Fill in what onnx can infer; where it fails, shapes stay unknown and less is folded.

    Args:
        model: The model; changed.
        lenient: Go on behind an operator that is in error, instead of inferring nothing at all.
    """
    with captured_logs():
        ShapeInferencePass(
            check_type=not lenient,
            strict_mode=not lenient,
            data_prop=not _has_large_fill(model.graph),
        )(model)


def _has_large_fill(graph: ir.Graph) -> bool:
    """Say whether a ConstantOfShape makes a large tensor.

    onnx would follow it element by element to see whether it is a shape: gigabytes, and minutes.
    """
    for node in graph.all_nodes():
        if node.op_type != "ConstantOfShape" or not node.inputs or node.inputs[0] is None:
            continue
        maker = node.inputs[0].producer()
        tensor = node.inputs[0].const_value
        if tensor is None and maker is not None and maker.op_type == "Constant":
            attributes = [a for a in maker.attributes.values() if not a.is_ref()]
            tensor = ir.tensor(attributes[0].value) if attributes else None
        if tensor is not None and math.prod(map(int, tensor.numpy().ravel())) > LARGEST_FOLLOWED:
            return True
    return False


@contextlib.contextmanager
def captured_logs() -> Iterator[list[str]]:
    """Collect what libraries log as errors instead of printing it; leaves no handler behind.

    tf2onnx calls `logging.warning` on the root logger, which installs a handler for good.
    """
    messages: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    before = root.handlers
    root.handlers = [handler]
    try:
        yield messages
    finally:
        root.handlers = before
