"""What an export is made with and run on if nothing else is said. Imports nothing."""

__all__ = ["CPU", "DEFAULT_OPSET", "OPSETS"]

OPSETS = range(13, 19)  # 18 is the newest that tf2onnx 1.17 converts to
DEFAULT_OPSET = 18
CPU = "CPUExecutionProvider"
