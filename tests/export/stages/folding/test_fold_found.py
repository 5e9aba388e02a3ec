"""Graphs that once folded into something else: what random graphs found, made small."""

import re

import numpy as np
import pytest

from tests.export.graphs import graph
from tests.export.stages.folding.fold_checks import check_fold

BN = "BatchNormalization"
FOUND = {
    "a difference of a tensor and itself": """(float[2,4,4] x, float[4,1,2] w, float[4,1] k)
        => (float[2,4,2] y) { c = Conv<group = 4, strides = [2]>(x, w) d = Sub(c, c) y = Add(d, k) }
    """,
    "a tensor beside itself": """(int64[1,3] x, float[5,3] t, float[6] k) => (float[1,3,6] y) {
        g = Gather(t, x) c = Concat<axis = 2>(g, g) y = Sub(c, k) }""",
    "a shift for each row": """(float[2,1] x, float[1,3] w, float[2,1] k) => (float[2,3] y) {
        m = MatMul(x, w) y = Sub(m, k) }""",
    "two batch norms before an LSTM": f"""(float[2,4] x, float[4] g, float[4] b, float[4] m,
        float[4] v, float[1] g2, float[1] b2, float[1] m2, float[1] v2, float[1,4,4] w,
        float[1,4,1] r, int64[1] a) => (float[1,1,1] y) {{
        n = {BN}(x, g, b, m, v) u = Unsqueeze(n, a) t = {BN}(u, g2, b2, m2, v2)
        s, y = LSTM<hidden_size = 1>(t, w, r) }}""",
    "two shifts and a reshape before a GRU": """(float[3,2,2,2] x, float[2] k, float[4] l,
        float[1,6,4] w, float[1,6,2] r, int64[3] s) => (float[3,1,2,2] y) {
        a = Sub(k, x) b = Reshape(a, s) c = Sub(b, l) y = GRU<hidden_size = 2>(c, w, r) }""",
    "a batch norm between scales of other axes": f"""(float[3,4,5,2] x, float[5,1] k, float[4] g,
        float[4] b, float[4] m, float[4] v, float[10] l, int64[3] s) => (float[3,4,10] y) {{
        a = Div(x, k) b2 = Reshape(a, s) c = {BN}(b2, g, b, m, v) y = Mul(c, l) }}""",
    "a bias that a scale of zero removes": """(float[2,4,5,3] x, float[3,1] w, float[1] b,
        float[1] z) => (float[2,4,5,1] y) { m = MatMul(x, w) a = Add(m, b) y = Mul(a, z) }""",
}
GIVEN = {"a": np.array([1]), "s": np.array([0, 0, -1]), "z": np.float32([0])}


@pytest.mark.parametrize("name", FOUND)
def test_graph_that_was_found(rng, name):
    text = FOUND[name]
    weights = {}
    for sizes, argument in re.findall(r"\[([\d,]+)\] (\w+)", text.partition(")")[0]):
        shape = [int(size) for size in sizes.split(",")]
        weights[argument] = GIVEN.get(argument, np.float32(rng.uniform(0.3, 2.0, shape)))
    x = weights.pop("x")
    model = graph(f"g {text}", opset=14, **weights)
    if text.startswith("(int64"):
        x = np.int64(x)
    check_fold(model, {"x": x})
