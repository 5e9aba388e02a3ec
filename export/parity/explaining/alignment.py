"""A file and a fresh export of the same model -> the file under the names of the export.

Keras numbers layers by what was made before them in the process, so that a model that is built
again may call its layers otherwise than its file does. Where the two graphs are the same but for
names, the fresh one with the weights and attributes of the file stands for it.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from ...files.onnx_file import write
from ...graph.bodies import holds_graph

__all__ = ["aligned"]


def aligned(path: Path, right: Path, folder: Path, metadata: Mapping[str, str]) -> Path | None:
    """Return a file whose nodes have the names of a fresh export.

    Args:
        path: The file.
        right: The fresh export.
        folder: Where to write what is not there yet.
        metadata: Metadata of what is written.

    Returns:
        `path` itself if its names are those of the export, or some nodes more or fewer; None if
        they are others and the graphs are not the same, or have loops.
    """
    found, fresh = ir.load(path), ir.load(right)
    twins = _twins(found.graph, fresh.graph)
    names, known = ([node.name for node in model.graph] for model in (found, fresh))
    if twins is None:
        return path if set(names) <= set(known) or set(known) <= set(names) else None
    if names == known:
        return path
    for value, twin in twins.items():
        if value.is_initializer():
            twin.const_value, twin.type, twin.shape = value.const_value, value.type, value.shape
    for node, other in zip(found.graph, fresh.graph, strict=True):
        other.attributes.clear()
        other.attributes.update(node.attributes)
    target = folder / "aligned.onnx"
    write(fresh, target, external_data=True, metadata=dict(metadata))
    return target


def _twins(found: ir.Graph, fresh: ir.Graph) -> dict[ir.Value, ir.Value] | None:
    """Return the value of a graph for each of another; None if they are not the same graph."""
    ends = [(found.inputs, fresh.inputs), (found.outputs, fresh.outputs)]
    if len(found) != len(fresh) or any(len(mine) != len(its) for mine, its in ends):
        return None
    twins = dict(zip(found.inputs, fresh.inputs, strict=True))
    for node, other in zip(found, fresh, strict=True):
        if _kind(node) != _kind(other) or holds_graph(node):
            return None
        for value, twin in zip(node.inputs, other.inputs, strict=True):
            if value is None or twin is None:
                if value is not twin:
                    return None
            elif value.is_initializer() and twin.is_initializer():
                twins.setdefault(value, twin)
            if value is not None and twins.get(value) is not twin:
                return None
        twins.update(zip(node.outputs, other.outputs, strict=True))
    alike = all(twins.get(v) is t for v, t in zip(found.outputs, fresh.outputs, strict=True))
    return twins if alike and len(set(twins.values())) == len(twins) else None


def _kind(node: ir.Node) -> tuple[object, ...]:
    return node.domain, node.op_type, len(node.inputs), len(node.outputs)
