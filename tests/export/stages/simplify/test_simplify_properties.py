import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_bn.export.stages.simplify.simplify import simplify
from tests.export.random_graphs import random_graph
from tests.export.reference_operators import run_reference
from tests.tolerances import FLOAT64, assert_close

SEEDS = st.integers(0, 2**32 - 1)
OPSETS = st.integers(13, 18)


def run_optimised(model, inputs):
    """Evaluate a graph in ONNX Runtime with all of its own rewrites."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def check_everything(drawn):
    """Assert all that `simplify` promises of one graph; return the simplified one."""
    model = drawn.model
    before = ir.to_proto(model).SerializeToString()
    after = simplify(model)
    proto = ir.to_proto(after)
    onnx.checker.check_model(proto, full_check=True)
    assert ir.to_proto(model).SerializeToString() == before
    assert ir.to_proto(simplify(after)).SerializeToString() == proto.SerializeToString()
    assert len(after.graph) <= len(model.graph)
    for kind in ("inputs", "outputs"):
        values = zip(getattr(after.graph, kind), getattr(model.graph, kind), strict=True)
        assert all((a.name, a.dtype, a.shape) == (e.name, e.dtype, e.shape) for a, e in values)
    for actual, expected in zip(run_reference(after, drawn.inputs), drawn.expected, strict=True):
        assert_close(actual, expected, FLOAT64)
    return after


def check_other_sizes(drawn, after, rng):
    """Compare the two graphs for other sizes of the dynamic dimensions, if they allow any."""
    inputs = {}
    for value in drawn.model.graph.inputs:
        given_shape = drawn.inputs[value.name].shape
        shape = [
            n if isinstance(n, int) else g + rng.integers(1, 3)
            for n, g in zip(value.shape, given_shape, strict=True)
        ]
        inputs[value.name] = rng.normal(size=shape).astype(np.float32)
    try:
        expected = run_reference(drawn.model, inputs)
    except Exception:  # a constant of the graph does not fit these sizes
        return
    for a, e in zip(run_reference(after, inputs), expected, strict=True):
        assert_close(a, e, FLOAT64)


@settings(max_examples=100)
@given(SEEDS, OPSETS, st.booleans())
def test_random_graph_stays_the_same_function(seed, opset, dynamic):
    drawn = random_graph(seed, opset, dynamic=dynamic)
    after = check_everything(drawn)
    if dynamic:
        check_other_sizes(drawn, after, np.random.default_rng(seed))


@settings(max_examples=50)
@given(SEEDS, OPSETS, st.booleans())
def test_onnxruntime_gets_the_simplified_graph_right(seed, opset, dynamic):
    drawn = random_graph(seed, opset, dynamic=dynamic)
    results = run_optimised(simplify(drawn.model), drawn.inputs)
    for actual, expected in zip(results, drawn.expected, strict=True):
        assert_close(actual, expected, 1e-4)


@pytest.mark.slow
@settings(max_examples=3000)
@given(SEEDS, OPSETS, st.booleans())
def test_thousands_of_random_graphs(seed, opset, dynamic):
    drawn = random_graph(seed, opset, dynamic=dynamic, nodes=14)
    after = check_everything(drawn)
    if dynamic:
        check_other_sizes(drawn, after, np.random.default_rng(seed))
    for actual, expected in zip(run_optimised(after, drawn.inputs), drawn.expected, strict=True):
        assert_close(actual, expected, 1e-4)
