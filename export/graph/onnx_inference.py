"""Shape and type inference by onnx, in place, without its log lines."""

import contextlib
import logging
import math
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

__all__ = ["captured_logs", "infer_shapes"]

LARGEST_FOLLOWED = 2**16  # elements
LARGEST_RANK = 64
NUMBERS = (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE)


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
            data_prop=not _makes_large_tensor(model.graph),
        )(model)


def _makes_large_tensor(graph: ir.Graph) -> bool:
    """Say whether a ConstantOfShape, a Range or joined integers are large.

    onnx would follow them element by element to see whether they are a shape: gigabytes, and
    minutes.
    """
    followed: dict[ir.Value, float] = {}  # at most how many elements
    for node in graph.all_nodes():
        inputs = [_elements(value) for value in node.inputs]
        read = [value for value in node.inputs if value is not None]
        sizes = [followed.get(value, len(_elements(value) or ())) for value in read]
        size: float = sum(sizes) if node.op_type == "Concat" else max(sizes, default=0)
        if node.op_type == "Shape":
            size = LARGEST_RANK
        if inputs and all(inputs):
            size = max(size, _made_by(node, [elements for elements in inputs if elements]))
        if size > LARGEST_FOLLOWED:
            return True
        followed.update(dict.fromkeys(node.outputs, size))
    return False


def _made_by(node: ir.Node, inputs: list[list[float]]) -> float:
    """Return how many elements an operator makes of values that are known; 0 for most."""
    if node.op_type == "ConstantOfShape":
        return math.prod(inputs[0])
    if node.op_type == "Range" and len(inputs) == 3:
        start, limit, step = (elements[0] for elements in inputs)
        return (limit - start) / step if step else 0
    return 0


def _elements(value: ir.Value | None) -> list[float] | None:
    """Return the elements of a weight or of what a Constant makes; None if they are not known."""
    if value is None:
        return None
    maker, tensor = value.producer(), value.const_value
    if tensor is None and maker is not None and maker.op_type == "Constant":
        attributes = [a for a in maker.attributes.values() if not a.is_ref()]
        tensor = ir.tensor(attributes[0].value) if attributes else None
    if tensor is None or tensor.dtype not in NUMBERS or tensor.size > LARGEST_RANK:
        return None
    return [float(element) for element in tensor.numpy().ravel()]


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
