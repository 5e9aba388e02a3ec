"""The tensors inside an ONNX file that leave the operators of one Keras layer.

An operator belongs to the layer whose path its name begins with, as in this package's files, or
whose scope it stands in, as in those of tf2onnx. A tensor leaves a layer if an operator of another
reads it, or if it is an output of the graph; it holds what the layer returns, or what a layer
behind it returns that was folded into it. From what is wrong in a file, the way back leads along
these tensors to those that it comes from.
"""

import dataclasses
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import keras
import onnx

from ...graph.layer_paths import LayerPaths
from ...runtime.session import LEVELS, OnnxRuntime, Run, with_outputs
from ..ancestry import nearest

__all__ = ["Tap", "Taps", "first_wrong", "known_before"]


@dataclasses.dataclass(frozen=True)
class Tap:
    """A tensor that leaves a layer's operators.

    Attributes:
        value: Its name.
        layer: Path of the layer.
        before: Names of the taps, and of inputs of the graph, that it is computed from, with no
            other tap in between.
    """

    value: str
    layer: str
    before: frozenset[str]


class Taps:
    """A file, and the tensors in it that leave layers.

    Args:
        path: The file.
        model: The Keras model.

    Attributes:
        taps: The tensors, by name, in the file's order.
        ends: For each output of the graph that is no tap, the taps that it is computed from.
        outputs: Names of the graph's outputs.
        transposed: Layers of which nothing is left but Transposes.
    """

    def __init__(self, path: Path, model: keras.Model) -> None:
        self._folder = path.absolute().parent
        self._proto = onnx.load(path, load_external_data=False)
        graph = self._proto.graph
        layers = _layers_of_nodes(graph.node, model)
        operators = list(zip(graph.node, layers, strict=True))
        self.transposed = {layer for node, layer in operators if node.op_type == "Transpose"}
        self.transposed -= {layer for node, layer in operators if node.op_type != "Transpose"}
        self.outputs = [value.name for value in graph.output]
        outputs = set(self.outputs)
        readers: dict[str, set[str | None]] = {}
        for node, layer in operators:
            for name in _read_by(node):
                readers.setdefault(name, set()).add(layer)
        self.taps: dict[str, Tap] = {}
        origins = {value.name: frozenset([value.name]) for value in graph.input}
        for node, layer in operators:
            sources = [origins[name] for name in _read_by(node) if name in origins]
            before: frozenset[str] = frozenset().union(*sources)
            for name in filter(None, node.output):
                leaves = name in outputs or bool(readers.get(name, set()) - {layer})
                if layer is not None and leaves:
                    self.taps[name] = Tap(name, layer, before)
                    origins[name] = frozenset([name])
                else:
                    origins[name] = before
        self.ends = {name: origins.get(name, frozenset()) for name in outputs - set(self.taps)}

    def runner(self, values: Sequence[str], inputs: list[str]) -> Run:
        """Return a function that computes some taps, with ONNX Runtime's optimisations off.

        Args:
            values: Names of the taps.
            inputs: Names of the inputs, in the order of the arrays to come.
        """
        content = with_outputs(self._proto, values)
        return OnnxRuntime(content, LEVELS[0], folder=self._folder).runner(inputs, list(values))

    def before(self, value: str) -> frozenset[str]:
        """Return the taps, and inputs of the graph, that one is computed from."""
        return self.taps[value].before if value in self.taps else frozenset()


def first_wrong(taps: Taps, known: set[str], bad: set[str], wrong: Set[str]) -> set[str]:
    """Return the bad tensors, among wrong ones and before them, that are computed from no other.

    Args:
        taps: The tensors of a file.
        known: Names of those that were compared.
        bad: Names of those that are not as they should be.
        wrong: Names of tensors, or outputs of the graph, to begin with.
    """
    stack = [value for value in known_before(taps, known, wrong) if value in bad]
    reached, first = set(stack), set()
    while stack:
        value = stack.pop()
        sources = nearest(taps.before(value), taps.before, known) & bad
        if not sources:
            first.add(value)
        stack.extend(sources - reached)
        reached |= sources
    return first


def known_before(taps: Taps, known: set[str], wrong: Set[str]) -> set[str]:
    """Return the known tensors that wrong ones are, or are computed from.

    Args:
        taps: The tensors of a file.
        known: Names of those that were compared.
        wrong: Names of tensors, or outputs of the graph, to begin with.
    """
    ends = [taps.ends.get(name, frozenset([name])) for name in wrong]
    return {value for end in ends for value in nearest(end, taps.before, known)}


def _layers_of_nodes(nodes: Any, model: keras.Model) -> list[str | None]:
    """Return the path of each operator's layer; None where it is of no layer."""
    paths = LayerPaths(model)
    known = set(paths.layers())
    found: list[str | None] = []
    for node in nodes:
        name = str(node.name)
        own = name
        while own and own not in known:
            own = own.rpartition("/")[0]
        scoped = paths.of(name) if not own else None
        found.append(own or (scoped if scoped in known else None))
    return found


def _read_by(node: Any) -> list[str]:
    """Return the names of all tensors that an operator reads, those in its bodies among them."""
    names = list(node.input)
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in body.node:
                names += _read_by(inner)
    return names
