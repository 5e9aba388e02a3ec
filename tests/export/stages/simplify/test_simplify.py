import numpy as np
import onnx_ir as ir

from keras_bn.export.stages.simplify.simplify import simplify
from tests.export.graphs import graph, operators
from tests.export.stages.simplify.simplified import check


def test_known_shapes_are_written_down():
    text = """g (float[N,3,H] x, int64[1] two, float[3,4,1,3] w, int64[1] end) => (float[N,4,P] y) {
        a = Unsqueeze(x, two) b = ConvTranspose(a, w) sizes = Shape(x) part = Slice(sizes, two, end)
        c = Slice(b, zero, part, end) d = Squeeze(c, two) e = Relu(d) y = Neg(e)
    }""".replace("int64[1] end", "int64[1] end, int64[1] zero")
    w = np.random.default_rng(3).normal(size=(3, 4, 1, 3)).astype("f")
    numbers = {"two": np.array([2]), "end": np.array([3]), "zero": np.array([0])}
    after = check(text, ["ConvTranspose", "Relu", "Neg"], w=w, **numbers)
    assert [str(node.outputs[0].shape) for node in after.graph] == ["[N,4,H]", "[N,4,H]", "[N,4,P]"]
    assert {node.outputs[0].dtype for node in after.graph} == {ir.DataType.FLOAT}


def test_integers_that_wrap_around_stay_computed():
    text = """g (int32[2,2147483647] x, int32[1] k) => (int32[2] y) {
        s = Shape(x) c = Cast<to = 6>(s) a = Mul(c, k) y = Abs(a)
    }"""
    assert operators(simplify(graph(text, k=np.array([2], np.int32)))) == ["Mul", "Abs"]


def test_initializer_that_a_caller_may_override_is_no_constant():
    text = "g (float[N,8] x, int64[2] t) => (float[P,Q] y) { y = Reshape(x, t) }"
    model = graph(text, t=np.array([-1, 8]))
    model.graph.inputs.append(model.graph.initializers["t"])
    model.graph.outputs[0].shape = ir.Shape(["P", "Q"])
    assert operators(simplify(model)) == ["Reshape"]


def test_older_opset_is_only_copied():
    text = "g (float[N,3] x) => (float[N,3] y) { a = Identity(x) y = Neg(a) }"
    model = graph(text, opset=12)
    assert operators(simplify(model)) == ["Identity", "Neg"]
