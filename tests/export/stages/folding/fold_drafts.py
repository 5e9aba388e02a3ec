"""A graph under way, for the tests of the fold: the builder of random graphs with more operators.

It evaluates each node at once, so that what a graph computes is known when it is finished.
"""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from tests.export.random_graphs import LARGEST, RandomGraph, _Builder
from tests.export.stages.folding.fold_reference import captured, run_node

LIMIT = 1e4  # no tensor holds larger numbers


class Draft(_Builder):
    """Nodes, constants and the values of all tensors in float64."""

    def __init__(self, rng, opset=18):
        super().__init__(rng, opset)
        self.inputs, self.wide = [], set()  # wide: those that are float64 in the graph, too

    def input(self, *shape):
        """Add a graph input with random values; return its name."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(name)
        self.values[name] = np.float64(np.float32(self.rng.normal(size=shape)))
        return name

    def indices(self, size, *shape):
        """Add a graph input of integers below `size`."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(name)
        self.values[name] = self.rng.integers(0, size, shape)
        return name

    def nodes_of(self, op_type, *inputs, results=1, **attributes):
        """Append a node with several outputs if it fits; return their names, or None."""
        if None in inputs:
            return None
        self.count += 1
        outputs = [f"v{self.count}" if i == 0 else f"v{self.count}_{i}" for i in range(results)]
        node = helper.make_node(op_type, inputs, outputs, name=f"n{self.count}", **attributes)
        feeds = {name: self._array(name) for name in (*inputs, *captured(node)) if name}
        arrays = run_node(node, feeds, self.opset)
        if not all(self._fits(array) for array in arrays):
            return None
        self.nodes.append(node)
        self.values.update(zip(outputs, arrays, strict=True))
        return outputs

    def node(self, op_type, *inputs, **attributes):
        """Append a node if its result is finite and not large; return its output, or None."""
        outputs = self.nodes_of(op_type, *inputs, **attributes)
        return outputs and outputs[0]

    @staticmethod
    def _fits(array):
        if not 0 < array.size <= LARGEST or array.dtype.kind != "f":
            return 0 < array.size <= LARGEST
        return bool(np.isfinite(array).all() and np.abs(array).max() <= LIMIT)

    def floats(self):
        """Return the names of the float32 tensors."""
        wide = self.wide
        return [
            n for n, array in self.values.items() if array.dtype == np.float64 and n not in wide
        ]

    def reduce(self, op_type, x, *axes, keepdims=1):
        """Append a Reduce operator, whose axes are an input or an attribute."""
        if self.opset >= 18 or op_type == "ReduceSum":
            return self.node(op_type, x, self.integers(*axes), keepdims=keepdims)
        return self.node(op_type, x, axes=list(axes), keepdims=keepdims)

    def split(self, x, axis, *sizes):
        """Append a Split; return the parts."""
        return self.nodes_of("Split", x, self.integers(*sizes), results=len(sizes), axis=axis)

    def finish(self, *outputs, dynamic=False, inferred=True, vague=False, overridable=()):
        """Return the graph.

        Args:
            outputs: Names of its outputs.
            dynamic: Whether the first dimension of its inputs has only a name.
            inferred: Whether the shapes of the tensors in it are known.
            vague: Whether the sizes of the outputs are not declared, be they known or not.
            overridable: Names of constants that are inputs, too, so that a caller may replace them.
        """
        read = {name for node in self.nodes for name in (*node.input, *captured(node))}
        used = [name for name in self.inputs if name in read]

        def described(name, shape):
            kinds = {"f": TensorProto.FLOAT, "i": TensorProto.INT64}
            return helper.make_tensor_value_info(name, kinds[self.values[name].dtype.kind], shape)

        def first(name):
            return ["N"] if dynamic and name in self.inputs else list(self.shape(name)[:1])

        graph = helper.make_graph(
            self.nodes,
            "draft",
            [described(name, [*first(name), *self.shape(name)[1:]]) for name in used],
            [described(name, [None] * self.values[name].ndim) for name in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.constants.items() if n in read],
        )
        for name in overridable:
            array = self.constants[name]
            if name in read:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        imports = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8)
        declared = list(model.graph.output)
        if inferred:
            model = onnx.shape_inference.infer_shapes(model)
        if vague:
            del model.graph.output[:]
            model.graph.output.extend(declared)
        return RandomGraph(
            ir.from_proto(model),
            {name: self._given(name) for name in used},
            [self.values[name] for name in outputs],
        )

    def _given(self, name):
        array = self.values[name]
        return np.float32(array) if array.dtype == np.float64 else array
