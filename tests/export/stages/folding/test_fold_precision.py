"""Folds that are exact in real numbers, and that float32 would pay for."""

import numpy as np
import pytest

from keras_bn.export import Reason
from keras_bn.export.stages.folding.fold import fold
from tests.export.graphs import graph, operators, run_float64, run_onnxruntime

YEARS = np.float32([[1990, 2010, 2003, 1985], [2021, 1999, 2000, 1970]])
MEAN, DEVIATION = np.full(4, 2000, np.float32), np.full(4, 8, np.float32)


def dense(rng):
    return rng.normal(size=(4, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param("d = Sub(x, m) n = Div(d, s) y = MatMul(n, w)", 2, id="at once"),
        pytest.param("d = Sub(m, x) n = Mul(s, d) y = MatMul(n, w)", 2, id="reversed"),
        pytest.param(
            "i = Identity(x) d = Sub(i, m) n = Div(d, s) c = Concat<axis = 0>(n, n)"
            " y = MatMul(c, w)",
            2,
            id="behind moves, before moves",
        ),
        pytest.param("n = BatchNormalization(x, g, b, m, v) y = MatMul(n, w)", 1, id="batch norm"),
    ],
)
def test_standardised_years_are_not_folded(rng, text, kept):
    rows = 4 if "Concat" in text else 2
    weights = {"w": dense(rng), "m": MEAN, "s": DEVIATION}
    if "Batch" in text:
        weights |= {"g": DEVIATION / 8, "b": 0 * MEAN, "v": DEVIATION**2}
        del weights["s"]
    model = graph(f"g (float[2,4] x) => (float[{rows},3] y) {{ {text} }}", **weights)
    folded, report = fold(model)
    assert operators(folded) == operators(model)
    reasons = [(row.reason, row.forward_reason) for row in report.refusals]
    assert len(reasons) == kept
    assert all(Reason.BITS_LOST in pair for pair in reasons)


@pytest.mark.parametrize("mean", [0.5, 16.0])
def test_standardised_image_folds_and_is_as_precise(rng, mean):
    x = rng.normal(mean, 8, (2, 4)).astype(np.float32)
    weights = {"w": dense(rng), "m": np.full(4, mean, np.float32), "s": DEVIATION}
    model = graph(
        "g (float[2,4] x) => (float[2,3] y) { d = Sub(x, m) n = Div(d, s) y = MatMul(n, w) }",
        **weights,
    )
    folded, _ = fold(model)
    assert operators(folded) == ["Gemm"]
    (truth,), (found,) = run_float64(model, x=x), run_onnxruntime(folded, x=x)
    assert np.abs(found - truth).max() <= 1e-6 * np.abs(truth).max()


def test_bias_far_from_zero_folds_as_ever(rng):
    model = graph(
        "g (float[2,4] x) => (float[2,3] y) { c = MatMul(x, w) d = Sub(c, m) y = Div(d, s) }",
        w=dense(rng),
        m=MEAN[:3],
        s=DEVIATION[:3] / 100,
    )
    assert operators(fold(model)[0]) == ["Gemm"]
