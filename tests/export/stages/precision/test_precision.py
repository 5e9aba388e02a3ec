import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_bn.export import ExportError
from keras_bn.export.graph.exact import ExactTensor
from keras_bn.export.stages.precision.report import Float32Reason, PrecisionReport
from keras_bn.export.stages.precision.set_precision import set_precision
from tests.export.graphs import graph, operators, run_onnxruntime
from tests.export.stages.precision.halves import (
    FLOAT16,
    FLOAT32,
    assert_agrees,
    draw,
    reasons,
    to_float16,
)
from tests.tolerances import HALF, assert_close


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
