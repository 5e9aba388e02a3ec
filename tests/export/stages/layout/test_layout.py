import numpy as np
import pytest

from keras_bn.export.stages.layout.transposes import cancel_transposes
from tests.export.graphs import graph, operators, run_float64
from tests.tolerances import FLOAT64, assert_close

TO_NCHW, TO_NHWC = "<perm = [0, 3, 1, 2]>", "<perm = [0, 2, 3, 1]>"


def check(text, expected_operators, rng, **weights):
    """Assert that the transformed graph has these operators and computes the same."""
    model = graph(text, **weights)
    after = cancel_transposes(model)
    assert operators(after) == expected_operators
    inputs = {
        v.name: rng.normal(size=v.shape.numpy()).astype(np.float32) for v in model.graph.inputs
    }
    for a, e in zip(run_float64(after, **inputs), run_float64(model, **inputs), strict=True):
        assert_close(a, e, FLOAT64)
    assert [v.name for v in after.graph.outputs] == [v.name for v in model.graph.outputs]
    return after


def test_inverse_transposes_cancel(rng):
    text = f"""g (float[2,3,4,5] x) => (float[2,3,4,5] y) {{
        a = Transpose{TO_NHWC}(x) b = Transpose{TO_NCHW}(a) y = Relu(b)
    }}"""
    check(text, ["Relu"], rng)


def test_transposes_in_a_row_become_one(rng):
    text = f"""g (float[2,3,4,5] x) => (float[2,4,5,3] y) {{
        a = Transpose{TO_NHWC}(x) b = Transpose{TO_NHWC}(a) c = Transpose{TO_NHWC}(b)
        d = Transpose{TO_NHWC}(c) y = Relu(d)
    }}"""
    after = check(text, ["Relu", "Transpose"], rng)
    assert after.graph[1].attributes.get_ints("perm") == (0, 2, 3, 1)


def test_transpose_moves_below_elementwise_operators_and_cancels(rng):
    text = f"""g (float[2,3,4,5] x, float[3] c) => (float[2,3,4,5] y) {{
        a = Transpose{TO_NHWC}(x) b = Relu(a) d = Mul(b, c) e = Sigmoid(d) f = Mul(d, d)
        g = Add(f, f) y = Transpose{TO_NCHW}(g)
    }}"""
    c = rng.normal(size=3).astype(np.float32)
    # y is a graph output, so the last pair of Transposes cannot disappear into another name
    after = cancel_transposes(graph(text.replace("e = Sigmoid(d)", ""), c=c))
    assert operators(after).count("Transpose") <= 2
    check(
        text.replace("e = Sigmoid(d)", "")
        .replace("y = Transpose", "h = Transpose")
        .replace("(g)\n", "(g) y = Neg(h)\n"),
        ["Relu", "Mul", "Mul", "Add", "Neg"],
        rng,
        c=c,
    )


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 3), (4, 1, 1), (1, 4, 5, 3)])
def test_constant_operand_is_permuted_as_it_broadcasts(rng, shape):
    text = f"""g (float[2,3,4,5] x, float[{",".join(map(str, shape))}] c) => (float[2,3,4,5] y) {{
        a = Transpose{TO_NHWC}(x) b = Sub(c, a) d = Transpose{TO_NCHW}(b) y = Neg(d)
    }}"""
    check(
        text.replace("float[] c", "float c"),
        ["Sub", "Neg"],
        rng,
        c=rng.normal(size=shape).astype("f"),
    )


def test_two_transposed_branches_meet(rng):
    text = f"""g (float[2,3,4,5] x, float[2,3,4,5] z) => (float[2,3,4,5] y) {{
        a = Transpose{TO_NHWC}(x) b = Transpose{TO_NHWC}(z) c = Add(a, b)
        d = Transpose{TO_NCHW}(c) y = Relu(d)
    }}"""
    check(text, ["Add", "Relu"], rng)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_transpose_moves_below_a_reduction(rng, keepdims):
    shape = "2,1,1,3" if keepdims else "2,3"
    text = f"""g (float[2,3,4,5] x, int64[2] axes) => (float[{shape}] y) {{
        a = Transpose{TO_NHWC}(x) b = ReduceMean<keepdims = {keepdims}>(a, axes) y = Relu(b)
    }}"""
    expected = ["ReduceMean", "Relu", "Reshape"] if keepdims else ["ReduceMean", "Relu"]
    check(text, expected, rng, axes=np.array([1, -2]))


def test_reduction_that_reorders_leaves_a_smaller_transpose(rng):
    text = f"""g (float[2,3,4,5] x, int64[1] axes) => (float[4,5,3] y) {{
        a = Transpose{TO_NHWC}(x) b = ReduceSum<keepdims = 0>(a, axes) y = Relu(b)
    }}"""
    after = check(text, ["ReduceSum", "Relu", "Transpose"], rng, axes=np.array([0]))
    assert after.graph[2].attributes.get_ints("perm") == (1, 2, 0)


def test_transpose_with_other_readers_stays(rng):
    text = f"""g (float[2,3,4,5] x) => (float[2,4,5,3] y, float[2,4,5,3] z) {{
        a = Transpose{TO_NHWC}(x) y = Relu(a) z = Softmax<axis = 3>(a)
    }}"""
    check(text, ["Transpose", "Relu", "Softmax"], rng)


def test_operand_that_is_not_transposed_holds_it_back(rng):
    text = f"""g (float[2,3,4,5] x, float[2,4,5,3] z) => (float[2,4,5,3] y) {{
        a = Transpose{TO_NHWC}(x) y = Add(a, z)
    }}"""
    check(text, ["Transpose", "Add"], rng)


def test_operand_that_adds_dimensions_holds_it_back(rng):
    text = f"""g (float[2,3,4,5] x, float[1,1,1,1,1] c) => (float[1,2,4,5,3] y) {{
        a = Transpose{TO_NHWC}(x) y = Add(a, c)
    }}"""
    check(text, ["Transpose", "Add"], rng, c=np.ones((1, 1, 1, 1, 1), np.float32))


def test_graph_output_keeps_its_value(rng):
    text = f"""g (float[2,3,4,5] x) => (float[2,4,5,3] a, float[2,4,5,3] y) {{
        a = Transpose{TO_NHWC}(x) y = Relu(a)
    }}"""
    check(text, ["Transpose", "Relu"], rng)
