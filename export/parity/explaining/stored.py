"""What a file stores, beside a fresh export of the same model -> a fault, or none.

Samples show little of a large table, nothing of a weight that meets only zeros, and nothing of a
bound that no value reaches; weights, operators and attributes themselves show it. Only a file by
the same versions can be asked: others may store other weights. Operators are compared where a file
has the same inputs and the same nodes, by name, so that it was exported with the same options and
not rewritten by another tool since.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir

from ...graph.layer_paths import LayerPaths
from ..measure import errors_of, scale_of
from ..report import Fault
from ..rule import FLOOR

__all__ = ["fault_of_content"]

PLAIN = frozenset(  # types of attributes that no rounding on another machine changes
    {
        ir.AttributeType.FLOAT,
        ir.AttributeType.INT,
        ir.AttributeType.INTS,
        ir.AttributeType.STRING,
    }
)


def fault_of_content(model: keras.Model, path: Path, right: Path, sentence: str) -> Fault | None:
    """Return a fault that names what differs first; None if all agree.

    Args:
        model: The model.
        path: The file.
        right: The same model, exported anew. Weights in other dtypes or shapes are not compared.
        sentence: What the fault says first.
    """
    found, fresh = (ir.load(file).graph for file in (path, right))
    for name, what in _differences(found, fresh):
        known = LayerPaths(model).layers()
        layers = tuple(layer for layer in (name, name.rpartition("/")[0]) if layer in known)[:1]
        detail = f"{sentence}. On the samples it agrees, but {what} of the fresh export."
        return Fault("file", layers, name, detail)
    return None


def _differences(found: ir.Graph, fresh: ir.Graph) -> Iterator[tuple[str, str]]:
    """Yield the name of each weight or operator that differs, and in what."""
    for name, value in found.initializers.items():
        if name in fresh.initializers:
            yield from _of_constants(name, value, fresh.initializers[name])
    twins = {node.name: node for node in fresh}
    if _skeleton(found) != _skeleton(fresh) or len(twins) < len(fresh):
        return
    for node in found:
        twin, name = twins[node.name], str(node.name)
        if node.op_type != twin.op_type:
            yield name, f"operator {name!r} is {node.op_type} instead of the {twin.op_type}"
            continue
        for key in node.attributes.keys() | twin.attributes.keys():
            if _attribute(node, key) != _attribute(twin, key):
                yield name, f"attribute {key!r} of operator {name!r} differs from that"
        for given, wanted in itertools.zip_longest(node.inputs, twin.inputs):
            if given is not None and wanted is not None:
                for _, what in _of_constants(str(given.name), given, wanted, whole=True):
                    yield name, what
            elif given is not wanted:
                yield name, f"operator {name!r} has more or fewer inputs than that"


def _attribute(node: Any, key: str) -> object:
    """Return a plain attribute, or what ONNX takes where it is left out; None for any other."""
    found = node.attributes.get(key)
    if found is not None:
        return found.value if found.type in PLAIN else None
    try:
        version = node.graph.opset_imports[node.domain]
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        default = schema.attributes[key].default_value
    except (onnx.defs.SchemaError, KeyError):  # an operator of another domain
        return None
    return ir.serde.deserialize_attribute(default).value if default.name else None


def _skeleton(graph: ir.Graph) -> tuple[object, object]:
    """Return what the inputs are, and the names of all nodes."""
    inputs = [(value.name, value.dtype, str(value.shape)) for value in graph.inputs]
    return inputs, sorted(str(node.name) for node in graph)


def _of_constants(
    name: str, value: ir.Value, right: ir.Value, *, whole: bool = False
) -> Iterator[tuple[str, str]]:
    """Compare floats and, if `whole`, integers, which are sizes in a file with other options."""
    if value.const_value is None or right.const_value is None:
        return
    found, truth = value.const_value.numpy(), right.const_value.numpy()
    if found.dtype != truth.dtype or found.shape != truth.shape:
        return
    if whole and found.dtype.kind in "iub" and not np.array_equal(found, truth):
        yield name, f"weight {name!r} differs from that"
    if found.dtype.kind != "f":
        return
    error = errors_of(truth, found, scale_of(truth)).max
    if error > FLOOR * np.finfo(found.dtype).eps:  # more than rounding explains
        yield name, f"weight {name!r} differs by {error:.1e} of its scale from that"
