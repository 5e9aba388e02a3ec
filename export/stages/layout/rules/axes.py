"""Rules for operators that name axes, or none: elementwise, reductions, Concat, Pad, Resize, ...

With the data stored as transpose(x, p), axis a of the original is axis p.index(a) of what is
stored; whatever names or lists axes is rewritten so, and the result is stored by p as well:

    f(transpose(x, p), transpose(c, p))           = transpose(f(x, c), p)        f elementwise
    reduce(transpose(x, p), [p.index(a), ...])    = transpose(reduce(x, [a, ...]), p)
    pad(transpose(x, p), [pads[a] for a in p])    = transpose(pad(x, pads), p)

Where axes disappear (keepdims=0, Squeeze, Gather with a scalar) the result keeps the order of those
left over. An operand of lower rank broadcasts against the last axes; stored by p, it needs axes of
size 1 between its own.
"""

import onnx_ir as ir

from ....graph.exact import is_constant
from ....graph.families import ELEMENTWISE, REDUCING
from ..move import Arrangement, Move, Rule, flag, numbers, rank_of
from ..permutation import Permutation, identity, insert, inverse, without

__all__ = ["RULES"]


def _elementwise(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    """Follow through an elementwise operator with any number of broadcast operands."""
    ranks = [rank_of(value) for value in node.inputs if value is not None]
    rank = rank_of(node.outputs[0])
    if rank is None or None in ranks or rank != max(r for r in ranks if r is not None):
        return None
    if node.op_type == "Dropout" and len(node.inputs) > 2:  # may draw random numbers
        return None
    missing = rank - len(layout)
    perm = (*range(missing), *(axis + missing for axis in layout))
    inputs: list[Permutation | None] = []
    constants: dict[int, Arrangement] = {}
    unsqueezed: dict[int, tuple[int, ...]] = {}
    for index, value in enumerate(node.inputs):
        inputs.append(None)
        if value is None or value.shape is None or all(size == 1 for size in value.shape):
            continue
        absent = rank - len(value.shape)
        if is_constant(value):
            constants[index] = Arrangement((1,) * absent + value.shape.numpy(), perm)
            continue
        own = [i for i, axis in enumerate(perm) if axis >= absent]
        inputs[index] = tuple(perm[i] - absent for i in own)
        first = own[0]  # axes of size 1 in front need not be written
        if between := tuple(i - first for i in range(first, rank) if perm[i] < absent):
            unsqueezed[index] = between
    outputs = (perm,) * len(node.outputs)
    return Move(tuple(inputs), outputs, constants=constants, unsqueezed=unsqueezed)


def _first(node: ir.Node, layout: Permutation) -> tuple[Permutation | None, ...]:
    """Return the layouts of the inputs if only the first one moves."""
    return (layout, *[None] * (len(node.inputs) - 1))


def _entry(node: ir.Node, at: int, layout: Permutation) -> tuple[int, Permutation] | None:
    """Return the rank of the first input and its layout, for an operator that keeps the axes."""
    rank = rank_of(node.inputs[0])
    return (rank, layout) if rank == len(layout) and at <= 0 else None


def _axis(node: ir.Node, default: int, rank: int) -> int:
    attribute = node.attributes.get("axis")
    return (default if attribute is None else attribute.as_int()) % rank


def _along(default: int) -> Rule:
    """Return the rule for operators that work along one axis, an attribute."""

    def rule(node: ir.Node, at: int, layout: Permutation) -> Move | None:
        if (entry := _entry(node, at, layout)) is None:
            return None
        axis = layout.index(_axis(node, default, entry[0]))
        outputs = (layout,) * len(node.outputs)
        return Move(_first(node, layout), outputs, (ir.AttrInt64("axis", axis),))

    return rule


def _concat(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    rank = len(layout)
    if any(rank_of(value) != rank for value in node.inputs):
        return None
    axis = ir.AttrInt64("axis", layout.index(_axis(node, 0, rank)))
    constants = {
        i: Arrangement(value.shape.numpy(), layout)
        for i, value in enumerate(node.inputs)
        if value is not None and value.shape is not None and is_constant(value)
    }
    inputs = tuple(None if i in constants else layout for i in range(len(node.inputs)))
    return Move(inputs, (layout,), (axis,), constants)


def _normalize_last(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    """LayerNormalization works on the last axes, which have to stay where they are."""
    if (entry := _entry(node, at, layout)) is None or len(node.outputs) > 1:
        return None
    rank, axis = entry[0], _axis(node, -1, entry[0])
    return Move(_first(node, layout), (layout,)) if layout[axis:] == identity(rank)[axis:] else None


def _reduce(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    listed = node.attributes.get("axes")
    axes = tuple(listed.as_ints()) if listed is not None else numbers(node, 1)
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        return None
    if not axes and flag(node, "noop_with_empty_axes", default=False):
        return None
    return _reduced(node, at, layout, axes or (), as_attribute=listed is not None)


def _select(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    """ArgMax and ArgMin: a reduction over one axis, an attribute."""
    rank = rank_of(node.inputs[0])
    if not rank:
        return None
    axis = _axis(node, 0, rank)
    move = _reduced(node, at, layout, (axis,), as_attribute=False)
    if move is None or not isinstance(perm := move.inputs[0], tuple):
        return None
    return Move(move.inputs, move.outputs, (ir.AttrInt64("axis", perm.index(axis)),))


def _reduced(
    node: ir.Node, at: int, layout: Permutation, axes: tuple[int, ...], *, as_attribute: bool
) -> Move | None:
    rank = rank_of(node.inputs[0])
    if not rank or at > 0:
        return None
    removed = {axis % rank for axis in axes} or set(range(rank))
    keepdims = flag(node, "keepdims", default=True)
    perm = layout if at == 0 or keepdims else insert(layout, removed, rank)
    moved = tuple(sorted(perm.index(axis) for axis in removed))
    return Move(
        _first(node, perm),
        (perm if keepdims else without(perm, removed),),
        (ir.AttrInt64s("axes", moved),) if axes and as_attribute else (),
        {1: moved} if axes and not as_attribute else {},
    )


def _squeeze(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    rank, axes = rank_of(node.inputs[0]), numbers(node, 1)
    if not rank or not axes:
        return None
    removed = {axis % rank for axis in axes}
    perm = layout if at == 0 else insert(layout, removed, rank)
    moved = tuple(sorted(perm.index(axis) for axis in removed))
    return Move((perm, None), (without(perm, removed),), constants={1: moved})


def _unsqueeze(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    rank, axes = rank_of(node.outputs[0]), numbers(node, 1)
    if not rank or not axes:
        return None
    added = {axis % rank for axis in axes}
    perm = layout if at < 0 else insert(layout, added, rank)
    moved = tuple(sorted(perm.index(axis) for axis in added))
    return Move((without(perm, added), None), (perm,), constants={1: moved})


def _gather(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    rank, picked = rank_of(node.inputs[0]), rank_of(node.inputs[1])
    if not rank or picked not in (0, 1) or at > 0 or is_constant(node.inputs[0]):
        return None
    axis = _axis(node, 0, rank)
    perm = layout if at == 0 or picked else insert(layout, {axis}, rank)
    output = perm if picked else without(perm, {axis})
    return Move((perm, None), (output,), (ir.AttrInt64("axis", perm.index(axis)),))


def _slice(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    entry, starts = _entry(node, at, layout), numbers(node, 1)
    axes = numbers(node, 3)
    if entry is None or (axes is None and (starts is None or len(node.inputs) > 3)):
        return None
    if axes is None:
        axes = tuple(range(len(starts or ())))
    moved = tuple(layout.index(axis % entry[0]) for axis in axes)
    return Move(_first(node, layout), (layout,), constants={3: moved})


def _pad(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    entry, pads, axes = _entry(node, at, layout), numbers(node, 1), numbers(node, 3)
    if entry is None:
        return None
    rank = entry[0]
    if axes is not None:
        moved = {3: tuple(layout.index(axis % rank) for axis in axes)}
    elif pads is not None and len(pads) == 2 * rank and len(node.inputs) <= 3:
        moved = {1: tuple(pads[axis + side] for side in (0, rank) for axis in layout)}
    else:
        return None
    return Move(_first(node, layout), (layout,), constants=moved)


def _tile(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    entry, repeats = _entry(node, at, layout), numbers(node, 1)
    if entry is None or repeats is None:
        return None
    moved = tuple(repeats[axis] for axis in layout)
    return Move((layout, None), (layout,), constants={1: moved})


def _expand(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    entry, shape = _entry(node, at, layout), numbers(node, 1)
    if entry is None or shape is None or len(shape) > entry[0]:
        return None
    full = (1,) * (entry[0] - len(shape)) + shape
    return Move((layout, None), (layout,), constants={1: tuple(full[axis] for axis in layout)})


def _cumulate(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    entry, axis = _entry(node, at, layout), numbers(node, 1)
    if entry is None or axis is None or len(axis) != 1:
        return None
    moved = layout.index(axis[0] % entry[0])
    return Move((layout, None), (layout,), constants={1: (moved,)})


def _resize(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    if (entry := _entry(node, at, layout)) is None:
        return None
    rank, listed = entry[0], node.attributes.get("axes")
    if listed is not None:
        axes = tuple(layout.index(axis % rank) for axis in listed.as_ints())
        return Move(_first(node, layout), (layout,), (ir.AttrInt64s("axes", axes),))
    constants: dict[int, tuple[float, ...]] = {}
    for index, value in enumerate(node.inputs):
        if index == 0 or value is None:
            continue
        if (old := numbers(node, index)) is None:
            return None
        if len(old) == rank:
            constants[index] = tuple(old[axis] for axis in layout)
        elif index == 1 and len(old) == 2 * rank:  # the region: all starts, then all ends
            constants[index] = tuple(old[axis + side] for side in (0, rank) for axis in layout)
        elif old:
            return None
    return Move(_first(node, layout), (layout,), constants=constants)


def _quantize(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    entry, scales = _entry(node, at, layout), node.inputs[1]
    if entry is None or scales is None or scales.shape is None or len(scales.shape) > 1:
        return None
    axis = layout.index(_axis(node, 1, entry[0])) if entry[0] > 1 else 0
    attributes = (ir.AttrInt64("axis", axis),) if len(scales.shape) == 1 else ()
    return Move(_first(node, layout), (layout,), attributes)


def _shape(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    """The shape of the original is that of what is stored, picked in the order of its axes."""
    if at != 0 or node.attributes.get("start") or node.attributes.get("end"):
        return None
    return Move((layout,), ((0,),), picked=inverse(layout))


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE | {"Dropout"}, _elementwise),
    **dict.fromkeys(REDUCING, _reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), _select),
    **dict.fromkeys(("Hardmax", "LogSoftmax", "LpNormalization", "Softmax", "TopK"), _along(-1)),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _quantize),
    "Concat": _concat,
    "CumSum": _cumulate,
    "Expand": _expand,
    "Gather": _gather,
    "LayerNormalization": _normalize_last,
    "Pad": _pad,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _along(0),
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Unsqueeze": _unsqueeze,
}
