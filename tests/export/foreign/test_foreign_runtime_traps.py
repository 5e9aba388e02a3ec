"""What ONNX Runtime's optimiser makes of a file once a node between two others is gone."""

import numpy as np
import onnx
import onnxruntime
import pytest

from keras_bn.export import fold_batch_norms
from tests.export.foreign_graphs import foreign, outputs
from tests.tolerances import assert_close

WEIGHTS = {"k": (4, 4, 9, 1), "q": (4, 4, 3, 3), **dict.fromkeys(["g", "b", "m", "v"], (4,))}
COLUMN = """g (float[N,4,32,1] x) => (float[N,4,32,1] y) {{
    begin = Constant<value = int64[4] {{0, 0, 4, 0}}>()
    pads = Concat<axis = 0>(begin, begin)
    p = Pad(x, pads) c = Conv{}(p, k) n = BatchNormalization(c, g, b, m, v) y = Relu(n) }}"""


def optimised(proto, path):
    """Return the operators that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [node.op_type for node in onnx.load(path).graph.node], session


@pytest.mark.parametrize("opset", [11, 13, 18, 22])
def test_pad_of_a_column_stays_apart_from_its_convolution(opset, tmp_path, rng):
    proto = foreign(COLUMN.format(""), opset, weights=WEIGHTS)
    result, report = fold_batch_norms(proto)
    assert [node.op_type for node in result.graph.node] == ["Pad", "Conv", "Relu"]
    assert report.refusals == ()
    onnx.checker.check_model(result, full_check=True)
    kinds, session = optimised(result, tmp_path / "optimised.onnx")
    assert "Pad" in kinds
    x = rng.normal(size=(2, 4, 32, 1)).astype(np.float32)
    truth = outputs(proto, x=x)[0]
    assert_close(outputs(result, x=x)[0], truth, 1e-6)
    assert_close(session.run(None, {"x": x})[0], truth)


def test_onnxruntime_still_joins_the_two(tmp_path):
    """Else the rewrite is needed no more."""
    text = """g (float[N,4,32,1] x) => (float[N,4,32,1] y) {
        pads = Constant<value = int64[8] {0, 0, 4, 0, 0, 0, 4, 0}>()
        p = Pad(x, pads) c = Conv(p, k) y = Relu(c) }"""
    kinds, _ = optimised(foreign(text, weights=WEIGHTS), tmp_path / "optimised.onnx")
    assert "Pad" not in kinds


def test_pad_of_an_image_is_left_to_onnxruntime(tmp_path):
    text = """g (float[N,4,8,8] x) => (float[N,4,8,8] y) {
        pads = Constant<value = int64[8] {0, 0, 1, 1, 0, 0, 1, 1}>()
        p = Pad(x, pads) c = Conv(p, q) n = BatchNormalization(c, g, b, m, v) y = Relu(n) }"""
    result, _ = fold_batch_norms(foreign(text, weights=WEIGHTS))
    kinds, _ = optimised(result, tmp_path / "optimised.onnx")
    assert "Pad" not in kinds


@pytest.mark.parametrize("opset", [9, 11, 13, 18])
def test_pad_that_meets_a_pool_is_right_optimised(opset, tmp_path, rng):
    """The batch norm has stood between them, and folds."""
    pad = "Pad<pads = [0,0,1,1,0,0,1,1]>(c)" if opset < 11 else "Pad(c, pads)"
    constant = (
        "" if opset < 11 else ("pads = Constant<value = int64[8] {0, 0, 1, 1, 0, 0, 1, 1}>()")
    )
    text = f"""g (float[N,3,8,8] x) => (float[N,4,6,6] y) {{ {constant}
        c = Conv(x, w) p = {pad} n = Mul(p, s) y = MaxPool<kernel_shape = [3,3]>(n) }}"""
    weights = {"w": (4, 3, 3, 3), "s": (4, 1, 1)}
    proto = foreign(text, opset, weights=weights)
    result, report = fold_batch_norms(proto)
    assert len(report.folds) == 1
    onnx.checker.check_model(result, full_check=True)
    _, session = optimised(result, tmp_path / "optimised.onnx")
    x = -np.abs(rng.normal(size=(2, 3, 8, 8))).astype(np.float32)
    assert_close(session.run(None, {"x": x})[0], outputs(proto, x=x)[0])
