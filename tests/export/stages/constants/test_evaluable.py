import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_bn.export.graph.exact import exact
from keras_bn.export.stages.constants.evaluate import evaluate_constants
from tests.export.foreign_graphs import foreign
from tests.export.graphs import operators

NEWEST = onnx.defs.onnx_opset_version()


def evaluated(nodes, opset, **weights):
    """Evaluate nodes that make `t`; return the operators left, and the constants in float64."""
    text = f"g (float[n] x) => (float[m] y) {{ {nodes} y = Sum(x, t) }}"
    proto = foreign(text, opset, weights={})
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    after = evaluate_constants(ir.from_proto(proto))
    values = after.graph.initializers.values()
    return operators(after)[:-1], {value.name: exact(value) for value in values}


FORMS = {
    "value": "float[2] {1.0, 2.0}",
    "value_floats": "[1.0, 2.0]",
    "value_float": "3.0",
    "value_int": "3",
    "value_ints": "[1, 2]",
}
VALUES = {
    "value": [1.0, 2.0], "value_floats": [1.0, 2.0], "value_float": 3.0,
    "value_int": 3, "value_ints": [1, 2],
}  # fmt: skip


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 18, NEWEST])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_constant(form, opset):
    if opset < 12 and form != "value":
        pytest.skip("it came with opset 12")
    cast = "t = Cast<to = 1>(c)" if form.startswith("value_int") else "t = Identity(c)"
    left, constants = evaluated(f"c = Constant<{form} = {FORMS[form]}>() {cast}", opset)
    assert left == []
    (value,) = constants.values()
    np.testing.assert_array_equal(value, np.asarray(VALUES[form], np.float32))


@pytest.mark.parametrize("opset", [11, 18])
def test_strings_are_constants_too(opset):
    text = """g (string[1] x) => (bool[1] y) {
        c = Constant<value = string[1] {"a"}>() i = Identity(c) y = mine.Match(x, i)
    }"""
    after = evaluate_constants(ir.from_proto(foreign(text, opset, imports=', "mine" : 1')))
    assert operators(after) == ["Match"]
    (constant,) = after.graph.initializers.values()
    assert constant.const_value.numpy().tolist() in (["a"], [b"a"])


@pytest.mark.parametrize("opset", range(9, NEWEST + 1))
def test_moved_and_scaled_weights_at_every_opset(opset):
    axes = "<axes = [0]>(w)" if opset < 13 else "(w, zero)"
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    left, constants = evaluated(
        f"a = Unsqueeze{axes} b = Transpose<perm = [2,0,1]>(a) c = Reshape(b, flat) d = Sqrt(c)"
        "h = Cast<to = 10>(d) f = Cast<to = 1>(h) i = Concat<axis = 0>(f, f) t = Mul(i, two)",
        opset,
        w=w,
        zero=np.array([0]),
        flat=np.array([-1]),
        two=np.float32(2),
    )
    assert left == []
    half = np.sqrt(w.T.ravel().astype(np.float64)).astype(np.float16)
    np.testing.assert_array_equal(constants["t"], 2.0 * np.concatenate([half, half]))


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", "Hardmax"])
def test_operator_that_meant_something_else_stays(operator):
    w = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    assert evaluated(f"t = {operator}(w)", 12, w=w)[0] == [operator]
    assert evaluated(f"t = {operator}(w)", 13, w=w)[0] == []


def test_batch_norm_on_constants_waits_for_an_opset_that_tells_its_mode():
    nodes = "t = BatchNormalization(w, g, g, g, g)"
    weights = {"w": np.ones((1, 2), np.float32), "g": np.ones(2, np.float32)}
    assert evaluated(nodes, 13, **weights)[0] == ["BatchNormalization"]
    assert evaluated(nodes, 15, **weights)[0] == []


@pytest.mark.parametrize(
    "nodes",
    [
        "s = SequenceConstruct(w, w) t = ConcatFromSequence<axis = 0>(s)",
        "r = RandomNormalLike(w) t = Abs(r)",
        "a, mask = Dropout(w, half, yes) t = Abs(a)",
        "t = NoSuchOperator(w)",
    ],
    ids=lambda nodes: nodes.split()[2].split("(")[0],
)
def test_what_is_not_certain_stays(nodes):
    weights = {"w": np.ones(2, np.float32), "half": np.float32(0.5), "yes": np.array(True)}
    left, _ = evaluated(nodes, 17, **weights)
    assert left
    assert left == [part.split("=")[1].split("(")[0].split("<")[0].strip() for part in
                    nodes.replace(") ", ")\n").splitlines()]  # fmt: skip


def test_packed_weights_are_not_unpacked():
    left, constants = evaluated("t = Cast<to = 1>(w)", 18, w=np.ones(5000, np.int8))
    assert (left, constants["w"].dtype) == (["Cast"], np.int8)
    assert evaluated("t = Cast<to = 1>(w)", 18, w=np.ones(50, np.int8))[0] == []
    assert evaluated("t = Cast<to = 1>(w)", 18, w=np.ones(5000, np.float16))[0] == []


def test_error_of_the_evaluator_leaves_the_node():
    weights = {"w": np.ones(3, np.float32), "v": np.ones(2, np.float32)}
    assert evaluated("t = Add(w, v)", 18, **weights)[0] == ["Add"]


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        pytest.param("t = CastLike(w, x)", [], id="of a dtype that is known"),
        pytest.param("o = Some(x) t = CastLike(w, o)", ["Some", "CastLike"], id="unknown"),
        pytest.param("o = Neg(x) t = CastLike(o, w)", ["Neg", "CastLike"], id="no constant"),
    ],
)
def test_of_what_a_constant_is_cast_like_the_dtype_alone_counts(nodes, left):
    assert evaluated(nodes, 18, w=np.array([1.5, 2.0], np.float16))[0] == left


def test_a_constant_that_is_cast_like_a_coarser_one_is_rounded():
    left, constants = evaluated(
        "h = CastLike(w, c) t = Cast<to = 1>(h)", 18, w=np.float32(0.1), c=np.float16(1)
    )
    assert (left, [*constants.values()]) == ([], [np.float16(0.1)])


@pytest.mark.parametrize(
    ("w", "like", "expected"),
    [(np.int32(3), np.float32(1), 3.0), (np.float32(1.7), np.int64(1), 1)],
    ids=["a whole number to a float", "a float to a whole number"],
)
def test_numbers_are_cast_like_others_of_another_kind(w, like, expected):
    left, constants = evaluated("t = CastLike(w, c)", 18, w=w, c=like)
    assert (left, [*constants.values()]) == ([], [expected])
