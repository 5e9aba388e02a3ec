"""One test for each refusal: nothing is rewritten, and the reason is told."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from keras_bn.export import Reason
from keras_bn.export.stages.constants.evaluate import evaluate_constants
from keras_bn.export.stages.folding.fold import fold
from tests.export.graphs import graph

W, V = "float[4,3,3,3] w", "float[4] g, float[4] b, float[4] m, float[4] v"
X, Y = "float[2,3,8,8] x", "float[2,4,6,6] y"
BN = "BatchNormalization"
K = np.array([0.5, 1.5, 2.0, 3.0], np.float32)


def weights(*names):
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "k": (1, 4, 1, 1), "d": (3, 4), "t": (3, 4, 3, 3)}
    arrays = {name: rng.uniform(0.5, 2.0, shapes.get(name, (4,))) for name in names}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def assert_refused(model, reason, detail="", forward=None, forward_detail=""):
    """Assert that one operator stays, why backward and why forward, and that no byte changes."""
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    folded, report = fold(model)
    assert ir.to_proto(folded).SerializeToString(deterministic=True) == before
    assert report.folds == ()
    (refusal,) = report.refusals
    assert (refusal.reason, refusal.forward_reason) == (reason, forward)
    assert detail in refusal.detail
    assert forward_detail in refusal.forward_detail


def test_nonlinearity_in_between():
    model = graph(
        f"a ({X}, {W}, {V}) => ({Y}) {{ c = Conv(x, w) r = Relu(c) y = {BN}(r, g, b, m, v) }}",
        **weights(*"wgbmv"),
    )
    assert_refused(model, Reason.SHIFT, "Relu", Reason.GRAPH_OUTPUT, "'y'")


def test_graph_input_before_it():
    model = graph(
        f"a (float[2,4,6,6] x, {V}) => ({Y}) {{ y = {BN}(x, g, b, m, v) }}", **weights(*"gbmv")
    )
    assert_refused(model, Reason.GRAPH_INPUT, "'x'", Reason.GRAPH_OUTPUT)


def test_nonlinearity_on_both_sides():
    model = graph(
        "a (float[2,4] x, float[4] k) => (float[2,4] y) { t = Tanh(x) m = Mul(t, k) y = Exp(m) }",
        k=K,
    )
    assert_refused(model, Reason.NOT_LINEAR, "Tanh", Reason.NOT_LINEAR, "Exp")


def test_operator_that_is_not_known():
    model = graph(
        f"a (float[2,4,6,6] x, float[1,4,1,1] k) => ({Y}) {{ c = CumSum(x, i) y = Mul(c, k) }}",
        **weights("k"),
        i=np.array(2, np.int64),
    )
    assert_refused(model, Reason.OPERATOR_UNKNOWN, "CumSum", Reason.GRAPH_OUTPUT)


def test_operator_of_another_domain():
    model = graph(
        f"a (float[2,4,6,6] x, float[1,4,1,1] k) => ({Y}) {{ c = Relu(x) y = Mul(c, k) }}",
        **weights("k"),
    )
    model.graph[0].domain = "mine"
    assert_refused(model, Reason.OPERATOR_UNKNOWN, "'mine'", Reason.GRAPH_OUTPUT)


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
    assert_refused(model, Reason.WEIGHT_NOT_CONSTANT, "'w'", Reason.GRAPH_OUTPUT)


def test_initializer_that_a_caller_may_override():
    model = graph(
        f"a ({X}, {W}, float[1,4,1,1] k) => ({Y}) {{ c = Conv(x, w) y = Mul(c, k) }}",
        **weights(*"wk"),
    )
    model.graph.inputs.append(model.graph.initializers["w"])
    assert_refused(model, Reason.WEIGHT_NOT_CONSTANT, "'w'", Reason.GRAPH_OUTPUT)


def test_bias_that_is_a_graph_input():
    model = graph(
        f"a ({X}, {W}, float[4] b, float[1,4,1,1] k) => ({Y}){{ c = Conv(x, w, b) y = Mul(c, k) }}",
        **weights(*"wk"),
    )
    assert_refused(model, Reason.WEIGHT_NOT_CONSTANT, "bias 'b'", Reason.GRAPH_OUTPUT)


def test_output_that_is_also_a_graph_output():
    model = graph(
        f"a ({X}, {W}, float[1,4,1,1] k) => (float[2,4,6,6] c, {Y})"
        "{ c = Conv(x, w) y = Mul(c, k) }",
        **weights(*"wk"),
    )
    assert_refused(model, Reason.GRAPH_OUTPUT, "'c'", Reason.GRAPH_OUTPUT, "'y'")


def test_output_with_another_reader():
    model = graph(
        f"a ({X}, {W}, float[1,4,1,1] k) => ({Y}, float[2,4,6,6] z)"
        "{ c = Conv(x, w) y = Mul(c, k) z = Relu(c) }",
        **weights(*"wk"),
    )
    assert_refused(model, Reason.USED_ELSEWHERE, "2 readers", Reason.GRAPH_OUTPUT)


@pytest.mark.parametrize(
    "sizes", [(6,), (6, 6), (6, 1), (2, 1, 1, 1), (2, 4, 6, 6), (1, 1, 4, 1, 1)]
)
def test_constant_that_is_not_per_channel(sizes):
    declared = ",".join(map(str, sizes))
    out = "float[1,2,4,6,6] y" if len(sizes) == 5 else Y
    model = graph(
        f"a ({X}, {W}, float[{declared}] k) => ({out}) {{ c = Conv(x, w) y = Mul(c, k) }}",
        **weights("w"),
        k=np.arange(1, 1 + np.prod(sizes), dtype=np.float32).reshape(sizes),
    )
    forward = None if len(sizes) == 5 else Reason.GRAPH_OUTPUT
    assert_refused(model, Reason.NOT_PER_CHANNEL, "", forward)


@pytest.mark.parametrize("sizes", [(4,), (4, 1)])
def test_constant_along_width_or_height_of_the_size_of_the_channels(sizes):
    declared = ",".join(map(str, sizes))
    model = graph(
        f"a (float[2,3,6,6] x, {W}, float[{declared}] k) => (float[2,4,4,4] y)"
        "{ c = Conv(x, w) y = Mul(c, k) }",
        **weights("w"),
        k=np.arange(1, 5, dtype=np.float32).reshape(sizes),
    )
    assert_refused(model, Reason.NOT_PER_CHANNEL, "Conv", Reason.GRAPH_OUTPUT)


def test_constant_that_adds_dimensions():
    model = graph(
        "a (float[2,3] x, float[3,4] d, float[1,1,4] r) => (float[1,2,4] y)"
        "{ c = MatMul(x, d) y = Add(c, r) }",
        **weights("d"),
        r=np.ones((1, 1, 4), np.float32),
    )
    assert_refused(model, Reason.NOT_PER_CHANNEL, "'r' of shape [1, 1, 4]")


def test_computed_constant_is_described():
    model = graph(
        f"a (float[2,3,8,8] x, {W}, float[6] k) => (float[2,4,6,6] y)"
        "{ c = Conv(x, w) n = Neg(k) y = Mul(c, n) }",
        **weights("w"),
        k=np.arange(6, dtype=np.float32),
    )
    _, report = fold(evaluate_constants(model))
    assert "differs along axis 3" in report.refusals[0].detail


def test_one_output_channel_that_the_constant_expands():
    model = graph(
        "a (float[2,3,8,8] x, float[1,3,3,3] w, float[1,4,1,1] k) => (float[2,4,6,6] y)"
        "{ c = Conv(x, w) y = Mul(c, k) }",
        w=np.ones((1, 3, 3, 3), np.float32),
        k=np.ones((1, 4, 1, 1), np.float32),
    )
    assert_refused(model, Reason.NOT_PER_CHANNEL, "for a tensor of shape [2, 1, 6, 6]")


def test_batch_norm_of_axis_1_behind_a_rank_3_matmul():
    model = graph(
        f"a (float[2,4,3] x, float[3,4] d, {V}) => (float[2,4,4] y)"
        f"{{ c = MatMul(x, d) y = {BN}(c, g, b, m, v) }}",
        **weights(*"dgbmv"),
    )
    assert_refused(model, Reason.NOT_PER_CHANNEL, "MatMul", Reason.GRAPH_OUTPUT)


def test_bias_of_a_matmul_that_cannot_become_a_gemm():
    model = graph(
        "a (float[2,5,3] x, float[3,4] d, float[4] k) => (float[2,5,4] y)"
        "{ c = MatMul(x, d) y = Add(c, k) }",
        **weights("d"),
        k=np.ones(4, np.float32),
    )
    assert_refused(model, Reason.OPERATOR_HAS_NO_BIAS, "MatMul", Reason.GRAPH_OUTPUT)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_statistics_that_are_not_finite(value):
    arrays = weights(*"wgbmv")
    arrays["m"][2] = value
    model = graph(
        f"a ({X}, {W}, {V}) => ({Y}) {{ c = Conv(x, w) y = {BN}(c, g, b, m, v) }}", **arrays
    )
    assert_refused(model, Reason.NOT_FINITE, "y")


def test_weight_that_would_overflow_its_dtype():
    model = graph(
        "a (float16[2,3,8,8] x, float16[4,3,3,3] w, float16[1,4,1,1] k) => (float16[2,4,6,6] y)"
        "{ c = Conv(x, w) y = Mul(c, k) }",
        w=np.full((4, 3, 3, 3), 300.0, np.float16),
        k=np.full((1, 4, 1, 1), 300.0, np.float16),
    )
    assert_refused(model, Reason.NOT_FINITE, "w in FLOAT16", Reason.GRAPH_OUTPUT)


def test_division_by_zero():
    model = graph(
        f"a ({X}, {W}, float[1,4,1,1] k) => ({Y}) {{ c = Conv(x, w) y = Div(c, k) }}",
        **weights("w"),
        k=np.zeros((1, 4, 1, 1), np.float32),
    )
    assert_refused(model, Reason.NOT_FINITE, "y")


def test_weight_that_would_sink_below_the_normal_numbers_of_its_dtype():
    scale = np.array([1.0, 1.0, 2.0**-12, 1.0], np.float16)
    model = graph(
        "a (float16[2,3,8,8] x, float16[4,3,3,3] w, float16[4,1,1] k) => (float16[2,4,6,6] y)"
        "{ c = Conv(x, w) y = Mul(c, k) }",
        w=np.full((4, 3, 3, 3), 2.0**-6, np.float16),
        k=scale.reshape(4, 1, 1),
    )
    assert_refused(model, Reason.BITS_LOST, "3.81e-06", Reason.GRAPH_OUTPUT)


def test_shift_in_front_of_zero_padding():
    model = graph(
        f"a (float[2,3,6,6] x, {W}, float[3,1,1] k) => ({Y})"
        "{ a = Add(x, k) y = Conv<pads = [1, 1, 1, 1]>(a, w) }",
        **weights("w"),
        k=np.array([0.5, 0.0, 0.0], np.float32).reshape(3, 1, 1),
    )
    assert_refused(model, Reason.GRAPH_INPUT, "'x'", Reason.ZERO_PADDING, "Conv")


@pytest.mark.parametrize(
    "node",
    [
        pytest.param("Pad(c, shifted)", id="a Pad that keeps the size and moves the channels"),
        pytest.param("Resize(c, none, factors)", id="a Resize by 1.2, which keeps 4 channels"),
        pytest.param("Resize<axes = [1]>(c, none, factor)", id="likewise, of one axis"),
    ],
)
def test_channels_that_are_moved_though_their_number_stays(node):
    constants = {
        "shifted": np.array([0, 1, 0, 0, 0, -1, 0, 0]),
        "none": np.float32([]),
        "factors": np.float32([1, 1.2, 1, 1]),
        "factor": np.float32([1.2]),
    }
    model = graph(
        f"a ({X}, {W}, float[4,1,1] h, int64[8] shifted, float[0] none, float[4] factors,"
        f"float[1] factor) => ({Y}) {{ c = Conv(x, w) p = {node} y = Mul(p, h) }}",
        **weights("w"),
        h=K.reshape(4, 1, 1),
        **constants,
    )
    for name in set(constants) - {value.name for value in model.graph[1].inputs}:
        del model.graph.initializers[name]
    assert_refused(model, Reason.NOT_PER_CHANNEL, "differs along axis 1", Reason.GRAPH_OUTPUT)


def test_scale_in_front_that_would_sink_in_half_precision():
    model = graph(
        "a (float16[2,3,8,8] x, float16[4,3,3,3] w, float16[3,1,1] k) => (float16[2,4,6,6] y)"
        "{ s = Mul(x, k) y = Conv(s, w) }",
        w=np.full((4, 3, 3, 3), 2.0**-6, np.float16),
        k=np.array([1.0, 2.0**-12, 1.0], np.float16).reshape(3, 1, 1),
    )
    assert_refused(model, Reason.GRAPH_INPUT, "'x'", Reason.BITS_LOST, "3.81e-06")


def test_negative_scale_behind_a_maximum():
    model = graph(
        "a (float[2,3,8,8] x, float[4,3,3,3] w, float[4,1,1] k) => (float[2,4,3,3] y)"
        "{ c = Conv(x, w) m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(c) y = Mul(m, k) }",
        **weights("w"),
        k=np.array([1.0, -1.0, 2.0, 1.0], np.float32).reshape(4, 1, 1),
    )
    assert_refused(model, Reason.NEGATIVE_SCALE, "MaxPool", Reason.GRAPH_OUTPUT)


def test_map_that_would_need_two_operators():
    model = graph(
        "a (float[2,5,4] x, float[4] k, float[4] b) => (float[2,5,4] y)"
        "{ s = Mul(x, k) y = Add(s, b) }",
        k=np.array([1, 0, 2, 3], np.float32),  # nothing can be divided by zero
        **weights("b"),
    )
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    folded, report = fold(model)
    assert ir.to_proto(folded).SerializeToString(deterministic=True) == before
    scale, shift = report.refusals
    assert (scale.reason, scale.forward_reason) == (Reason.GRAPH_INPUT, Reason.NOT_ONE_OPERATOR)
    assert (shift.reason, shift.forward_reason) == (Reason.NOT_ONE_OPERATOR, Reason.GRAPH_OUTPUT)


def test_tensor_of_unknown_rank():
    model = graph(
        f"a ({X}, {W}, float[1,4,1,1] k) => ({Y}) {{ c = Conv(x, w) y = Mul(c, k) }}",
        **weights("w", "k"),
    )
    model.graph[0].outputs[0].shape = None
    assert_refused(model, Reason.SHAPE_UNKNOWN, "")


def test_tensor_that_a_subgraph_reads():
    model = graph(
        f"a ({X}, {W}, float[1,4,1,1] k, bool q) => ({Y}) {{ c = Conv(x, w) m = Mul(c, k)"
        " y = If (q) <then_branch = t () => (float[2,4,6,6] u) { u = Neg(m) },"
        " else_branch = e () => (float[2,4,6,6] v) { v = Exp(m) }> }",
        **weights("w", "k"),
    )
    _, report = fold(model)
    assert [row.how for row in report.folds] == ["backward"]


def test_map_inside_a_subgraph_of_a_tensor_outside():
    model = graph(
        f"a ({X}, {W}, float[1,4,1,1] k, bool q) => ({Y}) {{ c = Conv(x, w)"
        " y = If (q) <then_branch = t () => (float[2,4,6,6] u) { u = Mul(c, k) },"
        " else_branch = e () => (float[2,4,6,6] v) { v = Exp(c) }> }",
        **weights("w", "k"),
    )
    assert_refused(model, Reason.OTHER_GRAPH, "'c'", Reason.GRAPH_OUTPUT)


def test_search_has_an_end():
    adds = " ".join(f"c{i + 1} = Add(c{i}, c{i})" for i in range(450))
    model = graph(
        f"a (float[2,4] x, float[4] k) => (float[2,4] y){{ c0 = Sqrt(x) {adds} y = Mul(c450, k) }}",
        k=K,
    )
    assert_refused(model, Reason.SEARCH_TOO_LONG, "400", Reason.GRAPH_OUTPUT)


def test_reader_that_would_have_to_undo_a_scale_of_zero():
    model = graph(
        "a (float[2,4] x, float[4,4] w, float[4] k) => (float[2,4] y, float[2,4] z)"
        "{ c = Gemm(x, w) y = Mul(c, k) z = Mul(c, n) }",
        w=np.ones((4, 4), np.float32),
        k=np.array([1, 0, 2, 3], np.float32),
        n=np.array([0, 1, 2, 3], np.float32),
    )
    _, report = fold(model)
    assert [r.reason for r in report.refusals] == [Reason.USED_ELSEWHERE] * 2


def test_operators_that_the_caller_keeps():
    """Neither do they go, nor do they take anything in."""
    model = graph(
        f"a ({X}, {W}, float[4,1,1] k) => ({Y}) {{ c = Conv(x, w) d = Mul(c, k) y = Mul(d, k) }}",
        w=np.ones((4, 3, 3, 3), np.float32),
        k=np.full((4, 1, 1), 2, np.float32),
    )
    _, report = fold(model, kept_in=lambda graph: frozenset([graph[1]]))
    assert report.folds == ()
    assert [refusal.reason for refusal in report.refusals] == [Reason.FUSED] * 2


def test_other_domains_are_not_touched():
    model = graph(f"a ({X}, {W}) => (float[2,4,6,6] y) {{ y = Conv(x, w) }}", **weights("w"))
    node = ir.node("Mul", [model.graph.outputs[0], model.graph.initializers["w"]], domain="mine")
    model.graph.append(node)
    _, report = fold(model)
    assert (report.folds, report.refusals) == ((), ())


def test_every_reason_has_a_test():
    tests = [Path(__file__), Path(__file__).parents[2] / "foreign" / "test_foreign.py"]
    source = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert [reason.name for reason in Reason if f"Reason.{reason.name}" not in source] == []
