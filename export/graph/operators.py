"""ONNX's own operators, as against those of other domains."""

from collections import Counter

import onnx_ir as ir

__all__ = ["STANDARD", "count_operators", "is_onnx", "is_standard"]

STANDARD = frozenset({"", "ai.onnx"})

HOLDING_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def is_onnx(node: ir.Node) -> bool:
    """Say whether a node is of the standard operator set."""
    return node.domain in STANDARD


def count_operators(graph: ir.Graph) -> dict[str, int]:
    """Return how many nodes of each type a graph has, and the graphs within it."""
    return dict(sorted(Counter(node.op_type for node in graph.all_nodes()).items()))


def is_standard(node: ir.Node) -> bool:
    """Say whether a node is ONNX's own and holds no graph."""
    return is_onnx(node) and node.op_type not in HOLDING_GRAPHS
