import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_bn.export.stages.simplify.shapes.inference import known_shapes
from keras_bn.export.stages.simplify.shapes.sizes import Polynomial
from tests.export.graphs import graph
from tests.export.random_graphs import random_graph
from tests.export.reference_operators import run_reference

SEEDS = st.integers(0, 2**32 - 1)


class Consistent:
    """Values of the unknowns, fixed by the first size that is one of them alone."""

    def __init__(self):
        self.values = {}

    def check(self, size, actual):
        if isinstance(size, int):
            assert size == actual
            return
        terms = size.terms
        missing = {n for monomial in terms for n in monomial} - self.values.keys()
        if not missing:
            total = 0
            for monomial, factor in terms.items():
                total += factor * int(np.prod([self.values[n] for n in monomial], dtype=np.int64))
            assert total == actual, f"{size} is not {actual}"
        elif len(missing) == 1 and terms.keys() <= {(*missing,), ()} and terms[(*missing,)] == 1:
            self.values[missing.pop()] = actual - terms.get((), 0)


def every_value(proto, inputs):
    """Return the values of all node outputs by name."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    names = [name for node in proto.graph.node for name in node.output]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return dict(zip(names, run_reference(proto, inputs), strict=True))


@settings(max_examples=100)
@given(SEEDS, st.integers(13, 18))
def test_known_shapes_are_those_that_come_out(seed, opset):
    drawn = random_graph(seed, opset, dynamic=True)
    known = known_shapes(drawn.model.graph)
    actual = every_value(ir.to_proto(drawn.model), drawn.inputs) | drawn.inputs
    consistent = Consistent()
    values = [*drawn.model.graph.inputs, *(v for node in drawn.model.graph for v in node.outputs)]
    for value in values:
        for size, n in zip(known.shape(value), actual[value.name].shape, strict=True):
            consistent.check(size, n)
        integers = known.integers(value)
        if integers is not None:
            for size, n in zip(integers.ravel(), actual[value.name].ravel(), strict=True):
                consistent.check(size, int(n))


def shapes(text, **weights):
    """Return the last output's shape and the first input's, as sizes."""
    model = graph(text, **weights)
    known = known_shapes(model.graph)
    return known.shape(model.graph[-1].outputs[0]), known.shape(model.graph.inputs[0])


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("Conv<pads = [1, 1, 1, 1]>(x, w)", lambda n, h, w: (n, 4, h, w)),
        ("Conv(x, w)", lambda n, h, w: (n, 4, h - 2, w - 2)),
        ("ConvTranspose<strides = [2, 2]>(x, t)", lambda n, h, w: (n, 4, 2 * h + 1, 2 * w + 1)),
        ("GlobalAveragePool(x)", lambda n, h, w: (n, 3, 1, 1)),
        ("Einsum<equation = 'nchw,cd->nwhd'>(x, m)", lambda n, h, w: (n, w, h, 5)),
        ("MatMul(m, m5)", lambda n, h, w: (3, 2)),
        ("Concat<axis = 2>(x, x)", lambda n, h, w: (n, 3, 2 * h, w)),
        ("Flatten(x)", lambda n, h, w: (n, 3 * h * w)),
        ("Add(x, w1)", lambda n, h, w: (n, 3, h, w)),
    ],
)
def test_sizes_follow_the_input(node, expected):
    text = f"""g (float[N,3,H,W] x, float[4,3,3,3] w, float[3,4,3,3] t, float[3,5] m, float[5,2] m5,
               float[3,1,1] w1) => (float y) {{ y = {node} }}"""
    weights = {
        "w": (4, 3, 3, 3),
        "t": (3, 4, 3, 3),
        "m": (3, 5),
        "m5": (5, 2),
        "w1": (3, 1, 1),
    }
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]>\n' + text.replace("'", '"')
    )
    model = ir.from_proto(proto)
    for value in list(model.graph.inputs[1:]):
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(np.ones(weights[value.name], np.float32))
        model.graph.initializers[value.name] = value
    model.graph.outputs[0].shape = None
    known = known_shapes(model.graph)
    n, _, h, w = known.shape(model.graph.inputs[0])
    assert known.shape(model.graph[0].outputs[0]) == expected(n, h, w)


def test_dimensions_of_the_same_name_are_not_taken_for_equal():
    """Whoever runs the graph may broadcast one of them."""
    text = "g (float[N,3] x, float[N,3] z) => (float[N,3] y) { y = Add(x, z) }"
    result, x = shapes(text)
    assert isinstance(result[0], Polynomial)
    assert result[0] != x[0]


def test_two_convolutions_of_the_same_stride_have_the_same_size():
    text = """g (float[N,3,H] x, float[4,3,3] w) => (float[N,4,P] y, float[N,4,Q] z) {
        y = Conv<strides = [2]>(x, w) z = Conv<strides = [2]>(x, w)
    }"""
    model = graph(text, w=np.ones((4, 3, 3), np.float32))
    known = known_shapes(model.graph)
    assert known.shape(model.graph[0].outputs[0]) == known.shape(model.graph[1].outputs[0])


def test_operator_of_another_domain_is_taken_as_declared():
    model = graph("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    model.graph[0].domain = "other"
    known = known_shapes(model.graph)
    assert known.shape(model.graph[0].outputs[0])[1] == 3
    assert known.shape(model.graph[0].outputs[0])[0] != known.shape(model.graph.inputs[0])[0]
