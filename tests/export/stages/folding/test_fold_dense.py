"""Batch norms behind products that have no bias: the scale goes in, the shift is one Add."""

import onnx
import pytest

from keras_bn.export import Reason, fold_batch_norms
from tests.export.foreign_graphs import foreign, outputs
from tests.tolerances import assert_close

WEIGHTS = {"w": (4, 4), "u": (6, 4, 4), "h": (4,), **dict.fromkeys(["g", "b", "m", "v"], (4,))}


def network(nodes, shape="N,6,4", opset=17, output="N,6,4"):
    text = f"g (float[{shape}] x) => (float[{output}] y) {{ {nodes} }}"
    return foreign(text, opset, weights=WEIGHTS)


def chain(*steps, source="x"):
    """Return a row of operators, each with {} for what it reads, from x to y."""
    names = [source, *(f"v{i}" for i in range(1, len(steps))), "y"]
    return " ".join(f"{names[i + 1]} = {step.format(names[i])}" for i, step in enumerate(steps))


DENSE, ADD, RELU = "MatMul({}, w)", "Add({}, h)", "Relu({})"
NORM, TURN = "BatchNormalization({}, g, b, m, v)", "Transpose<perm = [0,2,1]>({})"
FLAT = "k = Constant<value = int64[2] {-1, 4}>() j = Shape(x) "
JOIN, PART = "Reshape({}, k)", "Reshape({}, j)"
ROWS = {
    "between transposes": ("", [DENSE, TURN, NORM, TURN, RELU], ["MatMul", "Add", "Relu"]),
    "with a bias": ("", [DENSE, ADD, TURN, NORM, TURN, RELU], ["MatMul", "Add", "Relu"]),
    "flattened": (FLAT, [DENSE, JOIN, NORM, PART, RELU], ["MatMul", "Add", "Relu"]),
    "flattened, with a bias": (
        FLAT,
        [DENSE, ADD, JOIN, NORM, PART, RELU],
        ["MatMul", "Add", "Relu"],
    ),
    "dense behind": ("", [RELU, TURN, NORM, TURN, DENSE, RELU], ["Relu", "MatMul", "Add", "Relu"]),
    "in a row": ("", [DENSE, TURN, NORM, TURN, DENSE, TURN, NORM, TURN, RELU], None),
    "einsum": (
        "",
        ['Einsum<equation = "abc,cd->abd">({}, w)', TURN, NORM, TURN, RELU],
        ["Einsum", "Add", "Relu"],
    ),
    "on the left": (
        "",
        [TURN, "MatMul(w, {})", NORM, RELU],
        ["Transpose", "MatMul", "Add", "Relu"],
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_scale_goes_into_the_product_and_the_shift_is_one_add(name, rng):
    constants, steps, expected = ROWS[name]
    turned = "N,4,6" if name == "on the left" else "N,6,4"
    proto = network(constants + chain(*steps), output=turned)
    result, report = fold_batch_norms(proto)
    onnx.checker.check_model(result, full_check=True)
    kinds = [node.op_type for node in result.graph.node]
    if expected is not None:
        assert kinds == expected
    assert kinds.count("BatchNormalization") == 0
    assert kinds.count("Add") <= kinds.count("MatMul") + kinds.count("Einsum")
    assert {row.operator for row in report.refusals} <= {"Add"}
    assert all(row.operations > 0 and row.bytes >= 0 for row in report.folds)
    for batch in (1, 3):
        x = rng.normal(size=(batch, 6, 4)).astype("float32")
        assert_close(outputs(result, x=x)[0], outputs(proto, x=x)[0], 1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_a_second_fold_changes_nothing(name):
    constants, steps, _ = ROWS[name]
    result, _ = fold_batch_norms(network(constants + chain(*steps), output="N,a,b"))
    again, report = fold_batch_norms(result)
    assert report.folds == ()
    assert again is result


def test_bias_that_no_operator_holds_stays_an_add():
    """A scale from afar goes through it, and never makes a batch norm of it."""
    nodes = chain("MatMul({}, x2)", ADD, RELU, "Mul({}, two)")
    text = f"""g (float[N,4] x, float[4,4] x2) => (float[N,4] y) {{
        two = Constant<value = float {{2.0}}>() {nodes} }}"""
    result, report = fold_batch_norms(foreign(text, 17, weights=WEIGHTS))
    assert [node.op_type for node in result.graph.node] == [
        "Constant",
        "MatMul",
        "Add",
        "Relu",
        "Mul",
    ]
    assert [row.operator for row in report.refusals] == ["Add", "Mul"]


def test_number_that_is_added_stays_an_add():
    """Where a clamp is no hard sigmoid."""
    text = """g (float[N,4,6,6] x) => (float[N,4,6,6] y) {
        three = Constant<value = float {3.0}>() seven = Constant<value = float {7.0}>()
        zero = Constant<value = float {0.0}>()
        n = Relu(x) a = Add(n, three) q = Clip(a, zero, seven) p = Mul(n, q) d = Div(p, seven)
        y = Relu(d) }"""
    result, report = fold_batch_norms(foreign(text))
    kinds = [node.op_type for node in result.graph.node]
    assert "BatchNormalization" not in kinds
    assert all(row.operations >= 0 for row in report.folds)


def test_add_on_a_larger_tensor_is_not_worth_it():
    """Behind a mean the batch norm does less than an Add would in front of it."""
    nodes = chain(DENSE, "ReduceMean<axes = [1], keepdims = 0>({})", NORM, RELU)
    proto = network(nodes, output="N,4")
    result, report = fold_batch_norms(proto)
    assert result is proto
    (refusal,) = report.refusals
    assert refusal.reason is Reason.OPERATOR_HAS_NO_BIAS


@pytest.mark.parametrize("sizes", ["N,T,4", "T,6,4"])
def test_product_of_free_sizes(sizes, rng):
    proto = network(chain(DENSE, TURN, NORM, TURN, RELU), shape=sizes, output="a,b,4")
    result, _ = fold_batch_norms(proto)
    assert [node.op_type for node in result.graph.node] == ["MatMul", "Add", "Relu"]
    x = rng.normal(size=(2, 6, 4)).astype("float32")
    assert_close(outputs(result, x=x)[0], outputs(proto, x=x)[0], 1e-6)


def test_weight_that_is_an_input_has_no_scale_to_take():
    text = """g (float[N,6,4] x, float[4,4] k) => (float[N,4,6] y) {
        a = MatMul(x, k) t = Transpose<perm = [0,2,1]>(a)
        n = BatchNormalization(t, g, b, m, v) y = Relu(n) }"""
    proto = foreign(text, 17, weights=WEIGHTS)
    result, report = fold_batch_norms(proto)
    assert result is proto
    assert report.refusals[0].reason is Reason.WEIGHT_NOT_CONSTANT
