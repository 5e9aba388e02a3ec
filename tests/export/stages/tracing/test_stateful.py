"""Recurrent layers that keep their states: the file starts from these, as they are."""

import re

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from keras_bn import BatchNormalization
from keras_bn.export import ExportError, export_onnx
from keras_bn.export.stages.tracing.trace import trace
from tests.export.graphs import operators
from tests.tolerances import assert_close

layers = keras.layers

KEPT = {
    "LSTM": (layers.LSTM, (4,), {"return_sequences": True}),
    "GRU": (layers.GRU, (4,), {}),
    "GRU before reset": (layers.GRU, (4,), {"reset_after": False, "go_backwards": True}),
    "SimpleRNN": (layers.SimpleRNN, (4,), {}),
    "LSTM elu, a loop": (layers.LSTM, (4,), {"activation": "elu"}),
}
CASES = [pytest.param(*case, id=name) for name, case in KEPT.items()]


@pytest.fixture
def rows(rng):
    return rng.normal(size=(2, 5, 3)).astype(np.float32)


def started(layer, rows):
    """Return a model whose layer has seen a batch, and so has states."""
    x = keras.Input(batch_shape=rows.shape, name="x")
    model = keras.Model(x, layer(x))
    model(rows)
    return model


def states_of(layer):
    return [state.numpy() for state in keras.tree.flatten(layer.states)]


def run(tmp_path, rows):
    return onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"x": rows})[0]


@pytest.mark.parametrize("is_started", [False, True])
@pytest.mark.parametrize(("layer", "arguments", "options"), CASES)
def test_file_starts_from_the_states_as_they_are(
    layer, arguments, options, is_started, rows, tmp_path
):
    model = started(layer(*arguments, stateful=True, **options), rows)
    if not is_started:
        model.layers[1].reset_state()
    before = states_of(model.layers[1])
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed
    for state, kept in zip(states_of(model.layers[1]), before, strict=True):
        np.testing.assert_array_equal(state, kept)
    first, again = run(tmp_path, rows), run(tmp_path, rows)
    np.testing.assert_array_equal(first, again)
    assert_close(first, model(rows).numpy())


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: layers.Bidirectional(layers.GRU(3, stateful=True)), id="both ways"),
        pytest.param(
            lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], stateful=True), id="stack"
        ),
        pytest.param(
            lambda: keras.Sequential([layers.LSTM(4, stateful=True), layers.Dense(2)]), id="nested"
        ),
    ],
)
def test_layers_around_stateful_ones(make, rows, tmp_path):
    assert export_onnx(started(make(), rows), tmp_path / "model.onnx").parity.passed


def test_convolutional_states(rng, tmp_path):
    rows = rng.normal(size=(2, 3, 6, 6, 2)).astype(np.float32)
    model = started(layers.ConvLSTM2D(3, 2, stateful=True), rows)
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed


def test_shared_layer_goes_on_from_its_own_states(rows, tmp_path):
    lstm = layers.LSTM(3, return_sequences=True, stateful=True)
    x = keras.Input(batch_shape=rows.shape, name="x")
    model = keras.Model(x, lstm(lstm(x)))
    model(rows)
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed


def test_batch_norm_folds_into_a_stateful_layer(rows, randomised, tmp_path):
    x = keras.Input(batch_shape=rows.shape, name="x")
    model = randomised(keras.Model(x, layers.LSTM(4, stateful=True)(BatchNormalization()(x))))
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert [node.op_type for node in nodes] == ["Transpose", "LSTM", "Squeeze"]


class Recurrent(keras.Model):
    def __init__(self):
        super().__init__()
        self.recurrent = layers.GRU(4, stateful=True, name="memory")

    def call(self, x):
        return self.recurrent(x)


def test_subclassed_model_with_a_stated_batch_size(rows, tmp_path):
    model = Recurrent()
    model(rows)
    spec = keras.InputSpec(shape=rows.shape, dtype="float32")
    report = export_onnx(model, tmp_path / "model.onnx", input_signature=[spec])
    assert report.parity.passed


def test_any_batch_size_is_refused_by_name(rows):
    model = Recurrent()
    model(rows)
    spec = keras.InputSpec(shape=(None, 5, 3), dtype="float32")
    with pytest.raises(ExportError, match=re.escape("layer 'memory', with states of 2 samples")):
        trace(model, input_signature=[spec])


def test_stateless_layers_start_from_nothing():
    x = keras.Input((5, 3), name="x")
    traced = trace(keras.Model(x, layers.LSTM(4)(x)))
    lstm = next(node for node in traced.graph if node.op_type == "LSTM")
    assert "LSTM" in operators(traced)
    assert len(lstm.inputs) == 4
