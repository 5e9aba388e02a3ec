"""NHWC -> NCHW: move Transposes down the graph until they meet their inverse and cancel.

Keras keeps the channels last, ONNX convolutions want them second, so tf2onnx puts a Transpose
before and behind each of them. Three rules remove those between two convolutions:

    Transpose(Transpose(x, p), q)  =  Transpose(x, p[q]), nothing if that is the identity
    f(Transpose(x, p), ...)        =  Transpose(f(x, ...), p)       f elementwise
    Reduce(Transpose(x, p), axes)  =  Transpose(Reduce(x, p[axes]), the order left over)

A Transpose moves only where it cannot multiply: when nothing else reads it. Operators that carry
an axis of their own (Softmax, Concat, Pad, ...) are left as they are.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import IdentityEliminationPass, RemoveUnusedNodesPass

from .constants import constant, is_constant, rearranged
from .naming import Names

__all__ = ["cancel_transposes"]

ELEMENTWISE = frozenset(
    """Abs Add Cast Ceil Clip Div Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Log Max
    Min Mish Mul Neg Pow Reciprocal Relu Round Selu Sigmoid Sign Softplus Softsign Sqrt Sub Sum Tanh
    ThresholdedRelu Where""".split()
)
REDUCE = frozenset({"ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"})

Permutation = tuple[int, ...]


def cancel_transposes(model: ir.Model) -> ir.Model:
    """Remove the Transposes that cancel, and Identities.

    Args:
        model: Any graph; stays unchanged.

    Returns:
        A new model with the same inputs, outputs and results, and never more Transposes.
    """
    model = model.clone()
    IdentityEliminationPass()(model)
    graph, names = model.graph, Names.of(model.graph)
    for node in list(graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Transpose":
            _merge(graph, node)
        elif node.op_type in ELEMENTWISE and len(node.outputs) == 1:
            _move_below_elementwise(graph, node, names)
        elif node.op_type in REDUCE:
            _move_below_reduction(graph, node, names)
    RemoveUnusedNodesPass()(model)
    return model


def _permutation(value: ir.Value | None) -> Permutation | None:
    """Return the permutation of the Transpose that produces a value, or None."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Transpose" or node.domain not in ("", "ai.onnx"):
        return None
    perm = node.attributes.get("perm")
    return tuple(perm.as_ints()) if perm is not None else None


def _inverse(perm: Permutation) -> Permutation:
    return tuple(int(axis) for axis in np.argsort(perm))


def _merge(graph: ir.Graph, node: ir.Node) -> None:
    """Transpose(Transpose(x, p), q) = Transpose(x, p[q])."""
    inner, outer = _permutation(node.inputs[0]), _permutation(node.outputs[0])
    if inner is None or outer is None:
        return
    source = node.inputs[0].producer().inputs[0]  # type: ignore[union-attr]
    merged = tuple(inner[axis] for axis in outer)
    if merged != tuple(range(len(merged))):
        node.replace_input_with(0, source)
        node.attributes["perm"] = ir.AttrInt64s("perm", merged)
    elif not node.outputs[0].is_graph_output() and source is not None:
        node.outputs[0].replace_all_uses_with(source)
        graph.remove(node, safe=True)


def _move_below_elementwise(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    """f(Transpose(x, p), ...) = Transpose(f(x, ...), p)."""
    perms = {_permutation(value) for value in node.inputs if not is_constant(value) and value}
    if len(perms) != 1:
        return
    perm = perms.pop()
    if perm is None or not all(value is None or _is_movable(value, node) for value in node.inputs):
        return
    if any(
        value and is_constant(value) and len(value.shape or ()) > len(perm) for value in node.inputs
    ):
        return
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        if is_constant(value):
            node.replace_input_with(index, _permuted_constant(graph, value, perm, names))
        else:
            node.replace_input_with(index, value.producer().inputs[0])  # type: ignore[union-attr]
    _transpose_output(graph, node, perm, names)


def _move_below_reduction(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    """Reduce(Transpose(x, p), axes) = Transpose(Reduce(x, p[axes]), the order left over)."""
    data = node.inputs[0]
    perm = _permutation(data)
    if perm is None or data is None or not _is_movable(data, node) or len(node.inputs) != 2:
        return
    axes_value = node.inputs[1]
    if axes_value is None or not is_constant(axes_value) or axes_value.const_value is None:
        return
    axes = [int(axis) % len(perm) for axis in axes_value.const_value.numpy().ravel()]
    if not axes:
        return
    keepdims = node.attributes.get("keepdims")
    moved = sorted(perm[axis] for axis in axes)
    value = constant(names.new(f"{node.name}/axes"), ir.tensor(np.array(moved, np.int64)))
    graph.register_initializer(value)
    node.replace_input_with(0, data.producer().inputs[0])  # type: ignore[union-attr]
    node.replace_input_with(1, value)
    if keepdims is None or keepdims.as_int():
        _transpose_output(graph, node, perm, names)
        return
    left = [axis for i, axis in enumerate(perm) if i not in axes]
    order = tuple(sorted(left).index(axis) for axis in left)
    if order != tuple(range(len(order))):
        _transpose_output(graph, node, order, names)


def _is_movable(value: ir.Value, reader: ir.Node) -> bool:
    """Say whether a Transpose disappears once `reader` bypasses it; constants always do."""
    if is_constant(value):
        return True
    only_reader = all(use.node is reader for use in value.uses())
    return only_reader and not value.is_graph_output()


def _permuted_constant(
    graph: ir.Graph, value: ir.Value, perm: Permutation, names: Names
) -> ir.Value:
    """Return c' such that Transpose(c', perm) broadcasts as c does."""
    tensor = value.const_value
    if tensor is None or tensor.size == 1:
        return value
    full = (1,) * (len(perm) - len(tensor.shape)) + tuple(tensor.shape.numpy())
    moved = rearranged(tensor, lambda array: array.reshape(full).transpose(_inverse(perm)))
    permuted = constant(names.new(f"{value.name}/channels_first"), moved)
    permuted.meta.update(value.meta)
    graph.register_initializer(permuted)
    return permuted


def _transpose_output(graph: ir.Graph, node: ir.Node, perm: Sequence[int], names: Names) -> None:
    """Append a Transpose that gives the readers of `node` what they read before."""
    output = node.outputs[0]
    transpose = ir.node("Transpose", [output], {"perm": list(perm)}, name=f"{node.name}/transpose")
    below = transpose.outputs[0]
    below.type, below.shape = output.type, output.shape
    for use in list(output.uses()):
        if use.node is not transpose:
            use.node.replace_input_with(use.idx, below)
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = below
    below.name, output.name = output.name, names.new(f"{output.name}/nchw")
    if output.shape is not None:
        output.shape = ir.Shape(output.shape[axis] for axis in _inverse(tuple(perm)))
    graph.insert_after(node, transpose)
