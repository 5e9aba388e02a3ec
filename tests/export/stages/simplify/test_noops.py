import numpy as np
import pytest

from keras_bn.export.stages.simplify.simplify import simplify
from tests.export.graphs import graph, operators
from tests.export.stages.simplify.simplified import check, check_stays


@pytest.mark.parametrize(
    "node",
    [
        pytest.param("Identity(a)", id="identity"),
        pytest.param("Dropout(a)", id="dropout"),
        pytest.param("Cast<to = 1>(a)", id="cast to its own dtype"),
        pytest.param("Concat<axis = 1>(a)", id="concat of one"),
        pytest.param("Sum(a)", id="sum of one"),
        pytest.param("Reshape(a, same)", id="reshape to the same shape"),
        pytest.param("Expand(a, ones)", id="expand"),
        pytest.param("Tile(a, ones)", id="tile"),
        pytest.param("Pad(a, nothing)", id="pad"),
        pytest.param("Slice(a, zero, end)", id="slice"),
        pytest.param("Slice(a, back, end, one)", id="slice from beyond the start"),
        pytest.param("Transpose<perm = [0, 1, 2]>(a)", id="transpose"),
        pytest.param("Squeeze(b, zero)", id="squeeze after unsqueeze"),
    ],
)
def test_operator_that_changes_nothing_goes(node):
    constants = {
        "same": np.array([0, -1, 4]),
        "ones": np.array([1, 1, 1]),
        "nothing": np.zeros(6, np.int64),
        "zero": np.array([0]),
        "one": np.array([1]),
        "back": np.array([-99]),
        "end": np.array([2**31 - 1]),
    }
    types = "int64[3] same, int64[3] ones, int64[6] nothing, int64[1] zero, int64[1] one"
    text = f"""g (float[N,3,4] x, {types}, int64[1] back, int64[1] end) => (float[N,3,4] y) {{
        a = Relu(x) b = Unsqueeze(a, zero) c = {node} y = Neg(c)
    }}"""
    check(text, ["Relu", "Neg"], **constants)


def test_graph_output_keeps_its_name():
    text = """g (float[N,3] x) => (float[N,3] y) { a = Relu(x) b = Identity(a) y = Identity(b) }"""
    after = check(text, ["Relu"])
    assert after.graph[0].outputs[0].name == "y"


def test_input_that_is_an_output_keeps_one_identity():
    text = """g (float[N,3] x) => (float[N,3] y) { a = Identity(x) y = Cast<to = 1>(a) }"""
    check(text, ["Identity"])


def test_two_outputs_of_one_tensor_keep_one_identity():
    text = """g (float[N,3] x) => (float[N,3] y, float[N,3] z) {
        a = Relu(x) y = Identity(a) z = Identity(a)
    }"""
    check(text, ["Relu", "Identity"])


def test_transposes_in_a_row_are_one():
    text = """g (float[2,3,4] x) => (float[4,2,3] y) {
        a = Transpose<perm = [0, 2, 1]>(x) b = Transpose<perm = [1, 0, 2]>(a) y = Relu(b)
    }"""
    after = check(text, ["Transpose", "Relu"])
    assert list(after.graph[0].attributes.get_ints("perm")) == [2, 0, 1]


def test_transposes_that_undo_each_other_are_none():
    text = """g (float[2,3,4] x) => (float[2,3,4] y, float[2,4,3] z) {
        a = Transpose<perm = [0, 2, 1]>(x) z = Relu(a) b = Transpose<perm = [0, 2, 1]>(a)
        y = Relu(b)
    }"""
    check(text, ["Transpose", "Relu", "Relu"])


def test_casts_that_lose_nothing_are_one():
    text = """g (float[N,3] x) => (double[N,3] y, float[N,3] z) {
        a = Cast<to = 11>(x) y = Cast<to = 11>(a) z = Cast<to = 1>(a)
    }"""
    after = simplify(graph(text))
    assert operators(after) == ["Cast", "Identity"]


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
