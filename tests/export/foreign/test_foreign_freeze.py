"""Weights that are inputs too: left by default, constants where the caller says so."""

import numpy as np
import onnx
import onnxruntime
import pytest

from keras_bn.export import fold_batch_norms
from tests.export.foreign_graphs import TORCH, conv_bn, foreign, outputs, serialised
from tests.tolerances import assert_close


def session(proto):
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def test_weights_that_are_inputs_are_left_and_counted():
    proto = conv_bn(weights_as_inputs=True)
    result, report = fold_batch_norms(proto)
    assert result is proto
    assert report.replaceable == 5
    assert "'g', a weight that is an input too" in report.refusals[0].detail
    assert report.before == report.after == {"BatchNormalization": 1, "Conv": 1}


@pytest.mark.parametrize("ir_version", [4, 8, 10])
def test_frozen_weights_fold_and_are_inputs_no_more(ir_version, rng):
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    proto = conv_bn(weights_as_inputs=True, ir_version=ir_version)
    before = serialised(proto)
    result, report = fold_batch_norms(proto, freeze=True)
    assert serialised(proto) == before
    assert [value.name for value in result.graph.input] == ["x"]
    assert (len(report.folds), report.refusals, report.replaceable) == (1, (), 0)
    assert report.after == {"Conv": 1}
    onnx.checker.check_model(result, full_check=True)
    assert_close(outputs(result, x=x)[0], outputs(proto, x=x)[0], 1e-6)


def test_weights_are_frozen_where_nothing_folds():
    text = "g (float[N,3,8,8] x) => (float[N,4,6,6] y) { c = Conv(x, w) y = Relu(c) }"
    proto = foreign(text, weights_as_inputs=True)
    result, report = fold_batch_norms(proto, freeze=True)
    assert report.folds == ()
    assert [value.name for value in result.graph.input] == ["x"]
    assert [t.name for t in result.graph.initializer] == ["w"]


def test_only_the_inputs_that_are_weights_are_frozen():
    proto = conv_bn(weights_as_inputs=True)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("k", 1, [4, 1, 1]))
    proto.graph.node.add(op_type="Mul", input=["y", "k"], output=["z"])
    result, report = fold_batch_norms(proto, freeze=True)
    assert [value.name for value in result.graph.input] == ["x", "k"]
    assert len(report.folds) == 1


def test_before_version_4_of_the_ir_freezing_changes_nothing():
    """There a weight has to be among the inputs, and no caller can replace it."""
    proto = conv_bn(opset=9, ir_version=3, weights_as_inputs=True)
    plain, frozen = (fold_batch_norms(proto, freeze=freeze)[0] for freeze in (False, True))
    assert serialised(plain) == serialised(frozen)


def test_without_such_weights_freezing_changes_nothing():
    proto = foreign(TORCH)
    plain, frozen = (fold_batch_norms(proto, freeze=freeze)[0] for freeze in (False, True))
    assert serialised(plain) == serialised(frozen)


def test_feeding_a_frozen_weight_is_the_error_of_onnxruntime(rng):
    proto = conv_bn(weights_as_inputs=True)
    feeds = {
        "x": rng.normal(size=(2, 3, 8, 8)).astype(np.float32),
        "b": np.ones(4, np.float32),
    }
    assert session(proto).run(None, feeds)[0].shape == (2, 4, 6, 6)
    frozen = session(fold_batch_norms(proto, freeze=True)[0])
    with pytest.raises(Exception, match="Invalid input name: b"):
        frozen.run(None, feeds)
