"""GELUs in pieces stay as ONNX Runtime finds them: it runs them as one operator."""

import keras
import numpy as np
import onnx
import pytest

from keras_bn.export import Reason, export_onnx, fold_batch_norms
from tests.export.foreign.test_foreign_runtime_traps import optimised
from tests.export.foreign_graphs import foreign, outputs
from tests.tolerances import assert_close

WEIGHTS = {"k": (8, 3, 1, 1), "q": (4, 8, 1, 1), **dict.fromkeys(["g", "b", "m", "v"], (4,))}
NUMBERS = {"two": 2**0.5, "one": 1, "half": 0.5, "three": 3, "cubic": 0.044715, "root": 0.7978846}
ERF, TANH = "d = Div(c, two) e = Erf(d) p = Add(e, one)", "t = Tanh(i) p = Add(one, t)"
CUBE = "u = Pow(c, three) s = Mul(u, cubic) a = Add(c, s) i = Mul(a, root)"
SQUARE = "r = Mul(c, root) s = Mul(c, cubic) u = Mul(s, c) a = Add(u, one) i = Mul(r, a)"
FRONT = "h = Mul(c, half) y0 = Mul(h, p)"
FOUND = {
    "erf, the half in front": (f"{ERF} {FRONT}", "Gelu"),
    "erf, the half behind": (f"{ERF} h = Mul(c, p) y0 = Mul(h, half)", "Gelu"),
    "tanh of a cube": (f"{CUBE} {TANH} {FRONT}", "FastGelu"),
    "tanh of a square": (f"{SQUARE} {TANH} {FRONT}", "FastGelu"),
}
OTHERS = {
    "the half at the sum": f"{ERF} h = Mul(p, half) y0 = Mul(c, h)",
    "another divisor": f"d = Div(c, three) e = Erf(d) p = Add(e, one) {FRONT}",
    "another sum": f"d = Div(c, two) e = Erf(d) p = Add(e, three) {FRONT}",
    "another power": f"{CUBE.replace('three', 'two')} {TANH} {FRONT}",
    "x times its square": f"""x2 = Mul(c, c) s = Mul(x2, cubic) a = Add(s, one) r = Mul(c, root)
        i = Mul(r, a) {TANH} {FRONT}""",
    "no half": f"{ERF} y0 = Mul(c, p)",
}


def network(gelu):
    """A GELU between two convolutions, and a batch norm behind those."""
    text = f"""g (float[N,3,6,6] x) => (float[N,4,6,6] y) {{
        c = Conv(x, k) {gelu} z = Conv(y0, q) y = BatchNormalization(z, g, b, m, v) }}"""
    return foreign(text, 17, weights=WEIGHTS, numbers=NUMBERS)


@pytest.mark.parametrize("form", FOUND)
def test_a_gelu_is_still_found_once_the_rest_is_folded(form, tmp_path, rng):
    pieces, whole = FOUND[form]
    proto = network(pieces)
    result, report = fold_batch_norms(proto)
    assert len(result.graph.node) == len(proto.graph.node) - 1
    assert {refusal.reason for refusal in report.refusals} == {Reason.FUSED}
    kinds, session = optimised(result, tmp_path / "optimised.onnx")
    assert sorted(kinds) == sorted(["Conv", whole, "Conv"])
    x = rng.normal(size=(2, 3, 6, 6)).astype(np.float32)
    assert_close(session.run(None, {"x": x})[0], outputs(proto, x=x)[0], 1e-5)


@pytest.mark.parametrize("form", OTHERS)
def test_what_onnxruntime_does_not_find_is_folded(form, tmp_path):
    proto = network(OTHERS[form])
    kinds, _ = optimised(proto, tmp_path / "optimised.onnx")
    assert not {"Gelu", "FastGelu", "BiasGelu"} & set(kinds)
    result, report = fold_batch_norms(proto)
    assert len(result.graph.node) < len(proto.graph.node) - 1
    assert Reason.FUSED not in {refusal.reason for refusal in report.refusals}


def test_the_approximate_gelu_of_a_keras_model_is_found(tmp_path):
    x = keras.Input((6, 6, 3), name="x")
    y = keras.layers.Conv2D(8, 1, name="conv")(x)
    y = keras.layers.Conv2D(4, 1, name="last")(keras.ops.gelu(y, approximate=True))
    report = export_onnx(keras.Model(x, y), tmp_path / "model.onnx")
    assert report.parity.passed
    kinds, _ = optimised(onnx.load(tmp_path / "model.onnx"), tmp_path / "optimised.onnx")
    assert "FastGelu" in kinds
