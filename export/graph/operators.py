"""ONNX's own operators, as against those of other domains."""

import onnx_ir as ir

__all__ = ["STANDARD", "is_onnx", "is_standard"]

STANDARD = frozenset({"", "ai.onnx"})

HOLDING_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def is_onnx(node: ir.Node) -> bool:
    """Say whether a node is of the standard operator set."""
    return node.domain in STANDARD


def is_standard(node: ir.Node) -> bool:
    """Say whether a node is ONNX's own and holds no graph."""
    return is_onnx(node) and node.op_type not in HOLDING_GRAPHS
