import numpy as np
import pytest

from keras_bn.export import ExportError
from keras_bn.export.stages.precision.report import Float32Reason
from keras_bn.export.stages.precision.set_precision import set_precision
from tests.export.graphs import graph, run_onnxruntime
from tests.export.stages.precision.halves import (
    FLOAT16,
    FLOAT32,
    assert_agrees,
    draw,
    precisions,
    reasons,
    to_float16,
)


def test_value_that_overflows_stays_with_what_reads_it():
    x = draw(4, 3)
    model = graph(
        """g (float[N,3] x, float[3,3] w, float big, float small) => (float[N,3] y)
        { a = MatMul(x, w) b = Mul(a, big) c = Relu(b) d = Mul(c, small) y = MatMul(d, w) }""",
        w=draw(3, 3),
        big=np.float32(1e5),
        small=np.float32(1e-4),
    )
    result, report = to_float16(model, x=x)
    assert dict(zip("abcd", [FLOAT16, FLOAT32, FLOAT32, FLOAT32], strict=True)) == {
        v.name: v.dtype for n in result.graph for v in n.outputs if v.name in "abcd"
    }
    assert [row.reason.name for row in report.float32] == ["OVERFLOW"] * 3
    assert result.graph[-2].op_type == "MatMul"
    assert report.float16 == 2
    assert "in tensor 'b'" in report.float32[0].detail
    assert_agrees(model, result, x=x)


@pytest.mark.parametrize(
    ("peak", "stays"), [(65504 / 4, False), (65504 / 4 + 1, True)], ids=["at the limit", "above"]
)
def test_headroom_is_a_quarter(peak, stays):
    model = graph(
        "g (float[N] x) => (float[N] y, float[N] z) { a = Relu(x) y = Neg(a) z = Tanh(x) }"
    )
    samples = [{"x": np.float32([-1, 2])}, {"x": np.float32([peak])}]
    if stays:
        with pytest.raises(ExportError, match="at least one node"):
            set_precision(model, "float16", samples)
    else:
        assert set_precision(model, "float16", samples)[1].float16 == 3


@pytest.mark.parametrize(
    ("operator", "constant", "reason"),
    [
        pytest.param("Mul", 1e6, "WEIGHT_OVERFLOW", id="large factor"),
        pytest.param("Div", 1e-5, "WEIGHT_UNDERFLOW", id="small divisor"),
        pytest.param("Add", 1e-7, "WEIGHT_UNDERFLOW", id="epsilon"),
        pytest.param("Max", 1e-12, "WEIGHT_UNDERFLOW", id="floor"),
        pytest.param("Add", [1e-7, 1.0], None, id="summands of several sizes"),
        pytest.param("Mul", [1e-7, 1.0], "WEIGHT_UNDERFLOW", id="factors of several sizes"),
        pytest.param("Mul", 0.0, None, id="zero"),
        pytest.param("Min", np.inf, None, id="infinite bound"),
        pytest.param("Min", 3.4e38, "WEIGHT_OVERFLOW", id="largest float32"),
    ],
)
def test_constant_that_float16_cannot_hold_keeps_its_node(operator, constant, reason):
    constant = np.float32(constant)
    x = draw(3, 2, scale=1e-3)
    model = graph(
        f"""g (float[N,2] x, float{"[2]" if constant.ndim else ""} c) => (float[N,2] y)
        {{ a = Tanh(x) b = {operator}(a, c) y = Relu(b) }}""",
        c=constant,
    )
    result, report = to_float16(model, x=x)
    assert reasons(report).get(operator) == reason
    assert result.graph.initializers["c"].dtype == (FLOAT32 if reason else FLOAT16)
    assert_agrees(model, result, x=x)


def test_kernel_is_judged_by_output_channel():
    x, w = draw(2, 3), np.ones((3, 2), np.float32)
    text = """g (float[N,3] x, float[3,2] w) => (float[N,2] y)
    { t = Tanh(x) y = MatMul(t, w) }"""
    w[0, 1] = 1e-9
    assert reasons(to_float16(graph(text, w=w), x=x)[1]) == {}
    w[:, 1] = 1e-6
    assert reasons(to_float16(graph(text, w=w), x=x)[1]) == {"MatMul": "WEIGHT_UNDERFLOW"}
    w[:, 1] = 0
    assert reasons(to_float16(graph(text, w=w), x=x)[1]) == {}


def test_tensor_of_tiny_values_stays():
    model = graph(
        """g (float[N,3] x, float c, float[3,3] w) => (float[N,3] y)
        { a = Tanh(x) b = Mul(a, a) d = Mul(b, b) e = Mul(d, c) y = MatMul(e, w) }""",
        c=np.float32(2e4),
        w=draw(3, 3),
    )
    x = np.float32([[0.01, 0.02, 0.05]])
    result, report = to_float16(model, x=x)
    assert [row.reason.name for row in report.float32] == ["UNDERFLOW"] * 2
    assert_agrees(model, result, x=x)


def test_layer_normalisation_stays_from_the_square_to_the_scaling():
    x, axes = draw(4, 64, scale=0.01), np.int64([-1])
    model = graph(
        """g (float[N,64] x, float[64,64] w, int64[1] axes, float e, float[64] gamma)
        => (float[N,64] y) {
        h = MatMul(x, w)  m = ReduceMean(h, axes)  d = Sub(h, m)  s = Mul(d, d)
        v = ReduceMean(s, axes)  a = Add(v, e)  r = Sqrt(a)  i = Reciprocal(r)
        n = Mul(d, i)  g = Mul(n, gamma)  y = Relu(g) }""",
        w=draw(64, 64),
        axes=axes,
        e=np.float32(1e-3),
        gamma=np.ones(64, np.float32),
    )
    result, report = to_float16(model, x=x)
    assert [d for _, d in precisions(result)] == [FLOAT16] + [FLOAT32] * 8 + [FLOAT16] * 2
    assert report.casts == 4  # of x, h, n and y
    assert_agrees(model, result, x=x)
    constant = np.zeros_like(x)  # no variance at all, which no sample showed
    assert_agrees(model, result, x=constant)


def test_l2_normalisation_keeps_its_epsilon():
    x = draw(3, 8)
    model = graph(
        """g (float[N,8] x, int64[1] axes, float e, float[8,8] w) => (float[N,8] y) {
        h = MatMul(x, w) s = Mul(h, h) t = ReduceSum(s, axes) u = Max(t, e) r = Sqrt(u)
        i = Reciprocal(r) n = Mul(h, i) y = MatMul(n, w) }""",
        axes=np.int64([1]),
        e=np.float32(1e-12),
        w=draw(8, 8),
    )
    result, report = to_float16(model, x=x)
    assert reasons(report)["Max"] == "WEIGHT_UNDERFLOW"
    assert [d for _, d in precisions(result)] == [FLOAT16] + [FLOAT32] * 6 + [FLOAT16]
    assert_agrees(model, result, x=x)
    assert_agrees(model, result, x=np.zeros_like(x))


def test_mean_over_an_image_stays_and_a_small_pool_does_not():
    x = draw(1, 2, 100, 100, scale=3.0)
    model = graph(
        """g (float[1,2,100,100] x, int64[2] axes) => (float[1,2] y, float[1,2,50,50] z) {
        a = Relu(x)  m = ReduceMean<keepdims=0>(a, axes)  y = Sigmoid(m)
        z = AveragePool<kernel_shape=[2,2], strides=[2,2]>(a) }""",
        axes=np.int64([2, 3]),
    )
    result, report = to_float16(model, x=x)
    assert reasons(report) == {"ReduceMean": "LONG_SUM", "Sigmoid": "NEIGHBOURS"}
    assert report.float32[0].detail == "10000 values"
    assert_agrees(model, result, x=x)


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_sum_is_counted_at_every_opset(opset):
    mean = "ReduceMean<axes=[1]>(a)" if opset < 18 else "ReduceMean(a, axes)"
    text = f"""g (float[N,L] x, int64[1] axes) => (float[N,1] y)
    {{ a = Relu(x) m = {mean} y = Tanh(m) }}"""
    for length, stays in (("16", False), ("17", True), ("M", True)):
        model = graph(text.replace("L", length), opset, axes=np.int64([1]))
        x = draw(2, int(length) if length.isdigit() else 3)
        result, report = to_float16(model, x=x)
        assert ("ReduceMean" in reasons(report)) == stays
        assert_agrees(model, result, x=x)


def test_sum_that_could_overflow_stays():
    model = graph(
        """g (float[N,8] x, int64[1] axes) => (float[N,1] y)
        { a = Relu(x) s = ReduceSum(a, axes) y = Tanh(s) }""",
        axes=np.int64([1]),
    )
    x = np.zeros((1, 8), np.float32)
    x[0, 0] = 4000
    _, report = to_float16(model, x=x)
    assert report.float32[0].reason is Float32Reason.OVERFLOW
    assert "3.2e+04 in a sum of tensor 'a'" in report.float32[0].detail


def test_arithmetic_on_positions_stays_exact():
    x = draw(5000, 1)
    model = graph(
        """g (float[N,1] x, int64 zero, int64 one, float half) => (int64[M] p, float[N,1] y) {
        s = Shape(x)  n = Gather(s, zero)  r = Range(zero, n, one)  f = Cast<to=1>(r)
        h = Mul(f, half)  q = Floor(h)  p = Cast<to=7>(q)  y = Tanh(x) }""",
        zero=np.int64(0),
        one=np.int64(1),
        half=np.float32(0.5),
    )
    result, report = to_float16(model, x=x)
    assert reasons(report) == {"Mul": "FROM_INTEGERS", "Floor": "DISCRETE"}
    np.testing.assert_array_equal(run_onnxruntime(result, x=x)[0], np.arange(5000) // 2)


def test_what_is_rounded_is_computed_in_float32():
    x = (np.arange(1000) / 1000).astype(np.float32)
    model = graph(
        """g (float[N] x, float thousand, float half) => (int64[N] i, float[N] f, float[N] y) {
        a = Mul(x, thousand)  b = Add(a, half)  i = Cast<to=7>(b)  f = Floor(b)  y = Tanh(x) }""",
        thousand=np.float32(1000),
        half=np.float32(0.5),
    )
    result, report = to_float16(model, x=x)
    assert reasons(report) == {"Mul": "ARGUMENT", "Add": "ARGUMENT", "Floor": "DISCRETE"}
    found = run_onnxruntime(result, x=x)
    np.testing.assert_array_equal(found[0], np.arange(1000))
    np.testing.assert_array_equal(found[1], np.arange(1000))


def test_operator_without_float16_form_and_unknown_ones_stay():
    x = draw(2, 3)
    model = graph(
        """g (float[N,3] x, float[3,3] w) => (float[N,3] y)
        { a = Tanh(x) b = Sin(a) c = Celu(b) y = MatMul(c, w) }""",
        w=draw(3, 3),
    )
    result, report = to_float16(model, x=x)
    assert reasons(report) == {"Sin": "UNKNOWN_OPERATOR", "Celu": "NO_FLOAT16_FORM"}
    assert_agrees(model, result, x=x)
