import numpy as np
import onnx_ir as ir

from keras_bn.export.graph.exact import ExactTensor, exact, rearranged
from keras_bn.export.stages.constants.evaluate import evaluate_constants
from tests.export.graphs import graph, operators, run_float64
from tests.tolerances import FLOAT64, assert_close


def test_nodes_on_weights_become_initializers(rng):
    w = rng.normal(size=(3, 4)).astype(np.float32)
    model = graph(
        "g (float[2,4] x, float[3,4] w) => (float[2,3] y) { t = Transpose(w) y = MatMul(x, t) }",
        w=w,
    )
    after = evaluate_constants(model)
    assert operators(after) == ["MatMul"]
    np.testing.assert_array_equal(after.graph.initializers["w"].const_value.numpy(), w.T)
    assert operators(model) == ["Transpose", "MatMul"]


def test_weight_that_is_still_used_keeps_its_name(rng):
    w = rng.normal(size=(4, 4)).astype(np.float32)
    model = graph(
        "g (float[2,4] x, float[4,4] w) => (float[2,4] y)"
        "{ t = Transpose(w) a = MatMul(x, t) y = MatMul(a, w) }",
        w=w,
    )
    after = evaluate_constants(model)
    np.testing.assert_array_equal(after.graph.initializers["w"].const_value.numpy(), w)
    np.testing.assert_array_equal(after.graph.initializers["t"].const_value.numpy(), w.T)


def test_chain_on_weights_rounds_once(rng):
    variance, gamma = rng.uniform(0.5, 2.0, (2, 3)).astype(np.float32)
    text = """g (float[2,3] x, float[3] variance, float[3] gamma) => (float[2,3] y) {
        r = Sqrt(variance) i = Reciprocal(r) s = Mul(i, gamma) y = Mul(x, s)
    }"""
    after = evaluate_constants(graph(text, variance=variance, gamma=gamma))
    expected = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64))
    assert_close(exact(after.graph.initializers["s"]), expected, FLOAT64)
    np.testing.assert_array_equal(
        after.graph.initializers["s"].const_value.numpy(), expected.astype(np.float32)
    )


def test_cast_to_half_precision_rounds_and_back_does_not():
    value = np.array([1.0 / 3.0], np.float32)
    text = """g (float[1] x, float[1] w) => (float[1] y, float16[1] z) {
        h = Cast<to = 10>(w) f = Cast<to = 1>(h) y = Add(x, f) xh = Cast<to = 10>(x) z = Add(xh, h)
    }"""
    constants = evaluate_constants(graph(text, w=value)).graph.initializers
    half, full = constants["w"], constants["f"]
    assert half.const_value.numpy().dtype == np.float16
    assert full.const_value.dtype == ir.DataType.FLOAT
    assert exact(full) == exact(half) == np.float64(np.float16(value[0]))


def test_cast_to_float64_is_float64():
    text = """g (double[1] x, float[1] w) => (double[1] y) { d = Cast<to = 11>(w) y = Add(x, d) }"""
    d = evaluate_constants(graph(text, w=np.ones(1, np.float32))).graph.initializers["w"]
    assert d.const_value.dtype == ir.DataType.DOUBLE


def test_rounding_to_integers_sees_the_graphs_own_precision():
    text = """g (int64[1] x, float[1] part, float[1] whole) => (int64[1] y) {
        one = Mul(part, whole) n = Cast<to = 7>(one) y = Add(x, n)
    }"""
    part, whole = np.array([0.04], np.float32), np.array([25.0], np.float32)
    assert float(part[0]) * 25.0 < 1.0  # exactly; float32 rounds the product to 1
    after = evaluate_constants(graph(text, part=part, whole=whole))
    assert run_float64(after, x=np.zeros(1, np.int64))[0] == [1]


def test_integers_and_constant_nodes_are_evaluated():
    text = """g (float[2,3] x) => (float[3,2] y) {
        a = Constant<value_ints = [3, 1]>() two = Constant<value_ints = [1, 2]>()
        shape = Mul(a, two) y = Reshape(x, shape)
    }"""
    after = evaluate_constants(graph(text))
    assert operators(after) == ["Reshape"]
    assert after.graph.initializers["shape"].const_value.numpy().tolist() == [3, 2]


def test_random_and_growing_nodes_stay(rng):
    text = """g (float[1] x, float[1] w, int64[1] n) => (float[100000] y, float[1] z) {
        big = Expand(w, n) y = Mul(big, x) r = RandomNormalLike(w) z = Mul(r, x)
    }"""
    after = evaluate_constants(graph(text, w=np.ones(1, np.float32), n=np.array([100000])))
    assert operators(after) == ["Expand", "Mul", "RandomNormalLike", "Mul"]


def test_constant_graph_output_stays():
    text = "g (float[1] x, float[1] w) => (float[1] y, float[1] z) { y = Neg(x) z = Neg(w) }"
    model = graph(text, w=np.ones(1, np.float32))
    after = evaluate_constants(model)
    assert run_float64(after, x=np.zeros(1, np.float32))[1] == [-1.0]


def test_rearranged_keeps_an_exact_tensor_exact():
    third = np.array([[1.0 / 3.0, 2.0]])
    moved = rearranged(ExactTensor(third, ir.DataType.FLOAT), np.transpose)
    np.testing.assert_array_equal(moved.exact, third.T)


def test_weight_is_not_copied(rng):
    w = rng.normal(size=(3, 4)).astype(np.float32)
    model = graph(
        "g (float[2,4] x, float[3,4] w) => (float[2,3] y) { t = Transpose(w) y = MatMul(x, t) }",
        w=w,
    )
    model.graph.initializers["w"].const_value = ir.Tensor(w)
    after = evaluate_constants(model)
    assert np.shares_memory(after.graph.initializers["w"].const_value.numpy(), w)


def test_outer_product_of_small_weights_stays():
    text = """g (float[100,100] x, float[100,1] a, float[1,100] b) => (float[100,100] y) {
        big = Mul(a, b) y = Add(x, big)
    }"""
    ones = np.ones(100, np.float32)
    after = evaluate_constants(graph(text, a=ones.reshape(100, 1), b=ones.reshape(1, 100)))
    assert operators(after) == ["Mul", "Add"]
    assert set(after.graph.initializers) == {"a", "b"}


def test_shape_that_only_a_constant_tells_is_inferred():
    text = """g (float[2,3,4] x, float[1] w) => (float[1] y) {
        wide = Constant<value_ints = [-1]>() narrow = Cast<to = 6>(wide) last = Cast<to = 7>(narrow)
        mean = ReduceMean<keepdims = 0>(x, last) total = ReduceSum<keepdims = 0>(mean)
        y = Mul(total, w)
    }"""
    model = graph(text, w=np.ones(1, np.float32))
    assert model.graph[3].outputs[0].shape is None
    after = evaluate_constants(model)
    assert after.graph[0].outputs[0].shape == (2, 3)


def test_constant_that_a_subgraph_reads_is_evaluated():
    text = """g (bool c, float[2] x, float[2] w) => (float[2] y) {
        n = Neg(w)
        y = If(c) <
            then_branch = a () => (float[2] p) { p = Add(x, n) },
            else_branch = b () => (float[2] q) { q = Mul(x, n) }
        >
    }"""
    after = evaluate_constants(graph(text, w=np.array([1.0, 2.0], np.float32)))
    assert operators(after) == ["If"]
    x = np.array([3.0, 3.0], np.float32)
    np.testing.assert_array_equal(run_float64(after, c=np.array(True), x=x)[0], [2.0, 1.0])


def test_initializer_that_a_caller_may_override_is_no_constant():
    model = graph(
        "g (float[2] x, float[2] w) => (float[2] y) { n = Neg(w) y = Add(x, n) }",
        w=np.ones(2, np.float32),
    )
    model.graph.inputs.append(model.graph.initializers["w"])
    after = evaluate_constants(model)
    assert operators(after) == ["Neg", "Add"]
    assert [value.name for value in after.graph.inputs] == ["x", "w"]
    assert "w" in after.graph.initializers


def test_layers_of_a_constant_are_those_of_its_weights():
    model = graph(
        "g (float[2] x, float[2] a, float[2] b) => (float[2] y)"
        "{ n = Neg(a) s = Add(n, b) y = Add(x, s) }",
        a=np.ones(2, np.float32),
        b=np.ones(2, np.float32),
    )
    for name in "ab":
        model.graph.initializers[name].meta["layers"] = frozenset({name})
    after = evaluate_constants(model)
    assert after.graph.initializers["s"].meta["layers"] == {"a", "b"}
    assert [use.node.op_type for use in after.graph.initializers["s"].uses()] == ["Add"]
    assert (operators(model), set(model.graph.initializers)) == (["Neg", "Add", "Add"], {"a", "b"})


def test_graph_keeps_its_metadata():
    model = graph(
        "g (float[2] x, float[2] w) => (float[2] y) { n = Neg(w) y = Add(x, n) }",
        w=np.ones(2, np.float32),
    )
    model.graph.metadata_props["a"], model.metadata_props["b"] = "1", "2"
    model.graph.meta["c"], model.graph.doc_string = 3, "text"
    after = evaluate_constants(model)
    assert (after.graph.metadata_props, after.metadata_props) == ({"a": "1"}, {"b": "2"})
    assert (after.graph.meta["c"], after.graph.doc_string) == (3, "text")
    assert after.graph.name == "g"
