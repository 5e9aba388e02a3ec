"""Random graphs of the operators that Keras's convolutional networks export to.

`random_graph` grows a graph node by node, evaluates each with onnx.reference in float64 on the way,
and leaves out what is not finite. What a converter leaves behind is among the pieces: shapes that
are computed at run time, repeated elements, 1-D convolutions in two dimensions.
"""

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from tests.export.random_pieces import ANYWHERE, SPATIAL
from tests.export.reference_operators import run_reference

LARGEST = 6000  # elements


@dataclasses.dataclass
class RandomGraph:
    """A graph, its inputs, and its outputs in float64."""

    model: ir.Model
    inputs: dict
    expected: list

    @property
    def operators(self):
        return [node.op_type for node in self.model.graph]


class _Builder:
    def __init__(self, rng, opset):
        self.rng, self.opset = rng, opset
        self.nodes, self.constants, self.values = [], {}, {}
        self.count = 0

    def constant(self, array):
        self.count += 1
        self.constants[f"c{self.count}"] = np.asarray(array)
        return f"c{self.count}"

    def integers(self, *numbers):
        return self.constant(np.array(numbers, np.int64))

    def normal(self, *shape, least=None):
        array = self.rng.normal(size=shape)
        return self.constant(np.float32(array if least is None else np.abs(array) + least))

    def shape(self, name):
        return self.values[name].shape

    def chance(self, probability):
        return self.rng.random() < probability

    def choice(self, *options):
        return options[self.rng.integers(len(options))]

    def node(self, op_type, *inputs, **attributes):
        """Append a node if its result is finite and not large; return its output, or None."""
        if None in inputs:
            return None
        self.count += 1
        output = f"v{self.count}"
        node = helper.make_node(op_type, inputs, [output], name=f"n{self.count}", **attributes)
        feeds = {name: self._array(name) for name in inputs if name}
        result = _evaluate(node, feeds, self.opset)
        if not 0 < result.size <= LARGEST or not np.isfinite(result).all():
            return None
        if np.abs(result).max() > 1e4:
            return None
        self.nodes.append(node)
        self.values[output] = result
        return output

    def _array(self, name):
        array = self.values.get(name, self.constants.get(name))
        return array.astype(np.float64) if array.dtype == np.float32 else array

    def pick(self):
        names = [name for name, array in self.values.items() if array.dtype == np.float64]
        return names[-1] if self.chance(0.6) else self.choice(*names)


def _evaluate(node, feeds, opset):
    graph = helper.make_graph(
        [node],
        "one",
        [onnx.ValueInfoProto(name=name) for name in feeds],
        [onnx.ValueInfoProto(name=node.output[0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return np.asarray(run_reference(model, feeds)[0])


def random_graph(seed, opset, *, dynamic=False, nodes=10):
    """Return a `RandomGraph`; with `dynamic`, some dimensions of its inputs have names only."""
    rng = np.random.default_rng(seed)
    g = _Builder(rng, opset)
    for i in range(rng.integers(1, 3)):
        shape = (rng.choice([1, 2, 3]), rng.choice([1, 3, 4, 16]), *rng.integers(3, 9, 2))
        shape = shape if rng.random() < 0.7 else shape[:3]
        g.values[f"x{i}"] = np.float64(np.float32(rng.normal(size=shape)))
    inputs = list(g.values)
    wanted = rng.integers(3, nodes + 1)
    for _ in range(50):
        if len(g.nodes) >= wanted:
            break
        x = g.pick()
        pieces = ANYWHERE + SPATIAL * 2 if 3 <= len(g.shape(x)) <= 4 else ANYWHERE
        g.choice(*pieces)(g, x)
    return _finish(g, inputs, dynamic)


def _finish(g, inputs, dynamic):
    read = {name for node in g.nodes for name in node.input}
    ends = [n.output[0] for n in g.nodes if n.output[0] not in read or g.chance(0.08)]
    outputs = [name for name in ends if g.values[name].dtype == np.float64]
    inputs = [name for name in inputs if name in read]

    def shape(name):
        named = [dynamic and i != 1 and g.chance(0.6) for i in range(g.values[name].ndim)]
        return [f"{name}_{i}" if d else n for i, (n, d) in enumerate(zip(g.shape(name), named))]  # noqa: B905

    graph = helper.make_graph(
        g.nodes,
        "random",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape(n)) for n in inputs],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * g.values[n].ndim)
            for n in outputs
        ],
        [numpy_helper.from_array(a, name) for name, a in g.constants.items() if name in read],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", g.opset)], ir_version=8)
    return RandomGraph(
        ir.from_proto(onnx.shape_inference.infer_shapes(model)),
        {name: np.float32(g.values[name]) for name in inputs},
        [g.values[name] for name in outputs],
    )
