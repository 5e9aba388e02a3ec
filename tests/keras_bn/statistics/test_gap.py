"""Each cause, provoked on its own: a diagnosis that also fires elsewhere would be no diagnosis."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import (
    BatchNormalization,
    Cause,
    estimate_population_statistics,
    train_inference_gap,
)
from tests import oracles
from tests.tolerances import assert_close

Stock = keras.layers.BatchNormalization
LAYERS = ("bn0", "bn1", "bn2", "bn3")


@pytest.fixture(scope="module")
def samples():
    """Noise with a gradient that tells the class, 640 images."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 640)
    x = 1.0 + rng.normal(size=(640, 8, 8, 3))
    x += 0.5 * y[:, None, None, None] * np.linspace(-1, 1, 8)[None, :, None, None]
    return x.astype(np.float32), y


def build(momentum=0.9, layer=BatchNormalization):
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 3))
    for i, filters in enumerate((8, 16, 16)):
        x = keras.layers.Conv2D(filters, 3, strides=1 + (i > 0), padding="same")(x)
        x = keras.layers.ReLU()(layer(momentum=momentum, name=f"bn{i}")(x))
    x = keras.layers.Dense(16)(keras.layers.GlobalAveragePooling2D()(x))
    x = keras.layers.ReLU()(layer(momentum=momentum, name="bn3")(x))
    model = keras.Model(image, keras.layers.Dense(4, name="logits")(x))
    return compiled(model)


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)  # XLA would take longer than the training
    return model


def fit(model, samples, epochs):
    model.fit(*samples, epochs=epochs, batch_size=64, verbose=0, shuffle=False)
    return model


@pytest.fixture(scope="module", params=[BatchNormalization, Stock], ids=["ours", "stock"])
def layer(request):
    return request.param


@pytest.fixture(scope="module")
def trained(samples, layer):
    """A healthy model. It runs eagerly: a few batches take less time than tracing does."""
    model = fit(build(layer=layer), samples, 8)
    model.run_eagerly = True
    return model


@pytest.fixture(scope="module")
def hasty(samples, layer):
    """Trained for 20 steps with momentum 0.99."""
    return fit(build(0.99, layer), samples, 2)


def causes(model, data, batch_size=64):
    report = train_inference_gap(model, data, batch_size=batch_size, verbose=0)
    return report, [diagnosis.cause for diagnosis in report.diagnoses]


@pytest.mark.parametrize("size", [32, 64, 640])
def test_healthy_model_has_no_diagnosis(trained, samples, size):
    report, found = causes(trained, samples, size)
    assert found == []
    assert report.first is None
    assert "no cause for concern" in str(report)
    assert report.loss_with_stored_statistics < 1.2 * report.loss_with_batch_statistics


@pytest.mark.smoke
def test_statistics_at_their_initial_values_are_never_updated(samples, layer):
    model = build(layer=layer)
    for name in LAYERS:
        model.get_layer(name).trainable = False
    fit(compiled(model), samples, 2)
    for name in LAYERS:
        model.get_layer(name).trainable = True
    report, found = causes(model, samples)
    assert found == [Cause.NEVER_UPDATED]
    assert report.diagnoses[0].layers == LAYERS
    assert "4 of 4 layers still have their initial" in report.diagnoses[0].evidence


def test_statistics_that_a_bad_batch_destroyed_are_named(trained, samples):
    model = keras.models.clone_model(trained)
    model.set_weights(trained.get_weights())
    model.get_layer("bn1").moving_variance.assign(np.full(16, np.nan))
    report, found = causes(model, samples)
    assert found == [Cause.NOT_FINITE]
    assert report.diagnoses[0].layers == ("bn1",)
    assert report.first.layer == report.worst.layer == "bn1"
    json.dumps(report.to_dict(), allow_nan=False)
    estimate_population_statistics(model, samples[0], verbose=0)
    assert causes(model, samples)[1] == []


def test_momentum_too_high_for_the_steps_is_told_by_the_optimizer(hasty, samples):
    report, found = causes(hasty, samples)
    assert found == [Cause.MOMENTUM_TOO_HIGH]
    assert "after 20 steps with momentum 0.99, 0.82 of" in report.diagnoses[0].evidence
    assert report.diagnoses[0].layers == LAYERS
    assert report.first.layer == "bn0"


def test_momentum_too_high_is_told_by_the_statistics_alone(hasty, samples):
    model = keras.models.clone_model(hasty)
    model.set_weights(hasty.get_weights())
    compiled(model)  # a new optimizer has made no step
    report, found = causes(model, samples)
    assert found == [Cause.MOMENTUM_TOO_HIGH]
    share = re.search(r"with (\d+)% \(median\) still", report.diagnoses[0].evidence)
    assert abs(int(share[1]) - 100 * 0.99**20) < 5


def test_little_of_the_initial_variance_is_much_beside_a_small_one(rng, layer):
    """With 1.7 % of the variance 1 left, a channel of variance 0.01 is off by a factor of 2.7."""
    bn = layer(momentum=0.99, name="bn")
    model = keras.Sequential([keras.Input((3,)), bn, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = rng.normal(0.0, 0.1, (405 * 64, 3)).astype(np.float32)
    model.fit(x, x[:, :1], batch_size=64, verbose=0)
    report, found = causes(model, x[:6400])
    assert found == [Cause.MOMENTUM_TOO_HIGH]
    assert "after 405 steps with momentum 0.99, 0.017 of" in report.diagnoses[0].evidence
    outlying = x[:6400].copy()
    outlying[100] *= 255
    report, found = causes(model, outlying)
    assert found == [Cause.OUTLIER_BATCH, Cause.MOMENTUM_TOO_HIGH]
    assert "training has met it" not in report.diagnoses[0].evidence


def test_smaller_last_batch_is_no_small_batch(rng):
    bn = BatchNormalization(momentum=0.5)
    model = keras.Sequential([keras.Input((64,)), bn])
    x = rng.normal(size=(32 * 4 + 3, 64)).astype(np.float32)
    assert causes(model, x, 32)[1] == []


@pytest.mark.parametrize("size", [2, 4])
def test_small_batches_are_told_by_their_noise(trained, samples, size):
    count = 32 * size
    report, found = causes(trained, (samples[0][:count], samples[1][:count]), size)
    assert found == [Cause.BATCHES_TOO_SMALL]
    assert report.diagnoses[0].layers[-1] == "bn3" == report.worst.layer


@pytest.mark.parametrize(
    ("factor", "offset", "evidence"),
    [
        (255.0, 0.0, "as if the inputs were scaled by it"),
        (1.0, -3.0, "stored deviations away; 3 of 4 layers are off"),
    ],
    ids=["scaled", "shifted"],
)
def test_other_preprocessing_is_told_from_momentum(trained, samples, factor, offset, evidence):
    x, y = samples
    report, found = causes(trained, (factor * x + offset, y))
    assert found == [Cause.DATA_DIFFER]
    assert evidence in report.diagnoses[0].evidence
    assert report.diagnoses[0].layers[0] == report.first.layer == report.worst.layer == "bn0"
    assert report.loss_with_stored_statistics > 3 * report.loss_with_batch_statistics


def test_other_preprocessing_is_told_without_an_optimizer(trained, samples):
    model = keras.models.clone_model(trained)
    model.set_weights(trained.get_weights())
    report, found = causes(model, 255 * samples[0])
    assert found == [Cause.DATA_DIFFER]
    assert report.loss_with_batch_statistics is None


def test_new_optimizer_is_not_the_age_of_the_statistics(trained, samples):
    model = keras.models.clone_model(trained)
    model.set_weights(trained.get_weights())
    compiled(model).run_eagerly = True
    fit(model, samples, 1)
    assert int(model.optimizer.iterations) == 10
    assert causes(model, samples)[1] == []
    _, found = causes(model, (255 * samples[0], samples[1]))
    assert found == [Cause.DATA_DIFFER]


@pytest.mark.parametrize("rest", [1, 2, 5])
def test_short_last_batch_is_no_outlier(trained, samples, rest):
    count = 320 + rest
    assert causes(trained, (samples[0][:count], samples[1][:count]), 32)[1] == []


@pytest.mark.parametrize("size", [1, 16, 32])
def test_single_batch_does_not_convict_the_data(trained, samples, size):
    assert causes(trained, (samples[0][:size], samples[1][:size]), size)[1] == []


def test_weights_that_are_nan_are_not_all_clear(trained, samples):
    model = keras.models.clone_model(trained)
    model.set_weights(trained.get_weights())
    model.get_layer("logits").bias.assign(np.full(4, np.nan))
    report, found = causes(model, samples)
    assert found == [Cause.OUTPUT_NOT_FINITE]
    assert np.isnan(report.outputs[0].rms)
    assert "logits has values that are NaN or Inf" in str(report)
    json.dumps(report.to_dict(), allow_nan=False)


def test_compiled_model_of_a_strategy(samples):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = build(0.99)
    fit(model, samples, 2)
    assert causes(model, samples)[1] == [Cause.MOMENTUM_TOO_HIGH]


def test_outlier_in_the_data_is_named(trained, samples):
    x, y = samples[0].copy(), samples[1]
    x[130] *= 255
    report, found = causes(trained, (x, y))
    assert found == [Cause.OUTLIER_BATCH]
    assert report.diagnoses[0].evidence.startswith("batch 2 (counted from 0) is ")
    assert "training has met it" not in report.diagnoses[0].evidence


def test_outlier_that_training_met_explains_the_stored_statistics(samples, layer):
    x, y = samples[0].copy(), samples[1]
    model = fit(build(layer=layer), samples, 4)
    x[130] *= 255
    fit(model, (x[:192], y[:192]), 1)
    report, found = causes(model, (x, y))
    assert found == [Cause.OUTLIER_BATCH]
    assert "so training has met it too" in report.diagnoses[0].evidence


@pytest.mark.smoke
def test_layer_gap_is_the_difference_of_its_outputs(rng):
    x = rng.normal(2.0, 3.0, (64, 5)).astype(np.float32)
    layer = BatchNormalization(name="bn", momentum=0.5)
    model = keras.Sequential([keras.Input((5,)), layer])
    layer.gamma.assign(rng.normal(size=5))
    gamma, mean, variance = np.float64(layer.gamma), x.mean(0), x.var(0)
    report, _ = causes(model, x)
    by_batch = oracles.normalise(x, mean, variance, gamma, 0.0, layer.epsilon)
    by_stored = oracles.normalise(x, 0.0, 1.0, gamma, 0.0, layer.epsilon)
    scale = np.sqrt((variance / (variance + layer.epsilon)).mean())  # epsilon shrinks it a little
    expected = np.sqrt(((by_batch - by_stored) ** 2).mean() / (gamma**2).mean())
    assert_close(report.layers[0].gap, expected, 1e-3 / scale)
    difference = by_batch - by_stored
    assert_close(report.outputs[0].rms, np.sqrt((difference**2).mean() / (by_batch**2).mean()))
    assert_close(report.outputs[0].largest, np.abs(difference).max())


def test_loss_is_that_of_evaluate(trained, samples):
    report, _ = causes(trained, samples)
    expected = trained.evaluate(*samples, batch_size=64, verbose=0)
    assert_close(report.loss_with_stored_statistics, expected)


def test_several_outputs_are_named(rng):
    x = keras.Input((3,), name="x")
    y = BatchNormalization()(x)
    model = keras.Model(x, {"b": keras.layers.Dense(2)(y), "a": y})
    report, _ = causes(model, rng.normal(5, 1, (64, 3)).astype(np.float32))
    assert [output.name for output in report.outputs] == ["a", "b"]
    assert report.loss_with_batch_statistics is None


def test_sequential_model_compiled_without_a_loss(rng):
    model = keras.Sequential(
        [keras.Input((3,)), BatchNormalization(), keras.layers.Dense(2, name="last")]
    )
    model.compile("sgd")
    x = rng.normal(size=(64, 3)).astype(np.float32)
    report, _ = causes(model, (x, x[:, :2]))
    assert [output.name for output in report.outputs] == ["last"]
    assert report.loss_with_stored_statistics is None


def test_frozen_layers_are_left_out(trained, samples):
    model = keras.models.clone_model(trained)
    model.trainable = False
    report, found = causes(model, samples[0])
    assert found == []
    assert set(report.unchanged) == set(LAYERS)
    assert report.worst is None
    assert report.outputs[0].rms == 0.0


def test_report_is_json_and_names_every_layer(trained, samples):
    report, _ = causes(trained, (255 * samples[0], samples[1]))
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(text)["first"] == json.loads(text)["worst"] == "bn0"
    assert all(name in str(report) for name in LAYERS)
    assert str(report).endswith("batch noise: of a batch from the average one")
    assert "-> Preprocess as in training" in str(report)


def test_model_and_metrics_stay_as_they_were(trained, samples):
    before = trained.get_weights()
    iterations = int(trained.optimizer.iterations)
    causes(trained, samples)
    for old, new in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(trained.optimizer.iterations) == iterations
    assert all("call" not in vars(layer) for layer in trained._flatten_layers())


def test_unusable_batches_are_counted_and_all_of_them_raise(trained, samples):
    x, y = samples[0].copy(), samples[1]
    x[70] = np.nan
    report, _ = causes(trained, (x, y))
    assert (report.batches, report.skipped_batches, report.samples) == (9, 1, 576)
    with pytest.raises(ValueError, match=re.escape("Received: 10 batches, none of them usable")):
        causes(trained, (x * np.nan, y))
