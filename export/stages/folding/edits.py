"""Edits of a graph that are planned first, checked, and made all at once.

An edit gives a node another operator, other constants or other attributes; its name, its output
and its place stay. A constant that others read too is copied, never edited.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...graph.exact import ExactTensor, constant, is_constant
from ...graph.names import Names
from .reason import NotExactError, Reason

__all__ = ["LOST_BITS", "Edit", "New", "Writer", "least_normal", "trimmed"]

LOST_BITS = 2  # that a weight may lose where it becomes smaller than its dtype's normal numbers


@dataclass(frozen=True)
class New:
    """A constant to be made.

    Attributes:
        tensor: Its value.
        like: The constant that it takes the place and name of; None if there is none.
        hint: Its name otherwise, numbered if that is taken.
        axes: Those along which each slice of it has been scaled by a number of its own.
    """

    tensor: ExactTensor
    like: ir.Value | None
    hint: str
    axes: tuple[int, ...] = ()

    def require_exact(self) -> None:
        """Require that rounding to the dtype loses nothing that matters.

        Raises:
            NotExactError: If an element is not finite, or if a whole slice along one of `axes`
                shrinks so far that its largest element loses more than `LOST_BITS` bits.
        """
        what = f"{self.like.name if self.like else self.hint} in {self.tensor.dtype.name}"
        if not self.tensor.is_finite():
            raise NotExactError(Reason.NOT_FINITE, what)
        least = least_normal(self.tensor.dtype) * 2.0**-LOST_BITS
        for axis in self.axes:
            peaks = _peaks(self.tensor, axis)
            lost = (peaks > 0) & (peaks < least)
            if lost.any() and not self._was_as_small(axis, peaks):
                raise NotExactError(Reason.BITS_LOST, f"{what}: {peaks[lost].min():.3g}")

    def _was_as_small(self, axis: int, peaks: np.ndarray) -> bool:
        """Say whether no slice has shrunk: a dead channel may be that small in the file."""
        before = None if self.like is None else self.like.const_value
        if before is None or before.shape != self.tensor.shape:
            return False
        return bool((peaks >= _peaks(ExactTensor.of(before), axis)).all())


def _peaks(tensor: ExactTensor, axis: int) -> np.ndarray:
    if tensor.ndim == 0:
        return np.array([abs(float(tensor.exact))])
    peaks: np.ndarray = tensor.with_dtype(ir.DataType.DOUBLE).peaks(axis)
    return peaks


def least_normal(dtype: ir.DataType) -> float:
    """Return the smallest normal number of a floating-point dtype."""
    if dtype is ir.DataType.BFLOAT16:
        dtype = ir.DataType.FLOAT  # of the same exponents
    return float(np.finfo(dtype.numpy()).tiny)


def trimmed(array: np.ndarray) -> np.ndarray:
    """Return an operand without leading axes of size 1, as broadcasting restores them."""
    first = next((axis for axis, n in enumerate(array.shape) if n > 1), array.ndim)
    return array.reshape(array.shape[first:])


@dataclass(frozen=True)
class Edit:
    """What becomes of a node.

    Attributes:
        node: The node.
        op_type: Its operator from now on.
        inputs: What it reads from now on.
        attributes: Its attributes from now on; of the same operator, those that change.
        added: What an Add behind it adds to its output from now on; None if there is none.
    """

    node: ir.Node
    op_type: str
    inputs: tuple["ir.Value | New | None", ...]
    attributes: Mapping[str, ir.Attr] = field(default_factory=dict)
    added: New | None = None

    def require_exact(self) -> None:
        """Require that no constant loses anything that matters; see `New.require_exact`."""
        for value in (*self.inputs, self.added):
            if isinstance(value, New):
                value.require_exact()


class Writer:
    """Makes edits in a graph.

    Args:
        graph: The graph that the nodes are in.
        names: The names taken in it and in the graphs around and inside it.
    """

    def __init__(self, graph: ir.Graph, names: Names) -> None:
        self.graph, self._names = graph, names

    def make(self, edit: Edit) -> ir.Node | None:
        """Make an edit; return the Add behind the node, if it gets one."""
        node = edit.node
        old = list(node.inputs)
        for index in range(len(old)):
            node.replace_input_with(index, None)
        node.resize_inputs(len(edit.inputs))
        for index, value in enumerate(edit.inputs):  # what stays first: it keeps its name
            if not isinstance(value, New):
                node.replace_input_with(index, value)
        for index, value in enumerate(edit.inputs):
            if isinstance(value, New):
                node.replace_input_with(index, self._constant(value))
        if edit.op_type != node.op_type:
            node.op_type = edit.op_type
            node.attributes.clear()
        node.attributes.update(edit.attributes)
        self._drop_unused(old)
        return None if edit.added is None else self._add(node, edit.added)

    def _add(self, node: ir.Node, added: New) -> ir.Node:
        """Put an Add behind a node; whoever read its output reads the sum."""
        output = node.outputs[0]
        add = ir.node("Add", [output, self._constant(added)], name=self._names.new(added.hint))
        total = add.outputs[0]
        total.name = self._names.new(f"{output.name}/sum")
        total.type, total.shape = output.type, output.shape
        is_output = output.is_graph_output()
        output.replace_all_uses_with(total, replace_graph_outputs=True)
        if is_output:
            output.name, total.name = total.name, output.name
            total.metadata_props.update(output.metadata_props)
        add.replace_input_with(0, output)
        self.graph.insert_after(node, add)
        return add

    def release(self, node: ir.Node) -> None:
        """Take the constants from an operator that is to go, so that others can have their names.

        Args:
            node: The operator; it keeps what is no constant.
        """
        operands = [value for value in node.inputs if is_constant(value)]
        for index, value in enumerate(node.inputs):
            if is_constant(value):
                node.replace_input_with(index, None)
        self._drop_unused(operands)

    def _constant(self, value: New) -> ir.Value:
        like = value.like
        if like is not None and not like.uses():
            self._drop_unused([like])
        wanted = value.hint if like is None else str(like.name)
        new = constant(self._names.new(wanted), value.tensor)
        if like is not None:
            new.meta.update(like.meta)
        self.graph.initializers[str(new.name)] = new
        return new

    def _drop_unused(self, values: Iterable[ir.Value | None]) -> None:
        for value in values:
            if value is None or not is_constant(value) or not value.is_initializer():
                continue
            if value.uses() or value.is_graph_output() or value.graph is None:
                continue
            del value.graph.initializers[str(value.name)]  # it may be of a graph around this one
            self._names.release(str(value.name))
