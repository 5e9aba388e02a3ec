import numpy as np
import pytest

from keras_bn.export.stages.simplify.simplify import simplify
from tests.export.graphs import graph, operators, run_onnxruntime
from tests.export.stages.simplify.simplified import check, constant_input


def test_reshapes_in_a_row_are_one():
    text = """g (float[N,2,3,4] x, int64[2] flat, int64[1] one, int64[4] t) => (float[N,4,1,6] y) {
        a = Reshape(x, flat) b = Unsqueeze(a, one) c = Squeeze(b, one) y = Reshape(c, t)
    }"""
    after = check(
        text, ["Reshape"], flat=np.array([0, -1]), one=np.array([1]), t=np.array([-1, 4, 1, 6])
    )
    assert constant_input(after, "Reshape") == [-1, 4, 1, 6]


def test_squeezes_of_dynamic_sizes_are_one():
    text = """g (float[1,H,W,1] x, int64[1] zero, int64[1] last) => (float[H,W] y) {
        a = Squeeze(x, zero) y = Squeeze(a, last)
    }"""
    after = check(text, ["Squeeze"], zero=np.array([0]), last=np.array([2]))
    assert constant_input(after, "Squeeze") == [0, 3]


def test_flatten_is_a_reshape():
    after = check("g (float[N,3,4] x) => (float[N,12] y) { y = Flatten(x) }", ["Reshape"])
    assert constant_input(after, "Reshape") == [-1, 12]


@pytest.mark.parametrize(
    ("shape", "rest", "left"),
    [
        ("N,2,4", [8], "Reshape"),
        ("N,2,4", [-1], "Reshape"),
        ("N,2,4", [4, 2], "Reshape"),
        ("N,H,4", [-1], "Flatten"),
    ],
)
def test_empty_batch_keeps_its_shape(shape, rest, left):
    dimensions = ",".join("PQR"[: 1 + len(rest)])
    text = f"""g (float[{shape}] x, int64[{len(rest)}] rest) => (float[{dimensions}] y) {{
        n = Shape<start = 0, end = 1>(x) target = Concat<axis = 0>(n, rest) a = Reshape(x, target)
        y = Relu(a)
    }}"""
    if left == "Flatten":  # a target with -1 says nothing of an empty tensor, so compute it
        text = text.replace("Concat<axis = 0>(n, rest)", "Concat<axis = 0>(n, hh)").replace(
            "target = ",
            "h = Shape<start = 1, end = 3>(x) hh = ReduceProd<keepdims = 1>(h) target = ",
        )
    model = graph(text, rest=np.array(rest))
    after = simplify(model)
    assert operators(after) == [left, "Relu"]
    for batch in (0, 3):
        x = np.ones((batch, 2, 4), np.float32)
        if batch == 0 and rest == [-1] and left != "Flatten":
            continue  # ONNX Runtime refuses the graph as it was
        (expected,), (actual,) = run_onnxruntime(model, x=x), run_onnxruntime(after, x=x)
        assert actual.shape == expected.shape
