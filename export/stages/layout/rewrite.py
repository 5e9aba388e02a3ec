"""Carry out a choice of layouts, in place and in one walk down the graph.

Every tensor is kept in the layouts in which it exists so far; a reader that wants another one gets
it from a Transpose (or, if only dimensions of size 1 move, from a Reshape), made once for all
readers. The Transposes of the source are views: none survives as it was.
"""

from collections.abc import MutableSequence

import numpy as np
import onnx_ir as ir

from ...graph.exact import constant, is_constant, rearranged
from ...graph.names import Names
from ...graph.operators import is_onnx
from .move import Arrangement, Move
from .permutation import Layout, Permutation, Shuffled, compose, inverse, order, units
from .views import Views

__all__ = ["rewrite"]

SUFFIX = "/nchw"


def rewrite(graph: ir.Graph, views: Views, moves: dict[ir.Node, Move], names: Names) -> None:
    """Run each node of `moves` in its other layout and put in the Transposes that this leaves.

    Args:
        graph: The graph of `views`; changes in place.
        views: What its Transposes are views of.
        moves: The nodes to move.
        names: The names taken in the graph.
    """
    rewriter = _Rewriter(graph, views, moves, names)
    for node in list(graph):
        rewriter.visit(node)
    graph.remove(rewriter.dropped, safe=True)


class _Rewriter:
    def __init__(
        self, graph: ir.Graph, views: Views, moves: dict[ir.Node, Move], names: Names
    ) -> None:
        self._graph, self._views, self._moves, self._names = graph, views, moves, names
        self._stored: dict[ir.Value, dict[Layout, ir.Value]] = {}
        self._made: dict[object, ir.Value] = {}  # constants and unsqueezed tensors, made once
        self._outputs: dict[ir.Value, list[tuple[MutableSequence[ir.Value], int]]] = {}
        for outputs in (g.outputs for g in (graph, *graph.subgraphs())):
            for index, output in enumerate(outputs):
                self._outputs.setdefault(output, []).append((outputs, index))
        self._at: ir.Node  # new nodes go before this one
        self.dropped: dict[ir.Node, None] = {}

    def visit(self, node: ir.Node) -> None:
        self._at = node
        if node not in self._views.transposes and node not in self._moves:
            self._keep(node)
            return
        self.dropped[node] = None
        if node in self._moves:
            self._move(node, self._moves[node])
        for output in node.outputs:
            if output in self._views.pinned:
                self._restore(output)

    def _keep(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if value is None or is_constant(value):
                continue
            stored = self._get(value, None)
            if stored is not value:
                node.replace_input_with(index, stored)

    def _move(self, node: ir.Node, move: Move) -> None:
        attributes = {} if move.op_type else dict(node.attributes)
        attributes.update({attribute.name: attribute for attribute in move.attributes})
        new = ir.Node(
            node.domain,
            move.op_type or node.op_type,
            self._inputs(node, move),
            attributes,
            num_outputs=len(node.outputs),
            name=node.name,
            doc_string=node.doc_string,
            metadata_props=dict(node.metadata_props),
        )
        new.meta.update(node.meta)
        self._insert(new)
        for old, output, layout in zip(node.outputs, new.outputs, move.outputs, strict=True):
            if move.picked is not None:
                output = self._pick(old, output, move.picked)
            self._describe(output, old, layout)
            output.name = self._new_name(old.name) if old.name else old.name
            self._stored[old] = {layout: output}

    def _inputs(self, node: ir.Node, move: Move) -> list[ir.Value | None]:
        inputs: list[ir.Value | None] = []
        for index, value in enumerate(node.inputs):
            if value is None or is_constant(value) or index in move.constants:
                inputs.append(value)
                continue
            stored = self._get(value, move.inputs[index])
            if index in move.unsqueezed:
                stored = self._unsqueeze(stored, move.unsqueezed[index])
            inputs.append(stored)
        for index, new in move.constants.items():
            inputs += [None] * (index + 1 - len(inputs))
            old = inputs[index]
            if isinstance(new, Arrangement):
                inputs[index] = None if old is None else self._arranged(old, new)
            else:
                inputs[index] = self._listed(old, new, f"{node.outputs[0].name}/axes")
        return inputs

    def _get(self, value: ir.Value, layout: Layout | None) -> ir.Value:
        """Return a tensor as stored in a layout, from what there is of it already."""
        root, _ = self._views.root(value)
        found = self._stored.setdefault(root, {self._views.root(root)[1]: root})
        wanted = self._views.of_root(value, layout)
        if wanted not in found:
            found[wanted] = self._undone(root, found, wanted) or self._rearranged(
                value, root, found, wanted
            )
        return found[wanted]

    def _undone(
        self, root: ir.Value, found: dict[Layout, ir.Value], wanted: Layout
    ) -> ir.Value | None:
        """Return what a Reshape read, if it only moved dimensions of size 1 from there."""
        layout, stored = next(iter(found.items()))
        before = stored.producer()
        if before is None or not _is_reshape(before) or root.shape is None:
            return None
        if isinstance(wanted, Shuffled) or isinstance(layout, Shuffled):
            return None
        data, ones = before.inputs[0], units(root.shape)
        sizes = [root.shape[axis] for axis in wanted]
        if sum(not isinstance(size, int) for size in sizes) > 1 or is_constant(data):
            return None
        same = order(layout, ones) == order(wanted, ones)
        return data if same and data is not None and data.shape == sizes else None

    def _rearranged(
        self, value: ir.Value, root: ir.Value, found: dict[Layout, ir.Value], wanted: Layout
    ) -> ir.Value:
        new = self._reorder(root, found, wanted)  # type: ignore[arg-type]
        self._describe(new, root, wanted)
        is_natural = wanted == self._views.root(value)[1]
        if is_natural and value.producer() in self.dropped and value.name:
            new.name, value.name = value.name, None
        else:
            new.name = self._new_name(value.name)
        return new

    def _reorder(
        self, root: ir.Value, found: dict[Layout, ir.Value], wanted: Permutation
    ) -> ir.Value:
        """Put in the Transpose or Reshape that gives one layout from another."""
        ones = units(root.shape)
        for layout, source in found.items():
            if not isinstance(layout, Shuffled) and order(layout, ones) == order(wanted, ones):
                return self._shift_ones(root, source, layout, wanted)
        layout, source = next(iter(found.items()))
        perm = compose(inverse(layout), wanted)  # type: ignore[arg-type]
        return self._insert(ir.node("Transpose", [source], {"perm": list(perm)}))

    def _shift_ones(
        self, root: ir.Value, source: ir.Value, layout: Permutation, wanted: Permutation
    ) -> ir.Value:
        """Move dimensions of size 1: by a Reshape if its shape is known but for one dimension."""
        shape: ir.Shape = root.shape  # type: ignore[assignment]
        sizes = [size if isinstance(size, int) else -1 for size in (shape[a] for a in wanted)]
        if sizes.count(-1) <= 1 and 0 not in sizes:
            before = source.producer()
            if before is not None and _is_reshape(before):
                source = before.inputs[0] or source
            target = self._listed(None, tuple(sizes), f"{root.name}/shape")
            return self._insert(ir.node("Reshape", [source, target]))
        ones = units(shape)
        axes = tuple(i for i, axis in enumerate(layout) if axis in ones)
        removed = self._listed(None, axes, f"{root.name}/axes")
        squeezed = self._insert(ir.node("Squeeze", [source, removed]))
        squeezed.name = self._new_name(root.name)
        squeezed.type = root.type
        squeezed.shape = ir.Shape([shape[axis] for axis in order(wanted, ones)])
        axes = tuple(i for i, axis in enumerate(wanted) if axis in ones)
        added = self._listed(None, axes, f"{root.name}/axes")
        return self._insert(ir.node("Unsqueeze", [squeezed, added]))

    def _unsqueeze(self, value: ir.Value, axes: tuple[int, ...]) -> ir.Value:
        key = (value, axes)
        if key not in self._made:
            new = self._insert(
                ir.node("Unsqueeze", [value, self._listed(None, axes, f"{value.name}/axes")])
            )
            new.name, new.type = self._names.new(f"{value.name}/unsqueezed"), value.type
            sizes = list(value.shape or ())
            for axis in axes:
                sizes.insert(axis, 1)
            new.shape = ir.Shape(sizes)
            self._made[key] = new
        return self._made[key]

    def _pick(self, old: ir.Value, shape: ir.Value, indices: tuple[int, ...]) -> ir.Value:
        """Return the elements of a one-dimensional tensor, such as a shape, in another order."""
        self._describe(shape, old, (0,))
        shape.name = self._new_name(old.name)
        listed = self._listed(None, indices, f"{old.name}/axes")
        return self._insert(ir.node("Gather", [shape, listed]))

    def _restore(self, value: ir.Value) -> None:
        """Give what reads a dropped tensor from outside the list of nodes the same tensor."""
        new = self._get(value, None)
        places = self._outputs.get(value, [])
        if places and value.name:  # else `new` has the name already
            if new.is_graph_output() or new.is_graph_input():
                new = self._insert(ir.node("Identity", [new]))
            name, value.name = value.name, None
            new.name = name
        if places:
            new.type, new.shape = value.type, value.shape
            new.meta.update(value.meta)
        for outputs, index in places:
            outputs[index] = new
        for reader, index in value.uses():
            if reader.graph is not self._graph:
                reader.replace_input_with(index, new)

    def _insert(self, node: ir.Node) -> ir.Value:
        if not node.name:
            name = node.inputs[0].name if node.inputs[0] is not None else ""
            node.name = self._names.new(f"{name}/{node.op_type}")
        self._graph.insert_before(self._at, node)
        return node.outputs[0]

    def _describe(self, new: ir.Value, old: ir.Value, layout: Layout) -> None:
        new.type = old.type
        new.meta.update(old.meta)
        new.metadata_props.update(old.metadata_props)
        shape = old.shape
        if shape is not None and not isinstance(layout, Shuffled):
            new.shape = ir.Shape([shape[axis] for axis in layout])
        elif shape is not None:
            new.shape = shape.copy()

    def _new_name(self, name: str | None) -> str:
        return self._names.new(str(name).removesuffix(SUFFIX) + SUFFIX)

    def _arranged(self, value: ir.Value, how: Arrangement) -> ir.Value:
        key = (value, how)
        tensor = value.const_value
        if tensor is None or (key in self._made):
            return self._made[key]

        def move(array: np.ndarray) -> np.ndarray:
            moved = array.reshape(how.shape)
            moved = moved.transpose(how.perm)
            return moved if how.final is None else moved.reshape(how.final)

        new = constant(self._new_name(value.name), rearranged(tensor, move))
        new.meta.update(value.meta)
        self._graph.register_initializer(new)
        self._made[key] = new
        return new

    def _listed(self, old: ir.Value | None, elements: tuple[float, ...], where: str) -> ir.Value:
        """Return a constant list in place of `old`, in its dtype and rank, else as int64."""
        before = old.const_value if old is not None else None
        array = np.array(elements, np.int64 if before is None else before.numpy().dtype)
        if before is not None and not before.shape.dims:
            array = array.reshape(())
        key = (array.tobytes(), array.dtype, array.shape)
        if key not in self._made:
            name = self._new_name(old.name) if old is not None else self._names.new(where)
            self._made[key] = constant(name, ir.tensor(array))
            self._graph.register_initializer(self._made[key])
        return self._made[key]


def _is_reshape(node: ir.Node | None) -> bool:
    return node is not None and node.op_type == "Reshape" and is_onnx(node)
