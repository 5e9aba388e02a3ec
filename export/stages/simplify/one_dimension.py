"""Convolutions and pools over a length of one -> operators of one dimension less.

TensorFlow computes Conv1D, Conv1DTranspose, MaxPooling1D and AveragePooling1D in two dimensions,
the second of size 1:

    Squeeze(f(Unsqueeze(x, a)), a)  =  f'(x)

f is whatever does not mix positions along the axis a (`losing_an_axis.py`), f' is f without it.

The tensors with such an axis that are connected through such operators form a region. All of it
loses the axis, or nothing: when more Squeezes and Unsqueezes go than its borders then need.
"""

from collections import deque
from dataclasses import dataclass, field

import onnx_ir as ir

from ...graph.families import RESHAPING
from .editor import Editor
from .losing_an_axis import Lesser, axes_through, without_axis
from .reshaping import is_expressible
from .shapes.sizes import Shape

__all__ = ["drop_axes_of_one"]


@dataclass
class _Region:
    """Tensors, each with its axis of size 1, and the operators between them."""

    axes: dict[ir.Value, int] = field(default_factory=dict)
    nodes: set[ir.Node] = field(default_factory=set)
    is_possible: bool = True

    def holds(self, node: ir.Node | None) -> bool:
        return node in self.nodes


def drop_axes_of_one(editor: Editor) -> bool:
    """Take the axis of size 1 out of every region where that leaves fewer operators."""
    changed = False
    seen: set[ir.Value] = set()
    for node in editor.nodes("Squeeze", "Unsqueeze"):
        value = node.inputs[0] if node.op_type == "Squeeze" else node.outputs[0]
        axes, shape = editor.known.axes(node), editor.known.shape(value)
        if value is None or value in seen or shape is None or axes is None or len(axes) != 1:
            continue
        axis = axes[0] % len(shape)
        if shape[axis] != 1:
            continue
        region = _grow(editor, value, axis)
        seen |= region.axes.keys()
        if region.is_possible and region.nodes and _gain(editor, region) > 0:
            _convert(editor, region)
            changed = True
    return changed


def _grow(editor: Editor, value: ir.Value, axis: int) -> _Region:
    """Collect what is connected with a tensor through operators that do not mix its axis."""
    region = _Region()
    pending = deque([(value, axis)])
    while pending:
        value, axis = pending.popleft()
        if value in region.axes:
            region.is_possible &= region.axes[value] == axis
            continue
        region.axes[value] = axis
        around = [use.node for use in value.uses()]
        if (producer := value.producer()) is not None:
            around.append(producer)
        for node in around:
            tensors = axes_through(editor, node, value, axis)
            if tensors is not None:
                region.nodes.add(node)
                pending.extend(tensors)
    return region


def _gain(editor: Editor, region: _Region) -> int:
    """Return how many operators fewer there are without the axis."""
    gain = 0
    for value, axis in region.axes.items():
        readers = {use.node for use in value.uses()}
        outside = [node for node in readers if not region.holds(node)]
        lesser = _lesser(editor, value, axis)
        if not region.holds(value.producer()):
            gain += _gain_at_entrance(editor, value, lesser, bool(outside))
            continue
        needed = value.is_graph_output()
        for node in outside:
            result = _reshaped(editor, node, lesser)
            gain += result == lesser
            needed |= result is None
        gain -= needed
    return gain


def _gain_at_entrance(editor: Editor, value: ir.Value, lesser: Shape, stays: bool) -> int:
    before = editor.producer(value, *RESHAPING)
    source = editor.known.shape(before.inputs[0]) if before is not None else None
    stays |= value.is_graph_output()
    if source is None or not is_expressible(source, lesser):
        return -1  # a Squeeze
    if source == lesser:
        return 0 if stays else 1
    return -1 if stays else 0


def _reshaped(editor: Editor, node: ir.Node, lesser: Shape) -> Shape | None:
    """Return what a node makes of a tensor if it could make it of the lesser one as well."""
    if editor.producer(node.outputs[0], *RESHAPING) is not node:
        return None
    result = editor.known.shape(node.outputs[0])
    return result if result is not None and is_expressible(lesser, result) else None


def _lesser(editor: Editor, value: ir.Value, axis: int) -> Shape:
    shape = editor.known.shape(value) or ()
    return shape[:axis] + shape[axis + 1 :]


def _convert(editor: Editor, region: _Region) -> None:
    """Rebuild a region without the axis; Squeezes enter it, Unsqueezes leave it.

    Those that stand beside another one merge with it afterwards (`merge_reshapes`).
    """
    lesser = Lesser()
    nodes = [node for node in editor.graph if region.holds(node)]
    for node in nodes:
        for value in node.inputs:
            if value is not None and value in region.axes and value not in lesser.tensors:
                lesser.tensors[value] = _squeeze(editor, node, value, region.axes[value])
        output = node.outputs[0]
        lesser.tensors[output] = without_axis(editor, node, region.axes[output], lesser)
    for node in reversed(nodes):
        output = node.outputs[0]
        if output.is_graph_output() or any(not region.holds(u.node) for u in output.uses()):
            name, axis = f"{output.name}/axes", region.axes[output]
            axes = editor.integers(name, [axis])
            editor.replace(node, "Unsqueeze", [lesser.of(output), axes])
        else:
            editor.graph.remove(node, safe=True)


def _squeeze(editor: Editor, before: ir.Node, value: ir.Value, axis: int) -> ir.Value:
    axes = editor.integers(f"{value.name}/axes", [axis])
    shape, name = _lesser(editor, value, axis), f"{value.name}/squeezed"
    return editor.insert(before, "Squeeze", [value, axes], None, shape, name)
