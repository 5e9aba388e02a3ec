"""Whatever the graph, the layout stage computes the same with no more Transposes."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings

from keras_bn.export.stages.layout.transposes import cancel_transposes
from tests.export.graphs import graph, operators, run_float64
from tests.export.stages.layout.layout_graphs import layout_graphs
from tests.tolerances import FLOAT64, assert_close

SLOW_TO_DRAW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def described(values):
    return [(v.name, v.type, v.shape and [str(size) for size in v.shape]) for v in values]


def check(drawn):
    text, opset, weights, shapes = drawn
    model = graph(text, opset=opset, **weights)
    source = ir.to_proto(model).SerializeToString(deterministic=True)
    after = cancel_transposes(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == source
    assert operators(after).count("Transpose") <= operators(model).count("Transpose")
    assert described(after.graph.inputs) == described(model.graph.inputs)
    assert described(after.graph.outputs) == described(model.graph.outputs)
    once = ir.to_proto(after).SerializeToString(deterministic=True)
    assert ir.to_proto(cancel_transposes(after)).SerializeToString(deterministic=True) == once
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    expected, actual = run_float64(model, **inputs), run_float64(after, **inputs)
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, FLOAT64)
    return model, after


@settings(max_examples=100, suppress_health_check=SLOW_TO_DRAW)
@given(layout_graphs())
def test_layout_computes_the_same(drawn):
    check(drawn)


def test_reshape_that_changes_nothing_is_no_way_back():
    """Found by the test below: what a Reshape reads has the sizes wanted, in another order."""
    text = """g (float[1,2,2] x, int64[3] s) => (float[1,2,2] a, float[1,2,2] y) {
        a = Reshape(x, s) y = Transpose<perm = [0, 2, 1]>(a) }"""
    check((text, 18, {"s": np.array([1, 2, 2])}, {"x": [1, 2, 2]}))


@pytest.mark.slow
@settings(max_examples=4000, suppress_health_check=SLOW_TO_DRAW)
@given(layout_graphs())
def test_layout_computes_the_same_many_times(drawn):
    check(drawn)
