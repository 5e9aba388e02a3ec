import os
import subprocess
import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from keras_bn import BatchNormalization
from keras_bn.export import ExportError, ParityError, export_onnx, pipeline
from keras_bn.export.parity.samples import samples
from keras_bn.export.stages import conversion
from keras_bn.export.stages.constants.evaluate import evaluate_constants
from keras_bn.export.stages.folding.fold import fold
from keras_bn.export.stages.layout.transposes import cancel_transposes
from keras_bn.export.stages.tracing.trace import trace
from keras_bn.models import digits_cnn
from tests.export.graphs import operators
from tests.tolerances import assert_close


def per_channel_arithmetic(path):
    """Return the Mul and Add nodes of a file with a constant operand."""
    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    arithmetic = {"Add", "Sub", "Mul", "Div"}
    return [n.name for n in graph.node if n.op_type in arithmetic and constants & set(n.input)]


@pytest.mark.smoke
def test_digits_network_has_no_trace_of_batch_norm(randomised, tmp_path, rng):
    model = randomised(digits_cnn.build())
    path = tmp_path / "digits.onnx"
    report = export_onnx(model, path)
    assert report.parity.passed
    assert report.fold.refusals == ()
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    assert "BatchNormalization" not in nodes
    assert per_channel_arithmetic(path) == []
    assert "Transpose" not in nodes  # one channel: the image is reshaped, not transposed
    session = onnxruntime.InferenceSession(path)
    assert [i.name for i in session.get_inputs()] == [i.name for i in model.inputs] == ["image"]
    x = rng.random((3, 8, 8, 1)).astype(np.float32)
    assert_close(session.run(None, {"image": x})[0], model(x, training=False))


@pytest.mark.smoke
def test_stock_and_own_layer_give_the_same_graph(randomised):
    def build(layer):
        x = keras.Input((6, 6, 3), name="x")
        y = keras.layers.Conv2D(4, 3, name="conv")(x)
        y = keras.layers.ReLU()(layer(name="a")(y))
        y = keras.layers.Dense(5, name="dense")(keras.layers.GlobalMaxPooling2D()(y))
        return keras.Model(x, layer(name="b")(y))

    ours = randomised(build(BatchNormalization))
    stock = build(keras.layers.BatchNormalization)
    stock.set_weights(ours.get_weights())
    a, b = (fold(cancel_transposes(evaluate_constants(trace(model))))[0] for model in (ours, stock))
    assert operators(a) == operators(b)
    for name in ("conv/kernel", "conv/bias", "dense/kernel", "dense/bias"):
        ours, stock = (g.graph.initializers[name].const_value.numpy() for g in (a, b))
        assert_close(ours, stock, 1e-6)


@pytest.mark.smoke
def test_weights_keep_their_keras_names(small_model, tmp_path):
    export_onnx(small_model, tmp_path / "model.onnx")
    names = {tensor.name for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    weights = {
        f"{layer}/{w}" for layer in ("conv", "depthwise", "dense") for w in ("kernel", "bias")
    }
    assert weights <= names
    assert not any("_bn" in name for name in names)


def test_report_names_keras_layers_and_stages(small_model, tmp_path):
    report = export_onnx(small_model, tmp_path / "model.onnx")
    assert {"conv_bn", "depthwise_bn", "dense_bn"} <= {fold.layer for fold in report.fold.folds}
    stages = ["trace", "constants", "simplify", "layout", "fold", "save", "parity"]
    assert list(report.seconds) == stages
    assert report.bytes == (tmp_path / "model.onnx").stat().st_size
    assert report.to_dict()["parity"]["passed"] is True
    assert "0 left" in str(report)


def test_what_cannot_fold_is_listed_with_a_reason(tmp_path, randomised):
    x = keras.Input((6, 6, 3), name="x")
    y = keras.layers.Conv2D(4, 3)(x)
    y = BatchNormalization(name="after_relu")(keras.layers.ReLU()(y))
    report = export_onnx(randomised(keras.Model(x, y)), tmp_path / "model.onnx")
    assert [(r.layer, r.reason.name) for r in report.fold.refusals] == [("after_relu", "SHIFT")]
    assert "after_relu" in str(report)


def test_shared_layer_is_folded_on_each_path(tmp_path, randomised):
    shared = keras.layers.Conv2D(4, 3, name="shared")
    a, b = keras.Input((6, 6, 3), name="a"), keras.Input((6, 6, 3), name="b")
    y = keras.layers.Add()([BatchNormalization()(shared(a)), keras.layers.ReLU()(shared(b))])
    report = export_onnx(randomised(keras.Model([a, b], y)), tmp_path / "model.onnx")
    assert len(report.fold.folds) == 1
    assert report.parity.passed


def test_file_that_does_not_agree_is_not_written(small_model, tmp_path, monkeypatch):
    def broken(model, **options):
        folded, report = fold(model, **options)
        value = folded.graph.initializers["conv/kernel"]
        value.const_value = type(value.const_value)(value.const_value.exact * 1.01, value.dtype)
        return folded, report

    monkeypatch.setattr(conversion, "fold", broken)
    target = tmp_path / "model.onnx"
    target.write_text("old")
    with pytest.raises(ParityError, match="DIFFERS: output 'dense_bn'") as caught:
        export_onnx(small_model, target)
    assert not caught.value.report.passed
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    assert export_onnx(small_model, target, check=False).parity is None
    assert target.read_bytes() != b"old"


def test_unusable_target_is_refused_before_any_work(small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "trace", lambda model: pytest.fail("traced"))
    with pytest.raises(ExportError, match="existing, writable folder"):
        export_onnx(small_model, tmp_path / "no" / "model.onnx")


def test_interrupted_export_leaves_the_old_file(small_model, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "check_samples", interrupt)
    target = tmp_path / "model.onnx"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        export_onnx(small_model, target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


REPRODUCED = """
import sys
import keras
from keras_bn.export import export_onnx
from keras_bn.models import digits_cnn
keras.utils.set_random_seed(0)
export_onnx(digits_cnn.build(), sys.argv[1], check=False)
"""


def test_two_processes_write_the_same_bytes(tmp_path):
    here, there = tmp_path / "here.onnx", tmp_path / "there.onnx"
    other_hashes = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    subprocess.run(
        [sys.executable, "-c", REPRODUCED, there],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONHASHSEED": other_hashes},
    )
    export_onnx(digits_cnn.build(), here, check=False)
    assert here.read_bytes() == there.read_bytes()


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        pytest.param({}, (1, 1), id="as it is"),
        pytest.param({"precision": "float16"}, (1, 1), id="float16"),
        pytest.param({"precision": "float16", "check": False}, (1, 1), id="float16 unchecked"),
        pytest.param({"check": False}, (1, 0), id="unchecked"),
    ],
)
def test_model_is_converted_once_and_samples_are_drawn_once(
    small_model, tmp_path, monkeypatch, options, counts
):
    calls = []
    for module, name in ((conversion, "trace"), (samples, "draw_kinds")):
        original = getattr(module, name)

        def counted(*args, original=original, name=name, **words):
            calls.append(name)
            return original(*args, **words)

        monkeypatch.setattr(module, name, counted)
    export_onnx(small_model, tmp_path / "model.onnx", **options)
    assert (calls.count("trace"), calls.count("draw_kinds")) == counts
