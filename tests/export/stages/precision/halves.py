"""A graph in float16, checked while it is made, and compared with float64."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from keras_bn.export.stages.precision.set_precision import set_precision
from tests.export.graphs import operators, run_float64, run_onnxruntime
from tests.tolerances import HALF, assert_close

FLOAT16, FLOAT32 = ir.DataType.FLOAT16, ir.DataType.FLOAT


def to_float16(model, **inputs):
    """Convert a graph on one batch; the result is valid, its input unchanged, its Casts few."""
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    result, report = set_precision(model, "float16", [inputs])
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    casts = [node for node in result.graph if node.op_type == "Cast"]
    kinds = [(id(cast.inputs[0]), cast.attributes["to"].as_int()) for cast in casts]
    assert len(kinds) == len(set(kinds))
    assert not any(c.inputs[0].producer() in casts for c in casts if c.inputs[0].producer())
    assert report.casts == len(casts) - operators(model).count("Cast")
    return result, report


def run_optimised(model, **inputs):
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def assert_agrees(model, result, tolerance=HALF["float16"], **inputs):
    """Compare a float16 graph in ONNX Runtime, optimised and not, with float64."""
    expected = run_float64(model, **inputs)
    for run in (run_onnxruntime, run_optimised):
        for found, truth in zip(run(result, **inputs), expected, strict=True):
            assert found.dtype == (np.float32 if truth.dtype == np.float64 else truth.dtype)
            assert_close(found, truth, tolerance)


def reasons(report):
    return {row.operator: row.reason.name for row in report.float32}


def precisions(model):
    """Return the dtype of each node's first output, in order, without Casts."""
    return [(node.op_type, node.outputs[0].dtype) for node in model.graph if node.op_type != "Cast"]


def draw(*shape, scale=1.0):
    return (np.random.default_rng(0).normal(size=shape) * scale).astype(np.float32)
