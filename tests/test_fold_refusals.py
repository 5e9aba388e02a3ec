"""One test for each refusal: nothing is rewritten, and the reason is told."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph

from keras_bn.export import Reason, fold_batch_norms
from keras_bn.export.constants import evaluate_constants

W, V = "float[4,3,3,3] w", "float[4] g, float[4] b, float[4] m, float[4] v"
X, Y = "float[2,3,8,8] x", "float[2,4,6,6] y"
BN = "BatchNormalization"


def weights(*names):
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "k": (1, 4, 1, 1), "d": (3, 4), "t": (3, 4, 3, 3)}
    arrays = {name: rng.uniform(0.5, 2.0, shapes.get(name, (4,))) for name in names}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def assert_refused(model, reason, detail=""):
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    folded, report = fold_batch_norms(model)
    assert ir.to_proto(folded).SerializeToString(deterministic=True) == before
    assert report.folds == ()
    assert [refusal.reason for refusal in report.refusals] == [reason]
    assert detail in report.refusals[0].detail


def test_nonlinearity_in_between():
    model = graph(
        f"a ({X}, {W}, {V}) => ({Y}) {{ c = Conv(x, w) r = Relu(c) y = {BN}(r, g, b, m, v) }}",
        **weights(*"wgbmv"),
    )
    assert_refused(model, Reason.PRODUCER_NOT_LINEAR, "Relu")


def test_graph_input_before_it():
    model = graph(
        f"a (float[2,4,6,6] x, {V}) => ({Y}) {{ y = {BN}(x, g, b, m, v) }}", **weights(*"gbmv")
    )
    assert_refused(model, Reason.PRODUCER_NOT_LINEAR, "'x'")


def test_operator_that_this_version_does_not_fold_into():
    model = graph(
        f"a ({X}, float[3,4,3,3] t, float[1,4,1,1] k) => (float[2,4,10,10] y)"
        "{ c = ConvTranspose(x, t) y = Mul(c, k) }",
        **weights(*"tk"),
    )
    assert_refused(model, Reason.OPERATOR_NOT_SUPPORTED, "ConvTranspose")


def test_training_mode():
    model = graph(
        f"a ({X}, {W}, {V}) => ({Y}, float[4] m2, float[4] v2)"
        f"{{ c = Conv(x, w) y, m2, v2 = {BN}<training_mode = 1>(c, g, b, m, v) }}",
        **weights(*"wgbmv"),
    )
    assert_refused(model, Reason.TRAINING_MODE)


@pytest.mark.parametrize("free", ["g", "v"])
def test_statistics_that_are_graph_inputs(free):
    model = graph(
        f"a ({X}, {W}, {V}) => ({Y}) {{ c = Conv(x, w) y = {BN}(c, g, b, m, v) }}",
        **weights(*"wgbmv".replace(free, "")),
    )
    assert_refused(model, Reason.PARAMETERS_NOT_CONSTANT)


def test_weight_that_is_a_graph_input():
    model = graph(
        f"a ({X}, {W}, {V}) => ({Y}) {{ c = Conv(x, w) y = {BN}(c, g, b, m, v) }}",
        **weights(*"gbmv"),
    )
    assert_refused(model, Reason.WEIGHT_NOT_CONSTANT)


def test_initializer_that_a_caller_may_override():
    model = graph(
        f"a ({X}, {W}, float[1,4,1,1] k) => ({Y}) {{ c = Conv(x, w) y = Mul(c, k) }}",
        **weights(*"wk"),
    )
    model.graph.inputs.append(model.graph.initializers["w"])
    assert_refused(model, Reason.WEIGHT_NOT_CONSTANT)


def test_bias_that_is_a_graph_input():
    model = graph(
        f"a ({X}, {W}, float[4] b, float[1,4,1,1] k) => ({Y}){{ c = Conv(x, w, b) y = Mul(c, k) }}",
        **weights(*"wk"),
    )
    assert_refused(model, Reason.WEIGHT_NOT_CONSTANT, "bias")


def test_output_that_is_also_a_graph_output():
    model = graph(
        f"a ({X}, {W}, float[1,4,1,1] k) => (float[2,4,6,6] c, {Y})"
        "{ c = Conv(x, w) y = Mul(c, k) }",
        **weights(*"wk"),
    )
    assert_refused(model, Reason.OUTPUT_IS_GRAPH_OUTPUT, "'c'")


def test_output_with_another_reader():
    model = graph(
        f"a ({X}, {W}, float[1,4,1,1] k) => ({Y}, float[2,4,6,6] z)"
        "{ c = Conv(x, w) y = Mul(c, k) z = Relu(c) }",
        **weights(*"wk"),
    )
    assert_refused(model, Reason.OUTPUT_USED_ELSEWHERE, "2 readers")


def test_matmul_output_with_another_reader_before_its_bias():
    model = graph(
        "a (float[2,5,3] x, float[3,4] d, float[4] b) => (float[2,5,4] y, float[2,5,4] z)"
        "{ c = MatMul(x, d) e = Add(c, b) y = Relu(e) z = Relu(c) }",
        **weights(*"db"),
    )
    assert_refused(model, Reason.OUTPUT_USED_ELSEWHERE)


@pytest.mark.parametrize(
    "sizes", [(6,), (6, 6), (6, 1), (2, 1, 1, 1), (2, 4, 6, 6), (1, 1, 4, 1, 1)]
)
def test_constant_that_is_not_per_channel(sizes):
    declared = ",".join(map(str, sizes))
    out = "float[1,2,4,6,6] y" if len(sizes) == 5 else Y
    model = graph(
        f"a ({X}, {W}, float[{declared}] k) => ({out}) {{ c = Conv(x, w) y = Mul(c, k) }}",
        **weights("w"),
        k=np.ones(sizes, np.float32),
    )
    assert_refused(model, Reason.NOT_PER_CHANNEL)


@pytest.mark.parametrize("sizes", [(4,), (4, 1)])
def test_constant_along_width_or_height_of_the_size_of_the_channels(sizes):
    declared = ",".join(map(str, sizes))
    model = graph(
        f"a (float[2,3,6,6] x, {W}, float[{declared}] k) => (float[2,4,4,4] y)"
        "{ c = Conv(x, w) y = Mul(c, k) }",
        **weights("w"),
        k=np.ones(sizes, np.float32),
    )
    assert_refused(model, Reason.NOT_PER_CHANNEL, "'k' of shape")


@pytest.mark.parametrize("bias", ["float[1,1,4] r", "float[1,1,1] r"])
def test_bias_that_adds_a_dimension(bias):
    model = graph(
        f"a (float[2,3] x, float[3,4] d, {bias}, float[4] k) => (float[1,2,4] y)"
        "{ c = MatMul(x, d) e = Add(c, r) y = Mul(e, k) }",
        **weights("d"),
        r=np.ones((1, 1, 4 if "4" in bias else 1), np.float32),
        k=np.ones(4, np.float32),
    )
    _, report = fold_batch_norms(model)
    assert report.folds == ()
    assert [r.reason for r in report.refusals] == [Reason.NOT_PER_CHANNEL] * 2


def test_computed_constant_is_described(rng):
    model = graph(
        f"a (float[2,3,8,8] x, {W}, float[6] k) => (float[2,4,6,6] y)"
        "{ c = Conv(x, w) n = Neg(k) y = Mul(c, n) }",
        **weights("w"),
        k=np.ones(6, np.float32),
    )
    _, report = fold_batch_norms(evaluate_constants(model))
    assert "'n' of shape [6]" in report.refusals[0].detail


def test_one_output_channel_that_the_constant_expands():
    model = graph(
        "a (float[2,3,8,8] x, float[1,3,3,3] w, float[1,4,1,1] k) => (float[2,4,6,6] y)"
        "{ c = Conv(x, w) y = Mul(c, k) }",
        w=np.ones((1, 3, 3, 3), np.float32),
        k=np.ones((1, 4, 1, 1), np.float32),
    )
    assert_refused(model, Reason.NOT_PER_CHANNEL)


def test_gemm_bias_that_differs_by_row():
    model = graph(
        "a (float[4,3] x, float[3,4] d, float[4,1] r, float[4] k) => (float[4,4] y)"
        "{ c = Gemm(x, d, r) y = Mul(c, k) }",
        **weights("d"),
        r=np.ones((4, 1), np.float32),
        k=np.ones(4, np.float32),
    )
    assert_refused(model, Reason.NOT_PER_CHANNEL, "bias")


def test_batch_norm_of_axis_1_behind_a_rank_3_matmul():
    model = graph(
        f"a (float[2,4,3] x, float[3,4] d, {V}) => (float[2,4,4] y)"
        f"{{ c = MatMul(x, d) y = {BN}(c, g, b, m, v) }}",
        **weights(*"dgbmv"),
    )
    assert_refused(model, Reason.NOT_PER_CHANNEL)


def test_bias_of_a_matmul_that_cannot_become_a_gemm():
    model = graph(
        "a (float[2,5,3] x, float[3,4] d, float[4] k) => (float[2,5,4] y)"
        "{ c = MatMul(x, d) y = Add(c, k) }",
        **weights("d"),
        k=np.ones(4, np.float32),
    )
    assert_refused(model, Reason.OPERATOR_HAS_NO_BIAS)


def test_matmul_with_a_stack_of_matrices():
    model = graph(
        "a (float[2,5,3] x, float[2,3,4] d, float[4] k) => (float[2,5,4] y)"
        "{ c = MatMul(x, d) y = Mul(c, k) }",
        d=np.ones((2, 3, 4), np.float32),
        k=np.ones(4, np.float32),
    )
    assert_refused(model, Reason.OPERATOR_NOT_SUPPORTED, "rank 3")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_statistics_that_are_not_finite(value):
    arrays = weights(*"wgbmv")
    arrays["m"][2] = value
    model = graph(
        f"a ({X}, {W}, {V}) => ({Y}) {{ c = Conv(x, w) y = {BN}(c, g, b, m, v) }}", **arrays
    )
    assert_refused(model, Reason.NOT_FINITE)


def test_weight_that_would_overflow_its_dtype():
    model = graph(
        "a (float16[2,3,8,8] x, float16[4,3,3,3] w, float16[1,4,1,1] k) => (float16[2,4,6,6] y)"
        "{ c = Conv(x, w) y = Mul(c, k) }",
        w=np.full((4, 3, 3, 3), 300.0, np.float16),
        k=np.full((1, 4, 1, 1), 300.0, np.float16),
    )
    assert_refused(model, Reason.NOT_FINITE, "FLOAT16")


def test_division_by_zero():
    model = graph(
        f"a ({X}, {W}, float[1,4,1,1] k) => ({Y}) {{ c = Conv(x, w) y = Div(c, k) }}",
        **weights("w"),
        k=np.zeros((1, 4, 1, 1), np.float32),
    )
    assert_refused(model, Reason.NOT_FINITE)


def test_chain_has_one_cause():
    model = graph(
        "a (float[2,4] x, float[4] k, float[4] b) => (float[2,4] y)"
        "{ r = Relu(x) s = Mul(r, k) y = Add(s, b) }",
        **weights("b"),
        k=np.ones(4, np.float32),
    )
    _, report = fold_batch_norms(model)
    assert [refusal.reason for refusal in report.refusals] == [Reason.PRODUCER_NOT_LINEAR] * 2
    assert {"Relu" in refusal.detail for refusal in report.refusals} == {True}


def test_other_domains_are_not_touched():
    model = graph(f"a ({X}, {W}) => (float[2,4,6,6] y) {{ y = Conv(x, w) }}", **weights("w"))
    node = ir.node("Mul", [model.graph.outputs[0], model.graph.initializers["w"]], domain="mine")
    model.graph.append(node)
    _, report = fold_batch_norms(model)
    assert (report.folds, report.refusals) == ((), ())


def test_every_reason_has_a_test():
    source = Path(__file__).read_text(encoding="utf-8")
    assert [reason.name for reason in Reason if f"Reason.{reason.name}" not in source] == []
