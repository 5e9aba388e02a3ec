"""One graph for each rule: Transposes on both sides of an operator, none of them left."""

import numpy as np
import pytest

from keras_bn.export.stages.layout.transposes import cancel_transposes
from tests.export.graphs import graph, operators, run_onnxruntime
from tests.export.stages.layout.layout_checks import (
    TO_NCHW,
    TO_NHWC,
    X,
    compare,
    declared,
    floats,
    integers,
    transform,
)

SAME = [
    pytest.param(
        "b = Clip(a, low, high)", {"low": np.float32(-1), "high": np.float32(1)}, id="Clip"
    ),
    pytest.param("b = Softmax<axis = -1>(a)", {}, id="Softmax"),
    pytest.param("b = LogSoftmax<axis = 1>(a)", {}, id="LogSoftmax"),
    pytest.param("b = Hardmax<axis = 3>(a)", {}, id="Hardmax"),
    pytest.param("b = CumSum(a, axis)", {"axis": np.int64(-1)}, id="CumSum"),
    pytest.param("b = PRelu(a, slope)", {"slope": floats(1, 1, 3)}, id="PRelu"),
    pytest.param("b = MatMul(a, w)", {"w": floats(3, 3)}, id="MatMul"),
    pytest.param("m = ReduceMean(a, axes) b = Sub(a, m)", {"axes": integers(-1)}, id="mean"),
    pytest.param("m = ReduceMax(a, axes) b = Sub(a, m)", {"axes": integers(1, 2)}, id="max"),
    pytest.param("m = ReduceL2(a) b = Div(a, m)", {}, id="norm of all"),
    pytest.param(
        "m = ReduceMean<keepdims = 0>(a, axes) r = Reshape(m, shape) b = Mul(a, r)",
        {"axes": integers(1, 2), "shape": integers(-1, 1, 1, 3)},
        id="squeeze and excite",
    ),
    pytest.param(
        "p, q = Split<axis = 3>(a, parts) b = Concat<axis = -1>(q, p)",
        {"parts": integers(1, 2)},
        id="Split and Concat",
    ),
    pytest.param(
        "r = Slice(a, start, end, axes) s = Slice(a, zero, start, axes) b = Concat<axis = 2>(r, s)",
        {"start": integers(2), "end": integers(9), "axes": integers(-2), "zero": integers(0)},
        id="Slice",
    ),
    pytest.param(
        "r = Slice(a, start, end) b = Concat<axis = 1>(r, r)",
        {"start": integers(0, 0, 0), "end": integers(9, 2, 5)},
        id="Slice without axes",
    ),
    pytest.param("b = Gather<axis = 3>(a, i)", {"i": integers(2, 0, 1)}, id="Gather"),
    pytest.param(
        "r = Gather<axis = 3>(a, i) s = Unsqueeze(r, last) b = Mul(a, s)",
        {"i": np.int64(1), "last": integers(-1)},
        id="Gather a scalar",
    ),
    pytest.param(
        "r = Pad(a, pads) b = Slice(r, low, high, axes)",
        {
            "pads": integers(0, 1, 2, 0, 0, 1, 0, 0),
            "low": integers(1, 0),
            "high": integers(5, 5),
            "axes": integers(1, 2),
        },
        id="Pad",
    ),
    pytest.param(
        'r = Pad<mode = "reflect">(a, pads, "", axes) b = Slice(r, low, high, axes)',
        {
            "pads": integers(1, 1, 0, 2),
            "axes": integers(1, -2),
            "low": integers(0, 0),
            "high": integers(4, 5),
        },
        id="Pad with axes",
    ),
    pytest.param(
        "r = Tile(a, n) b = Slice(r, low, high, axes)",
        {
            "n": integers(1, 2, 1, 1),
            "low": integers(4),
            "high": integers(8),
            "axes": integers(1),
        },
        id="Tile",
    ),
    pytest.param(
        "m = ReduceMin(a, axes) r = Expand(m, shape) b = Add(a, r)",
        {"axes": integers(1), "shape": integers(4, 1, 1)},
        id="Expand",
    ),
    pytest.param(
        'r = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", '
        'nearest_mode = "floor">(a, "", scales) b = Slice(r, low, high, axes)',
        {
            "scales": np.array([1, 2, 3, 1], np.float32),
            "low": integers(0, 0),
            "high": integers(4, 5),
            "axes": integers(1, 2),
        },
        id="Resize",
    ),
    pytest.param("v, i = TopK<axis = -1>(a, k) b = Mul(a, v)", {"k": integers(1)}, id="TopK"),
    pytest.param(
        "r = Greater(a, zero) b = Where(r, a, w)",
        {"zero": np.float32(0), "w": floats(3)},
        id="Where",
    ),
    pytest.param(
        "r = Unsqueeze(a, i) s = Relu(r) b = Squeeze(s, i)", {"i": integers(1)}, id="Unsqueeze"
    ),
    pytest.param(
        "r = Reshape(a, shape) s = Relu(r) b = Reshape(s, back)",
        {"shape": integers(-1, 20, 3), "back": integers(-1, 4, 5, 3)},
        id="Reshape that merges",
    ),
    pytest.param(
        "r = Reshape(a, shape) s = Relu(r) b = Reshape(s, back)",
        {"shape": integers(0, 2, 2, 5, 3), "back": integers(0, 4, 5, 3)},
        id="Reshape that parts",
    ),
]


@pytest.mark.parametrize(("body", "weights"), SAME)
def test_transposes_around_an_operator_go(body, weights):
    body = f"a = Transpose{TO_NHWC}(x) {body} c = Transpose{TO_NCHW}(b) y = Neg(c)"
    after = transform(body, "float[N,3,4,5] y", **weights)
    assert "Transpose" not in operators(after)


@pytest.mark.parametrize("opset", [13, 17])
def test_axes_that_are_attributes_are_renumbered(opset):
    body = f"""a = Transpose{TO_NHWC}(x) m = ReduceMax<axes = [3, -2], keepdims = 0>(a)
        n = ReduceMean<axes = [1, 2]>(a) p, q = Split<axis = 1>(a, parts) r = Mul(p, n)
        s = Mul(q, n) t = Concat<axis = 1>(r, s) c = Transpose{TO_NCHW}(t) y = Neg(c)"""
    after = transform(body, "float[N,4] m, float[N,3,4,5] y", opset, parts=integers(3, 1))
    assert "Transpose" not in operators(after)


def test_arg_max_over_the_channels():
    body = f"a = Transpose{TO_NHWC}(x) y = ArgMax<axis = -1, keepdims = 0>(a)"
    after = transform(body, "int64[N,4,5] y")
    assert operators(after) == ["ArgMax"]
    assert after.graph[0].attributes.get_int("axis") == 1


def test_quantization_along_the_channels():
    body = f"""a = Transpose{TO_NHWC}(x) q = QuantizeLinear<axis = 3>(a, scale, zero)
        d = DequantizeLinear<axis = -1>(q, scale, zero) c = Transpose{TO_NCHW}(d) y = Neg(c)"""
    scale, zero = np.array([0.5, 0.25, 0.125], np.float32), np.zeros(3, np.int8)
    text = f"g ({X}{declared({'scale': scale, 'zero': zero})}) => (float[N,3,4,5] y) {{ {body} }}"
    model = graph(text, scale=scale, zero=zero)
    after = cancel_transposes(model)
    assert operators(after) == ["QuantizeLinear", "DequantizeLinear", "Neg"]
    x = floats(2, 3, 4, 5)
    for a, e in zip(run_onnxruntime(after, x=x), run_onnxruntime(model, x=x), strict=True):
        np.testing.assert_array_equal(a, e)


def test_shape_is_read_in_the_order_of_the_source():
    body = f"a = Transpose{TO_NHWC}(x) y = Shape(a) b = Relu(a) z = Transpose{TO_NCHW}(b)"
    after = transform(body, "int64[4] y, float[N,3,4,5] z")
    assert "Transpose" not in operators(after)


def test_layer_normalization_over_the_channels_stays_on_the_last_axis():
    body = f"a = Transpose{TO_NHWC}(x) y = LayerNormalization<axis = -1>(a, w)"
    assert "Transpose" in operators(transform(body, "float[N,4,5,3] y", w=floats(3)))


def test_layer_normalization_lets_other_axes_pass():
    body = """a = Transpose<perm = [1, 0, 2, 3]>(x) b = LayerNormalization<axis = 2>(a, w)
        c = Transpose<perm = [1, 0, 2, 3]>(b) y = Neg(c)"""
    after = transform(body, "float[N,3,4,5] y", w=floats(4, 5))
    assert operators(after) == ["LayerNormalization", "Neg"]


@pytest.mark.parametrize("shape", ["4,5,3", "5,3", "3", "1,3", "N,1,1,3"])
def test_operand_of_lower_rank_gets_axes_of_size_one_in_between(shape):
    body = f"""a = Transpose{TO_NHWC}(x) r = Relu(z) b = Mul(r, a) c = Transpose{TO_NCHW}(b)
        y = Neg(c)"""
    after = transform(body, "float[N,3,4,5] y", inputs=f"{X}, float[{shape}] z")
    small = "4" in shape or "5" in shape  # its own order changes, so it is what is transposed
    assert operators(after).count("Transpose") == int(small)


def test_transpose_of_ones_alone_is_a_reshape():
    body = f"g = GlobalAveragePool(x) y = Transpose{TO_NHWC}(g)"
    after = transform(body, "float[N,1,1,3] y")
    assert operators(after) == ["GlobalAveragePool", "Reshape"]


def test_transpose_of_ones_among_unknown_sizes_needs_no_shape():
    body = "a = Relu(x) y = Transpose<perm = [0, 2, 3, 1]>(a)"
    after = transform(body, "float[N,M,1,3] y", inputs="float[N,3,M,1] x")
    assert operators(after) == ["Relu", "Transpose"]
    after = transform(body, "float[N,M,L,1] y", inputs="float[N,1,M,L] x")
    assert sorted(operators(after)) == ["Relu", "Squeeze", "Unsqueeze"]


REFUSED = [
    pytest.param("b = MatMul(a, z)", "float[N,4,5,5] y", id="matrix computed at run time"),
    pytest.param("b = GatherND(a, i)", "float[2,3] y", id="operator without a rule"),
    pytest.param("s = Shape(z) b = Reshape(a, s)", "float[A,B,C,D] y", id="shape at run time"),
]


@pytest.mark.parametrize(("body", "result"), REFUSED)
def test_operator_that_cannot_follow_reads_what_it_did(body, result):
    indices = integers([0, 0, 0], [1, 2, 3])
    text = f"""g ({X}, float[2,4,3,5] z, int64[2,3] i) => ({result}) {{
        a = Transpose{TO_NHWC}(x) {body} y = Neg(b) }}"""
    model = graph(text, i=indices)
    after = cancel_transposes(model)
    assert operators(after) == operators(model)
    if "Reshape" not in body:  # which makes sense for other sizes only
        compare(model, after)


def test_reshape_that_tears_the_channels_apart_is_refused():
    body = f"a = Transpose{TO_NHWC}(x) b = Reshape(a, shape) y = Neg(b)"
    after = transform(body, "float[N,4,15] y", shape=integers(-1, 4, 15))
    assert operators(after) == ["Transpose", "Reshape", "Neg"]


def test_transposes_do_not_multiply_where_many_read_one():
    body = f"""a = Transpose{TO_NHWC}(x) b = Relu(a) c = Neg(a) d = Sigmoid(a)
        e = Pad(b, pads) f = Softmax<axis = -1>(c)"""
    after = transform(
        body,
        "float[N,4,5,4] e, float[N,4,5,3] f, float[N,4,5,3] d",
        pads=integers(0, 0, 0, 0, 0, 0, 0, 1),
    )
    assert operators(after).count("Transpose") == 1


def test_transposes_move_up_to_the_tensor_that_all_read():
    body = f"""r = Relu(x) a = Transpose{TO_NCHW}(r) s = Sigmoid(r) b = Transpose{TO_NCHW}(s)
        c = GlobalMaxPool(a) d = GlobalMaxPool(b)"""
    after = transform(body, "float[N,3,1,1] c, float[N,3,1,1] d", inputs="float[N,4,5,3] x")
    assert operators(after).count("Transpose") == 1


def test_tensor_added_to_its_own_transpose_keeps_one():
    body = (
        "a = Transpose<perm = [1, 0]>(x) b = Add(a, x) c = Transpose<perm = [1, 0]>(b) y = Neg(c)"
    )
    after = transform(body, "float[3,3] y", inputs="float[3,3] x")
    assert operators(after).count("Transpose") <= 2
