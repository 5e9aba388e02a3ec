import re

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from graphs import graph, operators, run_float64, run_onnxruntime
from tolerances import HALF, assert_close

from keras_bn.export import ExportError
from keras_bn.export.constants import ExactTensor
from keras_bn.export.precision import set_precision
from keras_bn.export.precision_report import Float32Reason, PrecisionReport

FLOAT16, FLOAT32 = ir.DataType.FLOAT16, ir.DataType.FLOAT


def to_float16(model, **inputs):
    """Convert a graph on one batch; the result is valid, its input unchanged, its Casts few."""
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    result, report = set_precision(model, "float16", [inputs])
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    casts = [node for node in result.graph if node.op_type == "Cast"]
    kinds = [(id(cast.inputs[0]), cast.attributes["to"].as_int()) for cast in casts]
    assert len(kinds) == len(set(kinds))
    assert not any(c.inputs[0].producer() in casts for c in casts if c.inputs[0].producer())
    assert report.casts == len(casts) - operators(model).count("Cast")
    return result, report


def run_optimised(model, **inputs):
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def assert_agrees(model, result, tolerance=HALF["float16"], **inputs):
    """Compare a float16 graph in ONNX Runtime, optimised and not, with float64."""
    expected = run_float64(model, **inputs)
    for run in (run_onnxruntime, run_optimised):
        for found, truth in zip(run(result, **inputs), expected, strict=True):
            assert found.dtype == (np.float32 if truth.dtype == np.float64 else truth.dtype)
            assert_close(found, truth, tolerance)


def reasons(report):
    return {row.operator: row.reason.name for row in report.float32}


def precisions(model):
    """Return the dtype of each node's first output, in order, without Casts."""
    return [(node.op_type, node.outputs[0].dtype) for node in model.graph if node.op_type != "Cast"]


def draw(*shape, scale=1.0):
    return (np.random.default_rng(0).normal(size=shape) * scale).astype(np.float32)


def test_keep_returns_the_graph_itself():
    model = graph("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    kept, report = set_precision(model, "keep")
    assert kept is model
    assert report == PrecisionReport("keep")


def test_unknown_precision_is_refused():
    model = graph("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    with pytest.raises(ValueError, match=re.escape("Received: precision='float8'.")):
        set_precision(model, "float8")


def test_convolution_computes_in_float16_between_two_casts():
    x, w, b = draw(2, 3, 6, 6), draw(4, 3, 3, 3), draw(4)
    model = graph(
        """g (float[N,3,6,6] x, float[4,3,3,3] w, float[4] b) => (float[N,4,4,4] y)
        { c = Conv(x, w, b) y = Relu(c) }""",
        w=w,
        b=b,
    )
    result, report = to_float16(model, x=x)
    assert operators(result) == ["Cast", "Conv", "Relu", "Cast"]
    assert [v.name for v in (*result.graph.inputs, *result.graph.outputs)] == ["x", "y"]
    assert [v.dtype for v in (*result.graph.inputs, *result.graph.outputs)] == [FLOAT32] * 2
    assert set(result.graph.initializers) == {"w", "b"}
    assert {v.dtype for v in result.graph.initializers.values()} == {FLOAT16}
    assert all(v.shape is not None for node in result.graph for v in node.outputs)
    assert (report.float16, report.float32, report.casts) == (2, (), 2)
    assert_agrees(model, result, x=x)


def test_weights_are_rounded_once_from_their_exact_value():
    model = graph(
        "g (float[N,1] x, float[1,1] w) => (float[N,1] y) { y = MatMul(x, w) }",
        w=np.ones((1, 1), np.float32),
    )
    exact = 1 + 2.0**-11 + 2.0**-40  # float32 drops the last bit; then float16 rounds to even
    weight = model.graph.initializers["w"]
    weight.const_value = ExactTensor([[exact]], FLOAT32)
    weight.meta["layers"] = frozenset({"dense"})
    result, _ = to_float16(model, x=draw(2, 1))
    weight = result.graph.initializers["w"]
    assert weight.const_value.numpy() == np.float16(1 + 2.0**-10)
    assert weight.meta["layers"] == {"dense"}


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


def test_resize_keeps_the_type_of_its_scales():
    x = draw(1, 2, 4, 4)
    model = graph(
        """g (float[1,2,4,4] x, float[4] scales) => (float[1,2,8,8] y)
        { a = Relu(x) b = Resize<mode="linear">(a, , scales) y = Tanh(b) }""",
        scales=np.float32([1, 1, 2, 2]),
    )
    result, report = to_float16(model, x=x)
    assert report.float32 == ()
    assert result.graph.initializers["scales"].dtype == FLOAT32
    assert_agrees(model, result, x=x)


def test_integers_booleans_and_float64_are_left_alone():
    x = draw(2, 3)
    model = graph(
        """g (float[N,3] x, int64[N,3] i, bool[N,3] b, double[N,3] d)
        => (float[N,3] y, int64[N,3] j, double[N,3] e) {
        j = Add(i, i)  e = Mul(d, d)  m = Cast<to=1>(b)  k = Mul(x, m)  w = Where(b, k, x)
        y = Tanh(w) }"""
    )
    inputs = {"x": x, "i": np.int64([[1, 2, 3]] * 2), "b": x > 0, "d": np.float64(x)}
    result, report = to_float16(model, **inputs)
    assert report.float16 == 3
    assert report.float32 == ()
    cast = next(n for n in result.graph if n.op_type == "Cast" and n.inputs[0].name == "b")
    assert cast.outputs[0].dtype is FLOAT16  # straight from the booleans
    expected = run_onnxruntime(model, **inputs)
    for found, value in zip(run_onnxruntime(result, **inputs), expected, strict=True):
        assert found.dtype == value.dtype
        assert_close(found, value, HALF["float16"])


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


def test_several_outputs_shared_tensors_and_outputs_that_are_read():
    x = draw(2, 4)
    model = graph(
        """g (float[N,4] x, float[4,4] w, float[4] c) => (float[N,4] a, float[N,4] y, float[N,4] z)
        { a = MatMul(x, w)  b = Add(a, c)  y = Softmax(b)  d = MatMul(b, w)  z = Relu(d) }""",
        w=draw(4, 4),
        c=draw(4),
    )
    result, report = to_float16(model, x=x)
    assert [v.name for v in result.graph.outputs] == ["a", "y", "z"]
    assert reasons(report) == {"Softmax": "SENSITIVE"}
    assert_agrees(model, result, x=x)


def test_constant_read_in_both_precisions_is_there_twice():
    x = draw(2, 4)
    model = graph(
        """g (float[N,4] x, float[4] c) => (float[N,4] y, float[N,4] z)
        { y = Mul(x, c) e = Exp(x) z = Pow(e, c) }""",
        c=np.float32([0.1, 0.2, 0.3, 0.4]),
    )
    result, _ = to_float16(model, x=x)
    found = {name: value.dtype for name, value in result.graph.initializers.items()}
    assert found == {"c": FLOAT32, "c_float16": FLOAT16}
    assert_agrees(model, result, x=x)


def test_subgraph_stays_and_reads_float32():
    x, w = draw(2, 3), draw(3, 3)
    model = graph(
        """g (float[N,3] x, bool b, float[3,3] w) => (float[N,3] y) {
        a = MatMul(x, w)
        c = If(b) <
            then_branch = t () => (float[N,3] p) { q = Mul(a, a) p = MatMul(q, w) },
            else_branch = e () => (float[N,3] r) { r = Neg(a) }
        >
        y = MatMul(c, w) }""",
        w=w,
    )
    inputs = {"x": x, "b": np.array(True)}
    result, report = to_float16(model, **inputs)
    assert reasons(report) == {"If": "SUBGRAPH"}
    assert report.float16 == 2
    assert_agrees(model, result, **inputs)
    assert_agrees(model, result, x=x, b=np.array(False))


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


def test_node_of_another_domain_stays():
    x = draw(2, 3)
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18, "com.microsoft": 1]>
        g (float[N,3] x) => (float[N,3] y)
        { a = Tanh(x) b = com.microsoft.QuickGelu(a) y = Relu(b) }"""
    )
    model = ir.from_proto(proto)
    before = run_onnxruntime(model, x=x)
    result, report = set_precision(model, "float16", [{"x": x}])
    assert reasons(report) == {"QuickGelu": "OTHER_DOMAIN", "Relu": "UNKNOWN_TYPE"}
    assert_close(run_onnxruntime(result, x=x)[0], before[0], HALF["float16"])


@pytest.mark.parametrize(
    "text",
    [
        "g (double[N] x) => (double[N] y) { y = Relu(x) }",
        "g (int64[N] x) => (int64[N] y) { y = Add(x, x) }",
        "g (float[N] x) => (float[N] y) { y = Softmax(x) }",
        "g (float[N] x) => (float[N] y) { a = Exp(x) y = Log(a) }",
    ],
    ids=["float64", "integers", "softmax alone", "sensitive alone"],
)
def test_graph_with_nothing_for_float16_is_refused(text):
    model = graph(text)
    x = np.ones(2, model.graph.inputs[0].dtype.numpy())
    with pytest.raises(ExportError, match=r"at least one node .* Received: .*`precision='keep'`"):
        set_precision(model, "float16", [{"x": x}])


def test_values_that_are_not_finite_are_refused():
    model = graph("g (float[N] x) => (float[N] y) { a = Sqrt(x) y = Relu(a) }")
    with pytest.raises(ExportError, match="Received: NaN in tensor 'a'"):
        set_precision(model, "float16", [{"x": np.float32([1, 2, -1])}])
    model = graph("g (float[N] x) => (float[N] y) { a = Exp(x) y = Relu(a) }")
    with pytest.raises(ExportError, match="Received: Inf in tensor 'a'"):
        set_precision(model, "float16", [{"x": np.float32([1000])}])


def test_unusable_samples_are_refused():
    model = graph("g (float[N,2] x, float[2] z) => (float[N,2] y) { y = Add(x, z) }")
    with pytest.raises(ExportError, match="Received: none"):
        set_precision(model, "float16")
    with pytest.raises(ExportError, match=re.escape("Received: arrays ['x']")):
        set_precision(model, "float16", [{"x": draw(1, 2)}])
    with pytest.raises(ExportError, match="ONNX Runtime must run the graph"):
        set_precision(model, "float16", [{"x": draw(1, 3), "z": draw(2)}])


def test_empty_tensors_and_scalars_are_no_evidence():
    model = graph("g (float[N,2] x, float s) => (float[N,2] y) { a = Mul(x, s) y = Tanh(a) }")
    result, report = to_float16(model, x=draw(0, 2), s=np.array(2, np.float32))
    assert report.float16 == 2
    assert_agrees(model, result, x=draw(3, 2), s=np.array(2, np.float32))


def test_report_groups_by_reason_and_turns_into_json():
    x = draw(2, 3)
    model = graph(
        """g (float[N,3] x) => (float[N,3] y, float[N,3] z)
        { a = Tanh(x) y = Softmax(a) z = Exp(a) }"""
    )
    _, report = to_float16(model, x=x)
    assert "1 nodes compute in float16, 2 in float32, 2 Casts" in str(report)
    assert "Softmax" in str(report)
    assert "and 1 others" in str(report)
    assert report.to_dict()["float32"][0]["reason"] == str(Float32Reason.SENSITIVE)
    assert str(PrecisionReport("keep")) == "precision: keep"
