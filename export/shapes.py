"""Shape and type inference by onnx, in place, without its log lines."""

import contextlib
import logging
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

__all__ = ["captured_logs", "infer_shapes"]


def infer_shapes(model: ir.Model) -> None:
    """Fill in what onnx can infer; where it fails, shapes stay unknown and less is folded."""
    with captured_logs():
        ShapeInferencePass()(model)


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
