"""What weights and attributes tell of shapes that are not known otherwise.

Behind an operator of another domain, or a Reshape whose target is computed from data, nothing is
known of a tensor. But what reads it does not run unless

    Conv, ConvTranspose     the rank is that of the kernel, and the channels those that it reads
    Gemm                    the rank is 2
    LSTM, GRU, RNN          the rank is 3, and the features are those that the kernel reads
    MaxPool, AveragePool    the rank is that of the window and 2
    Transpose               the rank is that of its permutation
    MatMul by a matrix      the features are its rows; the rank stays
    Reshape                 the rank is the number of elements of its target

and what such an operator makes is known likewise. An operator that keeps the shape, or the rank,
hands this on from its output to its input; from inputs to outputs, `KnownShapes` does. Only what
runs whenever the tensor is made tells something of it: readers in the same graph.
"""

from collections.abc import Callable, Iterator, Sequence

import onnx_ir as ir

from ...graph.exact import is_constant
from ...graph.families import REDUCING
from ...graph.operators import is_standard
from .editor import Editor
from .shapes.inference import known_shapes
from .shapes.rules import SAME_SHAPE

__all__ = ["tell_shapes"]

MOST_ROUNDS = 8
Sizes = Sequence[int | ir.SymbolicDim | None]
Told = Iterator[tuple[ir.Value | None, Sizes | None]]

POOLS = ("AveragePool", "LpPool", "MaxPool")
RECURRENT = ("GRU", "LSTM", "RNN")
SELECTING = frozenset({"ArgMax", "ArgMin"})
SAME_RANK = frozenset("Concat CumSum Pad Resize Slice Split Tile Upsample".split())


def tell_shapes(graph: ir.Graph, *, inputs: bool = True) -> bool:
    """Declare, in place, whatever is known of the shapes in a graph; not of those within it.

    Args:
        graph: A graph whose nodes are in topological order and whose constants are evaluated;
            all of them are needed for an output, so that they run.
        inputs: Whether the graph's inputs are told as well.

    Returns:
        Whether the weights and attributes told anything new.
    """
    told, kept = False, set[ir.Value]() if inputs else set(graph.inputs)
    for _ in range(MOST_ROUNDS):
        changed = False
        for node in reversed(graph):
            if is_standard(node):
                for value, sizes in _told(node):
                    if value not in kept:
                        changed |= _declare(value, sizes, graph)
        Editor(graph, known_shapes(graph)).declare_shapes()
        told |= changed
        if not changed:
            break
    return told


def _declare(value: ir.Value | None, sizes: Sizes | None, graph: ir.Graph) -> bool:
    """Note sizes of a value, unless more is known already; return whether that is new."""
    if value is None or sizes is None or is_constant(value) or _graph_of(value) is not graph:
        return False
    old = value.shape
    if old is None:
        value.shape = ir.Shape(sizes)
        return True
    if len(old) != len(sizes):
        return False
    new = [
        told if isinstance(told, int) and not isinstance(own, int) else own
        for own, told in zip(old, sizes, strict=True)
    ]
    if new == list(old):
        return False
    value.shape = ir.Shape(new)
    return True


def _graph_of(value: ir.Value) -> ir.Graph | ir.Function | None:
    producer = value.producer()
    return value.graph if producer is None else producer.graph


def _told(node: ir.Node) -> Told:
    """Yield what a node tells of its inputs and outputs."""
    rule = _RULES.get(node.op_type)
    if rule is not None and len(node.inputs) > 0:
        yield from rule(node)
    if node.op_type in SAME_SHAPE:
        yield node.inputs[0], _sizes(node.outputs[0])
    elif node.op_type in SAME_RANK or (
        node.op_type in SELECTING | REDUCING and node.attributes.get_int("keepdims", 1) != 0
    ):
        yield from _same_rank(node)


def _same_rank(node: ir.Node) -> Told:
    inputs = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    tensors = [value for value in (*inputs, *node.outputs) if value is not None]
    known = (_sizes(value) for value in tensors)
    rank = next((len(sizes) for sizes in known if sizes is not None), None)
    if rank is not None:
        for value in tensors:
            yield value, [None] * rank


def _convolution(node: ir.Node) -> Told:
    weight, group = _weight(node, 1), node.attributes.get_int("group", 1)
    if weight is None or len(weight) < 3:
        return
    read, made = (0, 1) if node.op_type == "ConvTranspose" else (1, 0)
    channels = {read: weight[read], made: weight[made]}
    channels[1] *= group  # axis 1 of either kernel holds one group's
    spatial = [None] * (len(weight) - 2)
    yield node.inputs[0], [None, channels[read], *spatial]
    yield node.outputs[0], [None, channels[made], *spatial]


def _gemm(node: ir.Node) -> Told:
    turned = [node.attributes.get_int(name, 0) for name in ("transA", "transB")]
    shapes = []
    for i in (0, 1):
        weight = _weight(node, i)
        rows, columns = weight if weight is not None and len(weight) == 2 else (None, None)
        shapes.append((columns, rows) if turned[i] else (rows, columns))
    (rows, inner), (also_inner, columns) = shapes
    inner = inner if also_inner is None else also_inner
    yield node.inputs[0], (inner, rows) if turned[0] else (rows, inner)
    yield node.inputs[1], (columns, inner) if turned[1] else (inner, columns)
    yield node.outputs[0], (rows, columns)


def _matmul(node: ir.Node) -> Told:
    weight, sizes, made = _weight(node, 1), _sizes(node.inputs[0]), _sizes(node.outputs[0])
    if weight is None or len(weight) != 2:
        return
    rank = len(sizes or made or ())
    if rank:
        yield node.inputs[0], [None] * (rank - 1) + [weight[0]]
        yield node.outputs[0], [None] * (rank - 1) + [weight[1]]


def _recurrent(node: ir.Node) -> Told:
    weight = _weight(node, 1)
    if weight is not None and len(weight) == 3:
        yield node.inputs[0], (None, None, weight[2])


def _pool(node: ir.Node) -> Told:
    rank = 2 + len(node.attributes.get_ints("kernel_shape", ()))
    sizes, made = _sizes(node.inputs[0]), _sizes(node.outputs[0])
    if rank > 2:
        yield node.inputs[0], _first_two(made, rank)
        yield node.outputs[0], _first_two(sizes, rank)


def _first_two(sizes: Sizes | None, rank: int) -> Sizes:
    return [*(sizes or (None, None))[:2], *[None] * (rank - 2)]


def _transpose(node: ir.Node) -> Told:
    perm = node.attributes.get_ints("perm", None)
    if perm is None or sorted(perm) != list(range(len(perm))):
        return
    made = _sizes(node.outputs[0]) or [None] * len(perm)
    if len(made) == len(perm):
        yield node.inputs[0], [made[perm.index(axis)] for axis in range(len(perm))]
    yield node.outputs[0], [None] * len(perm)


def _reshape(node: ir.Node) -> Told:
    target = _sizes(node.inputs[1]) if len(node.inputs) > 1 else None
    rank = target[0] if target is not None and len(target) == 1 else None
    if isinstance(rank, int):
        yield node.outputs[0], [None] * rank


def _prelu(node: ir.Node) -> Told:
    yield node.inputs[0], _sizes(node.outputs[0])


def _flatten(node: ir.Node) -> Told:
    yield node.outputs[0], (None, None)


def _blocks(node: ir.Node) -> Told:
    yield node.inputs[0], [None] * 4
    yield node.outputs[0], [None] * 4


def _normalization(node: ir.Node) -> Told:
    """Tell the channels, of a tensor whose rank is known."""
    scale, sizes = _weight(node, 1), _sizes(node.inputs[0])
    if scale is not None and len(scale) == 1 and sizes is not None and len(sizes) > 1:
        yield node.inputs[0], [None, scale[0], *[None] * (len(sizes) - 2)]


def _with_constant(node: ir.Node) -> Told:
    """Tell the rank of what is added to, or multiplied by, a constant of lower rank."""
    made = _sizes(node.outputs[0])
    for i, value in enumerate(node.inputs):
        weight = _weight(node, 1 - i) if len(node.inputs) == 2 else None
        if weight is not None and made is not None and len(weight) < len(made):
            padded = (1,) * (len(made) - len(weight)) + weight
            yield value, [n if w == 1 else None for n, w in zip(made, padded, strict=True)]


def _axes_of_one(node: ir.Node) -> Told:
    """Tell the rank of what loses or gets axes."""
    axes: Sequence[int] = node.attributes.get_ints("axes", ())
    operand = node.inputs[1] if len(node.inputs) > 1 else None
    if operand is not None and is_constant(operand) and operand.const_value is not None:
        axes = operand.const_value.numpy().ravel().tolist()
    made = _sizes(node.outputs[0])
    more = -len(axes) if node.op_type == "Unsqueeze" else len(axes)
    if axes and made is not None and len(made) + more >= 0:
        yield node.inputs[0], [None] * (len(made) + more)


def _sizes(value: ir.Value | None) -> Sizes | None:
    return None if value is None or value.shape is None else list(value.shape)


def _weight(node: ir.Node, index: int) -> tuple[int, ...] | None:
    """Return the shape of a constant input."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or not is_constant(value) or value.const_value is None:
        return None
    return tuple(value.const_value.shape.numpy())


_RULES: dict[str, Callable[[ir.Node], Told]] = {
    **dict.fromkeys(("Add", "Div", "Mul", "Sub"), _with_constant),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _normalization),
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _axes_of_one),
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(RECURRENT, _recurrent),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "PRelu": _prelu,
    "Reshape": _reshape,
    "Transpose": _transpose,
}
