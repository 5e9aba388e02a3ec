import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from tests.tolerances import assert_close


class Trainer(tf.Module):
    """What a program keeps that goes on training elsewhere."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32)])
    def train(self, x):
        return self.model(x, training=True)

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32)])
    def infer(self, x):
        return self.model(x, training=False)


def model_of(**options):
    inner = keras.Sequential([keras.layers.Dense(4), BatchNormalization(**options)])
    return keras.Sequential([keras.Input((3,)), inner, keras.layers.ReLU()])


@pytest.mark.parametrize("options", [{}, {"fused": False}, {"momentum": None}])
def test_saved_model_that_trains(options, rng, tmp_path):
    model = model_of(**options)
    x = rng.normal(size=(8, 3)).astype(np.float32)
    names = [variable.path for variable in model.variables]
    tf.saved_model.save(Trainer(model), tmp_path / "saved")
    assert [variable.path for variable in model.variables] == names
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert_close(loaded.train(x), model(x, training=True).numpy())
    assert_close(loaded.infer(x), model(x, training=False).numpy())


def test_saved_model_skips_and_counts_batches_too(rng, tmp_path):
    tf.saved_model.save(Trainer(model_of()), tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    x = rng.normal(size=(8, 3)).astype(np.float32)
    before = loaded.infer(x).numpy()
    loaded.train(np.full((8, 3), np.nan, np.float32))
    np.testing.assert_array_equal(loaded.infer(x), before)


def test_checkpoint_has_no_counter(rng, tmp_path):
    model = model_of()
    model(rng.normal(size=(8, 3)).astype(np.float32), training=True)
    saved = tf.train.Checkpoint(model=model).save(str(tmp_path / "weights"))
    assert not [name for name, _ in tf.train.list_variables(saved) if "skip" in name]
    tf.train.Checkpoint(model=model_of()).restore(saved)
