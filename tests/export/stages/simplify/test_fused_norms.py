"""Norms in pieces keep gamma and beta, by which ONNX Runtime finds them."""

import numpy as np
import pytest

from keras_bn.export import Reason, fold_batch_norms
from tests.export.foreign.test_foreign_runtime_traps import optimised
from tests.export.foreign_graphs import foreign, outputs
from tests.tolerances import assert_close

CENTRED = "a = ReduceMean<axes = [-1]>(x) d = Sub(x, a)"
SCALED = "p = Pow({}, two) q = ReduceMean<axes = [-1]>(p) e = Add(q, small) s = Sqrt(e)"
LAYER = f"{CENTRED} {SCALED.format('d')} n = Div(d, s) "
GAMMA, BETA = "o = Mul(n, g) ", "t = Add(o, b) y = MatMul(t, w)"
ALONE = "y = MatMul(o, w)"
RMS = f"{SCALED.format('x')} n = Div(x, s)"
FOUND = {  # what ONNX Runtime makes of it, and how many operators stay for that
    "layer norm": (LAYER + GAMMA + BETA, "LayerNormalization", 2),
    "gamma first": (
        f"{LAYER} o = Mul(g, n) t = Add(b, o) y = MatMul(t, w)",
        "LayerNormalization",
        2,
    ),
    "two differences": (
        f"{CENTRED} d2 = Sub(x, a) {SCALED.format('d2')} n = Div(d, s) {GAMMA} {BETA}",
        "LayerNormalization",
        2,
    ),
    "a positive axis": ((LAYER + GAMMA + BETA).replace("-1", "2"), "LayerNormalization", 2),
    "no beta": (LAYER + GAMMA + ALONE, "SimplifiedLayerNormalization", 1),
    "rms norm": (f"{RMS} {GAMMA} {ALONE}", "SimplifiedLayerNormalization", 1),
}
OTHERS = {
    "a product for a power": (LAYER + GAMMA + BETA).replace("Pow(d, two)", "Mul(d, d)"),
    "another axis": (LAYER + GAMMA + BETA).replace("-1", "1"),
    "gamma of rank 3": (LAYER + GAMMA + BETA).replace("Mul(n, g)", "Mul(n, g3)"),
}


def network(nodes):
    weights = {"g": (8,), "b": (8,), "w": (8, 4), "g3": (1, 1, 8)}
    text = f"g (float[N,5,8] x) => (float[N,5,4] y) {{ {nodes} }}"
    return foreign(text, 16, weights=weights, numbers={"two": 2, "small": 1e-5})


@pytest.mark.parametrize("form", FOUND)
def test_a_norm_is_still_found(form, tmp_path, rng):
    nodes, whole, kept = FOUND[form]
    proto = network(nodes)
    result, report = fold_batch_norms(proto)
    assert [refusal.reason for refusal in report.refusals].count(Reason.FUSED) == kept
    kinds, session = optimised(result, tmp_path / "optimised.onnx")
    assert whole in kinds
    x = rng.normal(size=(2, 5, 8)).astype(np.float32)
    assert_close(session.run(None, {"x": x})[0], outputs(proto, x=x)[0], 1e-5)


@pytest.mark.parametrize("form", OTHERS)
def test_what_onnxruntime_does_not_find_is_folded(form, tmp_path):
    proto = network(OTHERS[form])
    kinds, _ = optimised(proto, tmp_path / "optimised.onnx")
    assert "LayerNormalization" not in kinds
    _, report = fold_batch_norms(proto)
    assert Reason.FUSED not in {refusal.reason for refusal in report.refusals}
    assert report.folds
