"""Dropout in front of a batch norm: told from other data and from training that was too short."""

import keras
import numpy as np
import pytest

from keras_bn import BatchNormalization, Cause, train_inference_gap
from keras_bn.statistics.training_only import TrainingRun, training_only_layers

Stock = keras.layers.BatchNormalization


@pytest.fixture(scope="module")
def samples():
    x = np.random.default_rng(0).normal(size=(512, 20)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int32)


def trained(samples, noise, epochs, momentum=0.9, layer=BatchNormalization):
    keras.utils.set_random_seed(0)
    network = [keras.Input((20,)), keras.layers.Dense(32, activation="relu"), noise]
    network += [layer(momentum=momentum, name="bn"), keras.layers.Dense(2)]
    model = keras.Sequential(network)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    model.fit(*samples, epochs=epochs, verbose=0)
    return model


def diagnoses(model, data):
    return train_inference_gap(model, data, verbose=0).diagnoses


class OwnDropout(keras.layers.Layer):
    """Of another library: its model gives `training` by position."""

    def __init__(self, **options):
        super().__init__(**options)
        self.draws = keras.random.SeedGenerator(0)

    def call(self, x, training=False):
        return keras.random.dropout(x, 0.5, seed=self.draws) if training else x


@pytest.mark.parametrize("layer", [BatchNormalization, Stock])
@pytest.mark.parametrize(
    "noise",
    [
        keras.layers.Dropout(0.5, name="noisy"),
        keras.layers.GaussianNoise(1.0, name="noisy"),
        OwnDropout(name="noisy"),
    ],
    ids=["dropout", "noise", "own"],
)
def test_dropout_is_named_and_the_statistics_are_left(samples, noise, layer):
    (found,) = diagnoses(trained(samples, noise, 8, layer=layer), samples)
    assert found.cause == Cause.TRAINING_ONLY
    assert found.evidence.startswith("with noisy on, as in training, the stored statistics")
    assert "leave them" in found.advice
    assert not any(word in str(found) for word in ("estimate", "adapt", "recalibrate", "reprocess"))


def test_other_data_are_told_though_there_is_dropout(samples):
    model = trained(samples, keras.layers.Dropout(0.5), 8)
    (found,) = diagnoses(model, (255 * samples[0], samples[1]))
    assert found.cause == Cause.DATA_DIFFER


def test_short_training_is_told_though_there_is_dropout(samples):
    model = trained(samples, keras.layers.Dropout(0.5), 1, momentum=0.99)
    (found,) = diagnoses(model, samples)
    assert found.cause == Cause.MOMENTUM_TOO_HIGH


def test_each_batch_meets_other_dropout_and_the_model_stays(samples):
    model = trained(samples, keras.layers.Dropout(0.5, name="noisy"), 1)
    bn, noisy = model.get_layer("bn"), model.get_layer("noisy")
    before = noisy.seed_generator.state.numpy()
    run = TrainingRun("here", model, {"bn": bn})
    for batch in range(10):
        run.keep(batch, samples[0][:64])
    seen = run.observe()["bn"]
    assert seen.batch.tolist() == list(range(8))
    assert len(np.unique(seen.mean[:, 0])) == 8
    np.testing.assert_array_equal(noisy.seed_generator.state.numpy(), before)
    assert not any("call" in vars(layer) for layer in (bn, noisy))


def test_recurrent_dropout_and_layers_that_draw_nothing_are_left_out():
    network = [keras.Input((4, 3)), keras.layers.LSTM(2, dropout=0.5), keras.layers.Dropout(0.0)]
    model = keras.Sequential([*network, keras.layers.Dropout(0.1, name="noisy")])
    assert [layer.name for layer in training_only_layers(model)] == ["noisy"]
