"""TensorFlow's own variables and functions in a model: inlined, named, and folded."""

import collections

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.export import export_onnx

layers = keras.layers


@pytest.fixture
def saved(randomised, tmp_path):
    """Return a function that saves a layer's model as a SavedModel and gives its folder."""

    def save(shape, layer, dtype="float32"):
        x = keras.Input(shape, dtype=dtype)
        model = randomised(keras.Model(x, layer(x)))
        folder = tmp_path / f"saved_{len(list(tmp_path.iterdir()))}"
        model.export(folder, verbose=False)
        return str(folder)

    return save


def block(norm=BatchNormalization, **options):
    return keras.Sequential([layers.Conv2D(4, 3, **options), norm()])


def exported(model, tmp_path):
    """Return the operators of a proven file, counted, and the names of its initializers."""
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed
    graph = onnx.load(tmp_path / "model.onnx").graph
    counts = collections.Counter(node.op_type for node in graph.node)
    return counts, [tensor.name for tensor in graph.initializer]


@pytest.mark.parametrize("endpoint", ["serve", "serving_default"])
@pytest.mark.parametrize("norm", [layers.BatchNormalization, BatchNormalization])
def test_saved_model_is_inlined_and_folded(norm, endpoint, saved, tmp_path):
    x = keras.Input((8, 8, 3), name="x")
    layer = layers.TFSMLayer(saved((8, 8, 3), block(norm)), call_endpoint=endpoint, name="saved")
    counts, names = exported(keras.Model(x, layer(x)), tmp_path)
    assert counts == {"Transpose": 2, "Conv": 1}
    assert [name.startswith("saved/") for name in names] == [True, True]
    assert {name.rpartition("/")[2] for name in names} == {"kernel", "bias"}


def test_saved_models_between_other_layers(saved, tmp_path):
    folder = saved((8, 8, 3), block(padding="same"))
    x = keras.Input((8, 8, 3), name="x")
    first = BatchNormalization()(layers.Conv2D(3, 1)(x))
    y = layers.TFSMLayer(folder, name="left")(first)
    z = layers.TFSMLayer(folder, name="right")(layers.ReLU()(first))
    counts, names = exported(keras.Model(x, y * z), tmp_path)
    assert counts["Conv"] == 3
    assert counts["BatchNormalization"] == 0
    assert {name.split("/")[0] for name in names} >= {"left", "right"}


def test_grouped_convolution_in_a_saved_model(saved, tmp_path):
    x = keras.Input((8, 8, 4), name="x")
    layer = layers.TFSMLayer(saved((8, 8, 4), block(groups=2)))
    assert exported(keras.Model(x, layer(x)), tmp_path)[0] == {"Transpose": 2, "Conv": 1}


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU])
def test_loop_in_a_saved_model(layer, saved, tmp_path):
    x = keras.Input((5, 3), name="x")
    exported(keras.Model(x, layers.TFSMLayer(saved((5, 3), layer(4)))(x)), tmp_path)


def test_table_in_a_saved_model(saved, tmp_path):
    x = keras.Input((5,), dtype="int32", name="x")
    layer = layers.TFSMLayer(saved((5,), layers.Embedding(9, 3), "int32"))
    assert exported(keras.Model(x, layer(x)), tmp_path)[0]["Gather"] == 1


class Raw(layers.Layer):
    """A layer that keeps TensorFlow's variables, which Keras does not know of."""

    def build(self, shape):
        self.kernel = tf.Variable(tf.random.normal((shape[-1], 4)), name="kernel")
        self.table = tf.Variable(tf.random.normal((7, 2)), name="table")

    def call(self, x):
        row = tf.cast(tf.clip_by_value(x[:, 0], 0.0, 6.0), tf.int32)
        found = tf.nn.embedding_lookup(self.table, row)
        return tf.concat([tf.matmul(x, self.kernel), found], 1)

    def compute_output_shape(self, shape):
        return (shape[0], 6)


def test_variables_of_tensorflow_are_initializers(tmp_path):
    x = keras.Input((3,), name="x")
    counts, names = exported(keras.Model(x, Raw(name="raw")(x)), tmp_path)
    assert counts["Gather"] == 1
    assert {"raw/kernel", "raw/table"} <= set(names)


class Looped(Raw):
    def call(self, x):
        def step(i, y):
            return i + 1, tf.matmul(y, self.kernel[:, :3])

        return tf.while_loop(lambda i, _: i < 3, step, [0, x])[1]

    def compute_output_shape(self, shape):
        return shape


def test_variable_read_by_a_loop(tmp_path):
    x = keras.Input((3,), name="x")
    exported(keras.Model(x, Looped(name="looped")(x)), tmp_path)


def test_new_values_of_a_variable_reach_the_next_export(rng, tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, Raw(name="raw")(x))
    exported(model, tmp_path)
    value = rng.normal(size=(3, 4)).astype(np.float32)
    model.layers[1].kernel.assign(value)
    exported(model, tmp_path)
    tensors = {t.name: t for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensors["raw/kernel"]), value)
