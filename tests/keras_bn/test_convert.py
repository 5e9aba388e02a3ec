import re

import keras
import numpy as np
import pytest

from keras_bn import BatchNormalization, use_fused_batch_norm, use_keras_batch_norm
from tests.networks import APPLICATIONS
from tests.tolerances import assert_close

Stock = keras.layers.BatchNormalization


class Custom(Stock):
    """Somebody's own batch norm."""


class Subclassed(keras.Model):
    """A model without a graph of layers; one layer hides in a list, one in a nested model."""

    def __init__(self):
        super().__init__()
        self.norms = [Stock(name="first"), Custom(name="custom")]
        self.inner = keras.Sequential([keras.layers.Dense(3), Stock(name="second")])

    def call(self, x, training=None):
        for norm in self.norms:
            x = norm(x, training=training)
        return self.inner(x, training=training)


def functional():
    x = keras.Input((4, 4, 3))
    shared = Stock(name="shared")
    y = shared(keras.layers.Conv2D(3, 3, padding="same")(shared(x)))
    inner_input = keras.Input((4, 4, 3))
    inner = keras.Model(inner_input, Stock(name="deep")(inner_input), name="inner")
    y = keras.layers.TimeDistributed(Stock(name="wrapped"))(inner(y))
    return keras.Model(x, y)


@pytest.fixture
def images(rng):
    return rng.normal(1.0, 2.0, (4, 4, 4, 3)).astype(np.float32)


@pytest.mark.smoke
def test_every_layer_of_a_functional_model_is_reached(randomised, images):
    model = randomised(functional())
    before, weights = model(images), model.get_weights()
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, Stock)]
    report = use_fused_batch_norm(model)
    assert {path.rpartition("/")[2] for path in report.changed} == {"shared", "deep", "wrapped"}
    assert report.unchanged == {}
    assert {type(layer) for layer in layers} == {BatchNormalization}
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert_close(model(images), before)


@pytest.mark.smoke
def test_subclassed_model_is_reached(rng):
    model = Subclassed()
    x = rng.normal(size=(8, 5)).astype(np.float32)
    before = model(x)
    report = use_fused_batch_norm(model)
    assert len(report.changed) == 2
    assert list(report.unchanged.values()) == [
        "its class, Custom, is derived from Keras's and may override it"
    ]
    assert type(model.norms[1]) is Custom
    assert "Custom" in str(report)
    assert_close(model(x), before)
    model(x, training=True)
    assert model.norms[0].skipped_batches == 0


@pytest.mark.parametrize(
    ("layer", "convert"),
    [(Stock, use_fused_batch_norm), (BatchNormalization, use_keras_batch_norm)],
)
def test_layer_that_is_not_built_yet_stays_and_still_works(rng, layer, convert):
    model = keras.Sequential([keras.layers.Dense(3), layer(name="bn")])
    assert convert(model).unchanged == {"bn": "it is not built yet; call the model on data first"}
    x = rng.normal(size=(8, 5)).astype(np.float32)
    model(x, training=True)
    assert len(convert(model).changed) == 1
    model(x, training=True)


def test_converted_layer_has_a_stateless_call(rng):
    model = keras.Sequential([keras.Input((3,)), Stock()])
    use_fused_batch_norm(model)
    x = rng.normal(size=(8, 3)).astype(np.float32)
    _, state = model.stateless_call(
        model.trainable_variables, model.non_trainable_variables, x, training=True
    )
    assert_close(state[0], 0.01 * x.mean(0))


@pytest.mark.smoke
def test_compiled_model_keeps_its_state_and_trains_on_the_new_layer(rng):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), Stock(name="bn")])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    x = rng.normal(5.0, 2.0, (8, 3)).astype(np.float32)
    model.fit(x, x, batch_size=8, verbose=0)
    model.predict(x, verbose=0)
    optimizer, iterations = model.optimizer, int(model.optimizer.iterations)
    model.layers[0].trainable = False
    use_fused_batch_norm(model)
    assert model.optimizer is optimizer
    assert int(model.optimizer.iterations) == iterations
    assert model.layers[0].trainable is False
    model.layers[1].moving_variance.assign(np.zeros(3))
    inputs = model.layers[0](x)
    model.fit(x, x, batch_size=8, verbose=0, shuffle=False)
    unbiased = np.var(inputs, axis=0, ddof=1)  # stock Keras has ddof=0
    assert_close(model.layers[1].moving_variance, 0.01 * unbiased, 1e-4)


def test_converted_layer_has_every_feature(rng, tmp_path):
    model = keras.Sequential([keras.Input((3,)), Stock(name="bn")])
    use_fused_batch_norm(model, bessel_correction=False)
    assert model.layers[0].bessel_correction is False
    x = rng.normal(size=(8, 3)).astype(np.float32)
    model.layers[0](x, training=True, sample_weight=np.ones(8, np.float32))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.layers[0]) is BatchNormalization
    assert_close(again(x), model(x))


@pytest.mark.smoke
def test_there_and_back_gives_the_same_config(images):
    model = functional()
    before = model.get_config()
    use_fused_batch_norm(model)
    report = use_keras_batch_norm(model)
    assert len(report.changed) == 3
    assert model.get_config() == before
    assert {type(layer) for layer in model._flatten_layers() if isinstance(layer, Stock)} == {Stock}
    model(images, training=True)


def test_layer_without_a_counterpart_in_keras_stays():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            BatchNormalization(momentum=None),
            BatchNormalization(ghost_batch_size=2),
        ]
    )
    report = use_keras_batch_norm(model)
    assert report.changed == ()
    assert len(report.unchanged) == 2


def test_layers_of_the_target_class_are_left_alone():
    ours, stock = (
        keras.Sequential([keras.Input((3,)), cls()]) for cls in (BatchNormalization, Stock)
    )
    assert list(use_fused_batch_norm(ours).unchanged.values()) == [
        "it is this package's layer already"
    ]
    assert list(use_keras_batch_norm(stock).unchanged.values()) == [
        "it is not this package's layer"
    ]


def test_something_else_than_a_model_is_refused():
    with pytest.raises(TypeError, match=re.escape("Received: list.")):
        use_fused_batch_norm([])


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_keras_application_converts_and_predicts_the_same(name, randomised, rng):
    size = APPLICATIONS[name]
    build = getattr(keras.applications, name)
    model = build(input_shape=(size, size, 3), weights=None, include_top=False)
    x = rng.uniform(-1.0, 1.0, (2, size, size, 3)).astype(np.float32)
    model(x, training=True)  # statistics of its own
    before = model(x)
    expected = sum(type(layer) is Stock for layer in model._flatten_layers())
    assert len(use_fused_batch_norm(model).changed) == expected
    assert_close(model(x), before, 1e-4)
