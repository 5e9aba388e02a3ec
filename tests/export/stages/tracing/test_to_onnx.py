"""What cannot be converted is named by TensorFlow's operator and Keras's layer."""

import re

import keras
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.export import ExportError, export_onnx
from keras_bn.export.stages.tracing.trace import trace

layers = keras.layers


def of(shape, layer, dtype="float32"):
    x = keras.Input(shape, name="x", dtype=dtype)
    return keras.Model(x, layer(x))


def halved(method):
    def halve(x):
        return tf.image.resize(x, tf.shape(x)[1:3] // 2, method=method)

    return layers.Lambda(halve, output_shape=(None, None, 3), name="halved")


REFUSED = {
    "a handler that fails": (
        lambda: of(
            (512,), layers.MelSpectrogram(fft_length=64, sequence_stride=32, num_mel_bins=4)
        ),
        "TensorFlow's RFFT in layer 'mel_spectrogram'",
    ),
    "a table": (
        lambda: of((1,), layers.IntegerLookup(vocabulary=[12, 36]), "int64"),
        "TensorFlow's LookupTableFindV2 in layer 'integer_lookup'",
    ),
    "no handler": (
        lambda: of((1,), layers.Hashing(5), "int64"),
        "TensorFlow's StringToHashBucketFast in layer 'hashing'",
    ),
    "in a nested model": (
        lambda: of((1,), keras.Sequential([layers.Hashing(5)], name="inner"), "int64"),
        "in layer 'inner/hashing'",
    ),
    "an area to a computed size": (
        lambda: of((None, None, 3), halved("area")),
        "TensorFlow's ResizeArea in layer 'halved'. Say to which size to resize",
    ),
    "a cubic to a computed size": (
        lambda: of((None, None, 3), halved("bicubic")),
        "TensorFlow's ResizeBicubic in layer 'halved'. Say to which size to resize",
    ),
}


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED)
def test_operator_without_onnx_form_is_named_with_its_layer(make, said):
    with pytest.raises(ExportError, match=re.escape(said)) as refused:
        trace(make())
    text = str(refused.value)
    assert "\n" not in text
    assert len(text) < 400
    assert not re.search(r"OP=|Inputs:|fct=|tf2onnx|report", text)


class AlwaysTraining(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(x, training=True)


def test_random_numbers_are_refused_with_what_draws_them(rng):
    model = AlwaysTraining(layers.Dropout(0.5))
    model(rng.normal(size=(2, 3)))
    with pytest.raises(ExportError, match=r"in layer 'dropout'.*`training=True`"):
        trace(model)


@pytest.mark.parametrize("shape", [(2, 4), (2, 5, 4), (2, 5, 6, 4)])
@pytest.mark.parametrize("layer", [layers.BatchNormalization, BatchNormalization])
def test_batch_norm_in_training_normalises_by_the_batch(layer, shape, rng, randomised, tmp_path):
    model = AlwaysTraining(layer())
    x = rng.normal(3.0, 2.0, size=shape).astype("float32")
    model(x)
    before = [v.numpy() for v in randomised(model).variables]
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed
    assert all((v.numpy() == w).all() for v, w in zip(model.variables, before, strict=True))


@pytest.mark.parametrize(
    "options", [{"axis": 1}, {"renorm": True}, {"activation": "relu"}, {"momentum": None}]
)
def test_batch_norm_of_other_kinds_in_training(options, rng, tmp_path):
    model = AlwaysTraining(BatchNormalization(**options))
    model(rng.normal(size=(2, 5, 4)).astype("float32"))
    assert model.inner.fused is None
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed
    assert model.inner.fused is None


def test_frozen_batch_norm_in_training_is_one_of_inference(rng, tmp_path):
    model = AlwaysTraining(BatchNormalization(trainable=False))
    model(rng.normal(size=(2, 4)).astype("float32"))
    nodes = [node.op_type for node in trace(model).graph]
    assert "BatchNormalization" in nodes


@pytest.mark.parametrize("precision", ["keep", "float32", "float16"])
def test_float8_is_refused_by_layer(precision, rng, tmp_path):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="scores")])
    model.layers[0].quantize("float8")
    said = "Received: float8_e4m3fn in layer 'sequential/scores'. Export the model as it was before"
    with pytest.raises(ExportError, match=re.escape(said)):
        export_onnx(model, tmp_path / "model.onnx", precision=precision)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_integer_weights_are_exported(mode, randomised, tmp_path):
    model = randomised(keras.Sequential([keras.Input((8,)), layers.Dense(4)]))
    model.layers[0].quantize(mode)
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed


NAMES = ["conv block 1", "a:b", "größe", "back\\slash", "a(b)[c]"]


@pytest.mark.parametrize("name", NAMES)
def test_layer_of_any_name_keeps_it_in_the_file(name, randomised, tmp_path):
    model = randomised(of((4,), layers.Dense(2, name=name)))
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed
    graph = trace(model).graph
    assert {node.name.rpartition("/")[0] for node in graph} >= {name}
    assert f"{name}/kernel" in graph.initializers
    assert model.layers[1].name == name


def test_names_that_differ_in_what_tensorflow_refuses(randomised, tmp_path):
    x = keras.Input((4,), name="x")
    y = layers.Dense(3, name="a b")(layers.Dense(3, name="a_b")(layers.Dense(3, name="a:b")(x)))
    model = randomised(keras.Model(x, y, name="my model"))
    report = export_onnx(model, tmp_path / "model.onnx")
    assert report.parity.passed
    assert {node.name.rpartition("/")[0] for node in trace(model).graph} >= {"a b", "a_b", "a:b"}
    assert [layer.name for layer in model.layers] == ["x", "a:b", "a_b", "a b"]


def test_names_come_back_after_an_error():
    model = of((1,), layers.Hashing(5, name="look up"), "int64")
    with pytest.raises(ExportError, match="in layer 'look up'"):
        trace(model)
    assert model.layers[1].name == "look up"
