"""ONNX's own operators, as against those of other domains."""

import onnx_ir as ir

__all__ = ["STANDARD", "is_onnx"]

STANDARD = frozenset({"", "ai.onnx"})


def is_onnx(node: ir.Node) -> bool:
    """Say whether a node is of the standard operator set."""
    return node.domain in STANDARD
