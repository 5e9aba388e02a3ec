"""What must stay: nothing about it is certain, or it would be another function."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph, operators

from keras_bn.export.simplify import simplify

W3 = np.random.default_rng(2).normal(size=(4, 3, 3, 3)).astype("f")
W1 = np.random.default_rng(3).normal(size=(4, 3, 1, 3)).astype("f")
PADS = np.array([0, 0, 1, 1, 0, 0, 1, 1])
TWO = np.array([2])


def check_stays(text, *, opset=18, **weights):
    """Assert that a graph comes back byte for byte."""
    model = graph(text, opset=opset, **weights)
    before = ir.to_proto(model).SerializeToString()
    assert ir.to_proto(simplify(model)).SerializeToString() == before


# Shapes


def test_two_unknown_sizes_stay_computed():
    check_stays(
        """g (float[N,H,W,8] x, int64[1] eight) => (float[N,P,8] y) {
            a = Shape<start = 0, end = 1>(x) h = Shape<start = 1, end = 2>(x)
            w = Shape<start = 2, end = 3>(x) hw = Mul(h, w)
            target = Concat<axis = 0>(a, hw, eight) y = Reshape(x, target)
        }""",
        eight=np.array([8]),
    )


def test_minus_one_beside_a_copied_size_is_not_made_up():
    """With N = 0 the target [0, -1, 8] says nothing, and 2 * N does."""
    check_stays(
        """g (float[N,H,8] x, int64[1] eight) => (float[M,P,4] y) {
            n = Shape<start = 0, end = 1>(x) h = Shape<start = 1, end = 2>(x)
            hh = Add(h, h) target = Concat<axis = 0>(n, hh, eight) y = Reshape(x, target)
        }""",
        eight=np.array([4]),
    )


def test_size_that_comes_from_data_stays():
    check_stays("g (float[N,8] x, int64[2] target) => (float[P,Q] y) { y = Reshape(x, target) }")


def test_slice_that_may_be_cut_short_stays():
    check_stays(
        """g (float[N,H] x, int64[1] zero, int64[1] one, int64[1] three) => (float[N,P] y) {
            h = Shape<start = 1, end = 2>(x) end = Sub(h, three) y = Slice(x, zero, end, one)
        }""",
        zero=np.array([0]),
        one=np.array([1]),
        three=np.array([3]),
    )


def test_expand_to_a_size_of_another_axis_stays():
    check_stays(
        """g (float[N,H] x, float[1,1] z) => (float[N,H] y) { s = Shape(x) y = Expand(z, s) }"""
    )


def test_reshape_of_a_tensor_of_unknown_rank_stays():
    model = graph(
        "g (float[N,4] x, int64[2] t) => (float[P,Q] y) { a = Relu(x) y = Reshape(a, t) }",
        t=np.array([0, -1]),
    )
    model.graph[0].outputs[0].shape = None
    model.graph.inputs[0].shape = None
    assert operators(simplify(model)) == ["Relu", "Reshape"]


# Operators that do something


@pytest.mark.parametrize(
    "node",
    [
        pytest.param("Cast<to = 1>(h)", id="cast from half precision"),
        pytest.param("Slice(a, zero, end, one, back)", id="reversed"),
        pytest.param("Slice(a, one, end, one)", id="slice"),
        pytest.param("Pad(a, some)", id="pad"),
        pytest.param("Transpose<perm = [0, 2, 1]>(a)", id="transpose"),
        pytest.param("Tile(a, twos)", id="tile"),
        pytest.param("Concat<axis = 0>(a, a)", id="concat"),
    ],
)
def test_operator_that_changes_something_stays(node):
    text = f"""g (float[N,3,4] x, int64[6] some, int64[1] zero, int64[1] one, int64[1] back,
               int64[1] end, int64[3] twos) => (float[P,Q,R] y) {{
        a = Relu(x) h = Cast<to = 10>(a) c = {node} y = Neg(c)
    }}"""
    after = simplify(
        graph(
            text,
            some=np.array([0, 0, 0, 0, 0, 1]),
            zero=np.array([-1]),
            one=np.array([1]),
            back=np.array([-1]),
            end=np.array([-9]),
            twos=np.array([1, 2, 1]),
        )
    )
    assert node.partition("(")[0].partition("<")[0] in operators(after)


def test_cast_through_a_narrower_dtype_stays():
    check_stays("g (float[N] x) => (float[N] y) { a = Cast<to = 10>(x) y = Cast<to = 1>(a) }")


def test_cast_of_numbers_that_a_float_cannot_hold_stays():
    check_stays("g (int32[N] x) => (int32[N] y) { a = Cast<to = 1>(x) y = Cast<to = 6>(a) }")


def test_dropout_in_training_stays():
    true = {"ratio": np.float32(0.5), "mode": np.array(True)}
    check_stays(
        "g (float[N] x, float ratio, bool mode) => (float[N] y) { y = Dropout(x, ratio, mode) }",
        **true,
    )


def test_nodes_of_other_domains_stay():
    model = graph("g (float[N,3] x) => (float[N,3] y) { a = Identity(x) y = Neg(a) }")
    model.graph[0].domain = "other"
    assert operators(simplify(model)) == ["Identity", "Neg"]


def test_nodes_that_hold_graphs_stay_and_read_on():
    text = """g (float[N,3] x, bool c) => (float[N,3] y) {
        a = Relu(x) b = Identity(a)
        d = If(c) <
            then_branch = t () => (float[N,3] z) { z = Neg(b) },
            else_branch = e () => (float[N,3] u) { u = Identity(b) }
        >
        y = Identity(d)
    }"""
    after = simplify(graph(text))
    assert operators(after) == ["Relu", "If"]
    branches = [
        after.graph[1].attributes[name].as_graph() for name in ("then_branch", "else_branch")
    ]
    assert [[n.op_type for n in branch] for branch in branches] == [["Neg"], ["Identity"]]
    assert all(branch[0].inputs[0] is after.graph[0].outputs[0] for branch in branches)


# Padding


@pytest.mark.parametrize(
    ("pad", "pads"),
    [
        pytest.param("Pad(x, p, one)", PADS, id="another value"),
        pytest.param('Pad<mode = "reflect">(x, p)', PADS, id="reflected"),
        pytest.param("Pad(x, p)", np.array([0, 0, -1, 1, 0, 0, 1, 1]), id="negative"),
        pytest.param("Pad(x, p)", np.array([0, 1, 0, 0, 0, 0, 0, 0]), id="channels"),
        pytest.param("Pad(x, p)", np.array([1, 0, 0, 0, 0, 0, 0, 0]), id="batch"),
    ],
)
def test_pad_that_a_convolution_cannot_make_stays(pad, pads):
    channels = 3 + int(pads[1])
    check_stays(
        f"""g (float[N,3,H,W] x, int64[8] p, float one, float[4,{channels},3,3] w)
            => (float[M,4,P,Q] y) {{ a = {pad} y = Conv(a, w) }}""",
        p=pads,
        one=np.float32(1),
        w=np.ones((4, channels, 3, 3), np.float32),
    )


def test_pad_that_others_read_stays():
    check_stays(
        """g (float[N,3,H,W] x, int64[8] p, float[4,3,3,3] w)
           => (float[N,4,P,Q] y, float[N,3,R,S] z) { a = Pad(x, p) y = Conv(a, w) z = Relu(a) }""",
        p=PADS,
        w=W3,
    )


def test_pad_that_is_an_output_stays():
    check_stays(
        """g (float[N,3,H,W] x, int64[8] p, float[4,3,3,3] w)
           => (float[N,4,P,Q] y, float[N,3,R,S] a) { a = Pad(x, p) y = Conv(a, w) }""",
        p=PADS,
        w=W3,
    )


def test_pad_before_padding_that_varies_stays():
    check_stays(
        """g (float[N,3,H,W] x, int64[8] p, float[4,3,3,3] w) => (float[N,4,P,Q] y)
           { a = Pad(x, p) y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(a, w) }""",
        p=PADS,
        w=W3,
    )


KERNEL = "kernel_shape = [3, 3], strides = [2, 2]"
VALID = 'auto_pad = "VALID"'


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(f"MaxPool<{KERNEL}, {VALID}>", id="maximum of what may be negative"),
        pytest.param(f"MaxPool<kernel_shape = [1, 1], {VALID}>", id="kernel no larger than pads"),
        pytest.param(f"AveragePool<kernel_shape = [1, 1], {VALID}>", id="average, the same"),
    ],
)
def test_pad_that_a_pool_cannot_make_stays(pool):
    check_stays(
        f"g (float[N,3,H,W] x, int64[8] p) => (float[N,3,P,Q] y) {{ a = Pad(x, p) y = {pool}(a) }}",
        p=PADS,
    )


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("Clip(x, minus, one)", id="clip below zero"),
        pytest.param("Clip(x, , one)", id="clip without a minimum"),
        pytest.param("Clip(x, zero, minus)", id="clip to a negative maximum"),
        pytest.param("HardSwish(x)", id="hard swish"),
        pytest.param("LeakyRelu(r)", id="leaky relu of a relu is not looked through"),
        pytest.param("Sub(r, r)", id="difference"),
        pytest.param("Mul(r, minus)", id="negative factor"),
        pytest.param("Add(r, x)", id="sum with the input"),
        pytest.param("Max(x, minus)", id="max with a negative number"),
        pytest.param("Concat<axis = 1>(r, x)", id="concat with the input"),
        pytest.param("Tanh(x)", id="tanh"),
    ],
)
def test_maximum_of_what_may_be_negative_keeps_its_pad(before):
    text = f"""g (float[N,3,H,W] x, int64[8] p, float zero, float one, float minus)
               => (float[N,C,P,Q] y) {{
        r = Relu(x) b = {before} a = Pad(b, p) y = MaxPool<{KERNEL}>(a)
    }}"""
    after = simplify(
        graph(text, p=PADS, zero=np.float32(0), one=np.float32(1), minus=np.float32(-1))
    )
    assert operators(after)[-2:] == ["Pad", "MaxPool"]


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param("ceil_mode = 1", id="last window cut short"),
        pytest.param("dilations = [2, 2]", id="windows that jump over the data"),
    ],
)
def test_maximum_over_unusual_windows_keeps_its_pad(attributes):
    text = f"""g (float[N,3,H,W] x, int64[8] p) => (float[N,3,P,Q] y) {{
        r = Relu(x) a = Pad(r, p) y = MaxPool<{KERNEL}, {attributes}>(a)
    }}"""
    assert operators(simplify(graph(text, p=PADS))) == ["Relu", "Pad", "MaxPool"]


def test_average_that_pads_and_does_not_count_it_keeps_its_pad():
    text = f"""g (float[N,3,H,W] x, int64[8] p) => (float[N,3,P,Q] y) {{
        a = Pad(x, p) y = AveragePool<{KERNEL}, pads = [1, 1, 1, 1]>(a)
    }}"""
    assert operators(simplify(graph(text, p=PADS))) == ["Pad", "AveragePool"]


@pytest.mark.parametrize(
    ("ends", "steps"), [([-1, -1], [2, 1]), ([3, 4], [1, 1])], ids=["steps", "fixed size"]
)
def test_crop_that_is_no_padding_stays(ends, steps):
    check_stays(
        """g (float[N,3,H,W] x, float[3,2,3,3] w, int64[2] s, int64[2] e, int64[2] a, int64[2] t)
           => (float[N,2,P,Q] y) { b = ConvTranspose(x, w) y = Slice(b, s, e, a, t) }""",
        w=np.ones((3, 2, 3, 3), np.float32),
        s=np.array([0, 0]),
        e=np.array(ends),
        a=np.array([2, 3]),
        t=np.array(steps),
    )


# One dimension


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


# Numbers and versions that are out of the ordinary


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
