import numpy as np
import pytest

from keras_bn.export.stages.simplify.simplify import simplify
from tests.export.graphs import graph, operators
from tests.export.stages.simplify.simplified import attribute, check, check_stays

TWO = np.array([2])
CHANNELS_FIRST, CHANNELS_LAST = "<perm = [0, 3, 1, 2]>", "<perm = [0, 2, 3, 1]>"
W1 = np.random.default_rng(3).normal(size=(4, 3, 1, 3)).astype("f")


@pytest.mark.parametrize("opset", [13, 18])
def test_convolution_over_a_length_of_one_is_one_dimensional(opset):
    text = """g (float[N,3,H] x, int64[1] two, float[4,3,1,3] w, float[4,1,1] c)
              => (float[N,4,P] y) {
        a = Unsqueeze(x, two) b = Conv<strides = [1, 2], dilations = [1, 1], pads = [0, 0, 0, 1],
        kernel_shape = [1, 3]>(a, w) d = Mul(b, c) e = Relu(d) y = Squeeze(e, two)
    }"""
    c = np.random.default_rng(4).normal(size=(4, 1, 1)).astype("f")
    after = check(text, ["Conv", "Mul", "Relu"], opset=opset, two=np.array([2]), w=W1, c=c)
    assert list(attribute(after, "Conv", "pads")) == [0, 1]
    assert list(attribute(after, "Conv", "kernel_shape")) == [3]
    conv, mul = after.graph[0], after.graph[1]
    assert list(conv.inputs[1].const_value.shape) == [4, 3, 3]
    assert list(mul.inputs[1].const_value.shape) == [4, 1]
    assert list(conv.outputs[0].shape)[1:2] == [4]


def test_axis_goes_through_transposes_and_pools():
    text = f"""g (float[N,H,3] x, int64[1] axis, float[4,3,1,3] w, int64[1] back)
               => (float[N,P,4] y) {{
        a = Unsqueeze(x, axis) b = Transpose{CHANNELS_FIRST}(a) c = Conv(b, w)
        d = Transpose{CHANNELS_LAST}(c) e = Relu(d) f = Transpose{CHANNELS_FIRST}(e)
        g = MaxPool<kernel_shape = [1, 2], strides = [1, 2]>(f)
        h = AveragePool<kernel_shape = [1, 2], auto_pad = "VALID">(g)
        i = Transpose{CHANNELS_LAST}(h) y = Squeeze(i, back)
    }}"""
    expected = "Transpose Conv Transpose Relu Transpose MaxPool AveragePool Transpose".split()
    check(text, expected, axis=np.array([1]), back=np.array([-3]), w=W1)


def test_transposed_convolution_over_a_length_of_one():
    text = """g (float[N,3,H] x, int64[1] two, float[3,4,1,3] w) => (float[N,4,P] y) {
        a = Unsqueeze(x, two) y0 = ConvTranspose<strides = [1, 2], output_padding = [0, 1]>(a, w)
        y = Squeeze(y0, two)
    }"""
    w = np.random.default_rng(3).normal(size=(3, 4, 1, 3)).astype("f")
    after = check(text, ["ConvTranspose"], two=np.array([2]), w=w)
    assert list(attribute(after, "ConvTranspose", "output_padding")) == [1]


def test_residual_of_one_dimension():
    text = """g (float[N,3,H] x, int64[1] two, float[3,3,1,3] w) => (float[N,3,P] y) {
        a = Unsqueeze(x, two) b = Conv<pads = [0, 1, 0, 1]>(a, w) c = Add(a, b)
        d = Concat<axis = 1>(c, a) e = Slice(d, zero, three, one) y = Squeeze(e, two)
    }""".replace(
        "float[3,3,1,3] w", "float[3,3,1,3] w, int64[1] zero, int64[1] one, int64[1] three"
    )
    w = np.random.default_rng(3).normal(size=(3, 3, 1, 3)).astype("f")
    numbers = {"zero": np.array([0]), "one": np.array([1]), "three": np.array([3])}
    check(text, ["Conv", "Add", "Concat", "Slice"], two=np.array([2]), w=w, **numbers)


def test_shared_weight_of_one_dimension_stays_for_its_other_reader():
    text = """g (float[N,3,H] x, float[N,3,H,W] z, int64[1] two, float[4,3,1,3] w)
              => (float[N,4,P] y, float[N,4,P,Q] u) {
        a = Unsqueeze(x, two) b = Conv(a, w) y = Squeeze(b, two) u = Conv(z, w)
    }"""
    after = check(text, ["Conv", "Conv"], two=np.array([2]), w=W1)
    assert sorted(len(v.shape) for v in after.graph.initializers.values()) == [3, 4]


def test_constant_keeps_its_layers():
    text = """g (float[N,3,H] x, int64[1] two, float[4,3,1,3] w) => (float[N,4,P] y) {
        a = Unsqueeze(x, two) b = Conv(a, w) y = Squeeze(b, two)
    }"""
    model = graph(text, two=np.array([2]), w=W1)
    model.graph.initializers["w"].meta["layers"] = frozenset({"conv"})
    after = simplify(model)
    (weight,) = after.graph.initializers.values()
    assert weight.meta["layers"] == {"conv"}


@pytest.mark.parametrize(
    "between",
    [
        pytest.param("b = Conv<pads = [1, 0, 1, 0]>(a, w)", id="padded there"),
        pytest.param("b = Softmax<axis = 2>(a)", id="an operator along that axis"),
        pytest.param("b = Add(a, c)", id="a constant that widens it"),
        pytest.param("b = Conv(a, v)", id="weights that are an input"),
        pytest.param("b = ReduceMax<keepdims = 1>(a, two)", id="reduced"),
    ],
)
def test_operator_that_mixes_the_axis_stays(between):
    text = f"""g (float[N,3,H] x, float[4,3,1,1] v, float[4,3,1,3] w, float[1,1,2,1] c,
               int64[1] two, int64[1] zero) => (float[A,B,C,D] y) {{
        a = Unsqueeze(x, two) {between} d = Relu(b) y = Neg(d)
    }}"""
    weights = {"w": W1, "c": np.ones((1, 1, 2, 1), np.float32), "two": TWO, "zero": TWO}
    model = graph(text, **weights)
    assert operators(simplify(model)) == operators(model)


def test_axis_that_would_cost_as_much_as_it_saves_stays():
    check_stays(
        """g (float[N,3,H] x, int64[1] two, float[4,3,1,3] w) => (float[N,4,1,P] y) {
            a = Unsqueeze(x, two) y = Conv(a, w)
        }""",
        two=TWO,
        w=W1,
    )


def test_axis_of_unknown_size_stays():
    text = """g (float[N,3,K,H] x, int64[1] two, float[4,3,1,3] w) => (float[N,4,P] y) {
        a = Conv(x, w) y = Squeeze(a, two)
    }"""
    assert operators(simplify(graph(text, two=TWO, w=W1))) == ["Conv", "Squeeze"]
