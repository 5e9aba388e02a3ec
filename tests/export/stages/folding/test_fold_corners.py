"""Corners where a map that seems to pass does not, and what half precision loses."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_bn.export import Reason
from keras_bn.export.stages.folding.fold import fold
from tests.export.graphs import graph, operators, run_onnxruntime
from tests.export.stages.folding.fold_checks import check_fold

X, Y = "float[2,4,6,6] x", "float[2,4,6,6] y"
BN = "BatchNormalization"


def single(*shape):
    return np.random.default_rng(0).uniform(0.5, 2.0, shape).astype(np.float32)


def half(*shape):
    return single(*shape).astype(np.float16)


def error(model, folded, x):
    """Return how far a folded graph in float16 is from the unfolded one, both in float64."""
    runs = []
    for graph_ in (model, folded):
        proto = ir.to_proto(graph_)
        for tensor in proto.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            if array.dtype == np.float16:
                wide = onnx.numpy_helper.from_array(array.astype(np.float64), tensor.name)
                tensor.CopyFrom(wide)
        runs.append(onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x.astype(float)})[0])
    return np.abs(runs[1] - runs[0]).max() / np.abs(runs[0]).max()


@pytest.mark.parametrize("mode", ["edge", "reflect", "constant"])
def test_pad_and_crop_by_the_same_keeps_the_size_and_not_the_channels(mode):
    model = graph(
        f"""g ({X}, float[4,1,1] k) => ({Y}) {{
            a = Mul(x, k) p = Pad<mode = "{mode}">(a, pads) y = Conv(p, w)
        }}""",
        k=single(4, 1, 1),
        w=single(4, 4, 1, 1),
        pads=np.array([0, 1, 0, 0, 0, -1, 0, 0]),
    )
    folded, report = fold(model)
    assert operators(folded) == ["Mul", "Pad", "Conv"]
    assert report.refusals[0].forward_reason is Reason.NOT_PER_CHANNEL


def test_resize_by_a_factor_that_rounds_back_to_the_same_size():
    model = graph(
        f"""g ({X}, float[4,1,1] k) => ({Y}) {{
            a = Mul(x, k)
            r = Resize<axes = [1, 2], mode = "linear",
                       coordinate_transformation_mode = "asymmetric">(a, , factors)
            y = Conv(r, w)
        }}""",
        k=single(4, 1, 1),
        w=single(4, 4, 1, 1),
        factors=np.float32([1.2, 1.0]),
    )
    folded, _ = check_fold(model, {"x": single(2, 4, 6, 6)})
    assert operators(folded) == ["Mul", "Resize", "Conv"]


def test_weights_of_an_outer_graph_go_when_a_body_takes_their_place():
    model = graph(
        f"""g ({X}, bool c, float[4,1,1] k) => ({Y}) {{
            y = If(c)<
                then_branch = t () => (float[2,4,6,6] r) {{ v = Conv(x, w) r = Mul(v, k) }},
                else_branch = e () => (float[2,4,6,6] q) {{ q = Sigmoid(x) }}
            >
        }}""",
        k=single(4, 1, 1),
        w=single(4, 4, 1, 1),
    )
    folded, _ = fold(model)
    assert list(folded.graph.initializers) == []
    inputs = {"x": single(2, 4, 6, 6), "c": np.array(True)}
    (expected,), (actual,) = (run_onnxruntime(m, **inputs) for m in (model, folded))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_variance_that_half_precision_holds_badly_is_not_told():
    h = "float16"
    model = graph(
        f"""g ({h}[2,4,6,6] x, {h} k, {h}[4] g, {h}[4] b, {h}[4] m, {h}[4] v)
            => ({h}[2,4,6,6] y) {{ a = Mul(x, k) c = {BN}(a, g, b, m, v) y = Sigmoid(c) }}""",
        k=np.float16(1000),
        **{name: half(4) for name in "gbmv"},
    )
    folded, _ = fold(model)
    assert operators(folded) == [BN, "Sigmoid"]
    assert error(model, folded, half(2, 4, 6, 6) / 1000) < 2.0**-11


def test_scale_that_would_sink_a_channel_of_the_weights_behind_it():
    model = graph(
        "g (float16[2,4,6,6] x, float16[4,1,1] k) => (float16[2,3,6,6] y)"
        "{ a = Mul(x, k) y = Conv(a, w) }",
        k=np.float16([1, 1, 1, 5e-5]).reshape(4, 1, 1),
        w=half(3, 4, 1, 1) / 50,
    )
    folded, report = fold(model)
    assert operators(folded) == ["Mul", "Conv"]
    assert report.refusals[0].forward_reason is Reason.BITS_LOST


@pytest.mark.parametrize("shape", [(), (4, 1, 1)])
def test_two_scales_whose_product_would_sink(shape):
    model = graph(
        "g (float16[2,4,6,6] x) => (float16[2,4,6,6] y)"
        "{ s = Sigmoid(x) a = Mul(s, k) b = Mul(a, k) y = Tanh(b) }",
        k=np.full(shape, 1e-4, np.float16),
    )
    folded, report = fold(model)
    assert operators(folded) == ["Sigmoid", "Mul", "Mul", "Tanh"]
    assert Reason.BITS_LOST in {row.forward_reason for row in report.refusals}


def test_dead_channel_that_does_not_shrink_folds():
    w = half(4, 4, 1, 1)
    w[1] = 1e-7
    model = graph(
        "g (float16[2,4,6,6] x) => (float16[2,4,6,6] y) { c = Conv(x, w) y = Mul(c, k) }",
        w=w,
        k=half(4, 1, 1) + np.float16(0.5),
    )
    assert operators(fold(model)[0]) == ["Conv"]
