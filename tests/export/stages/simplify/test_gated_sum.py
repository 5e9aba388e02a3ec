import numpy as np
import pytest

from keras_bn.export.foreign.fold_any import fold_batch_norms
from keras_bn.export.stages.simplify.editor import Editor
from keras_bn.export.stages.simplify.gated_sum import clamp_gated_sums
from keras_bn.export.stages.simplify.shapes.inference import known_shapes
from tests.export.graphs import graph, operators, run_float64, run_onnxruntime
from tests.tolerances import assert_close

CONV = "z = Conv(x, w, b)"
GATE = "s = HardSigmoid<alpha = 0.3, beta = 0.6>(z)"
SUM = "p = Mul(x, s) y = Add(x, p)"
SHORT = ["Conv", "Clip", "Mul"]


def parsed(nodes, *, opset=18, dtype="float", outputs=""):
    kind = {"float": np.float32, "float16": np.float16}[dtype]
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 4, 1, 1)).astype(kind),
        "b": rng.normal(size=4).astype(kind),
    }
    given = f"{dtype}[N,4,5,6] x, {dtype}[4,4,1,1] w, {dtype}[4] b"
    return graph(f"g ({given}) => ({dtype}[N,4,5,6] y{outputs}) {{ {nodes} }}", opset, **weights)


def shortened(model):
    after = model.clone()
    changed = clamp_gated_sums(Editor(after.graph, known_shapes(after.graph)))
    return after, changed


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([CONV, GATE, SUM], id="as exported"),
        pytest.param([CONV, GATE, "p = Mul(s, x) y = Add(p, x)"], id="the other way round"),
        pytest.param([CONV, "s = HardSigmoid(z)", SUM], id="defaults"),
        pytest.param(["z = Conv(x, w)", GATE, SUM], id="no bias"),
        pytest.param(
            ["m = GlobalAveragePool(x) z = Conv(m, w, b)", GATE, SUM], id="squeeze and excite"
        ),
    ],
)
def test_gated_sum_becomes_a_product(nodes):
    model = parsed(" ".join(nodes))
    after, changed = shortened(model)
    assert changed
    assert [name for name in operators(after) if name != "GlobalAveragePool"] == SHORT
    x = 3 * np.random.default_rng(1).normal(size=(2, 4, 5, 6)).astype(np.float32)
    (wanted,) = run_float64(model, x=x)
    for found in (run_float64(after, x=x), run_onnxruntime(after, x=x)):
        assert_close(found[0], wanted, 1e-6)
    assert not shortened(after)[1]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"nodes": f"{CONV} {GATE} p = Mul(x, s) y = Add(z, p)"}, id="another term"),
        pytest.param({"nodes": f"{CONV} {GATE} p = Mul(s, s) y = Add(s, p)"}, id="the gate alone"),
        pytest.param({"nodes": f"{CONV} {GATE} p = Mul(x, s) y = Sub(x, p)"}, id="a difference"),
        pytest.param({"nodes": f"{CONV} s = Sigmoid(z) {SUM}"}, id="another gate"),
        pytest.param({"nodes": f"z = Add(x, x) {GATE} {SUM}"}, id="no convolution"),
        pytest.param(
            {"nodes": f"k = Abs(w) z = Conv(x, k, b) {GATE} {SUM}"}, id="computed weights"
        ),
        pytest.param({"nodes": f"{CONV} {GATE} {SUM}", "dtype": "float16"}, id="float16"),
        pytest.param({"nodes": f"{CONV} {GATE} {SUM}", "opset": 10}, id="old Clip"),
        *[
            pytest.param(
                {"nodes": f"{CONV} {GATE} {SUM}", "outputs": f", float[N,4,5,6] {value}"},
                id=f"{value} is an output",
            )
            for value in "zsp"
        ],
        pytest.param(
            {"nodes": f"{CONV} {GATE} {SUM} q = Neg(s)", "outputs": ", float[N,4,5,6] q"},
            id="a second reader",
        ),
    ],
)
def test_other_sums_stay(arguments):
    model = parsed(**arguments)
    after, changed = shortened(model)
    assert not changed
    assert operators(after) == operators(model)


def test_fold_of_a_file_shortens_them_by_itself():
    folded, report = fold_batch_norms(parsed(f"{CONV} {GATE} {SUM}"), check=True)
    assert operators(folded) == SHORT
    assert len(folded.graph.initializers) == 4  # those of the convolution as it was are gone
    assert (report.before["HardSigmoid"], report.after.get("HardSigmoid", 0)) == (1, 0)
