"""Batch renormalisation belongs to Keras's layer from 3.14 on; before, it can only be refused."""

import re

import keras
import numpy as np
import pytest

import keras_bn
from keras_bn import BatchNormalization, arguments

pytestmark = pytest.mark.smoke

ARGUMENTS = ("renorm", "renorm_clipping", "renorm_momentum")


@pytest.fixture
def old_keras(monkeypatch):
    """Let the installed Keras take no arguments of batch renormalisation."""
    stock = keras.layers.BatchNormalization
    build = stock.__init__

    def old_init(self, *args, **kwargs):
        assert not set(ARGUMENTS) & set(kwargs)
        build(self, *args, **kwargs)

    monkeypatch.setattr(stock, "__init__", old_init)
    monkeypatch.setattr(arguments, "KERAS_HAS_RENORM", False)


@pytest.mark.usefixtures("old_keras")
def test_renorm_is_refused_where_keras_does_not_have_it():
    received = f"Received: renorm=True, keras={keras.__version__}."
    with pytest.raises(ValueError, match=re.escape(received)) as raised:
        BatchNormalization(renorm=True)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.usefixtures("old_keras")
def test_config_of_a_newer_keras_is_taken_where_renorm_is_off():
    newer = {"momentum": 0.5, "renorm": False, "renorm_clipping": None, "renorm_momentum": 0.99}
    layer = BatchNormalization.from_config(newer)
    assert layer.get_config()["momentum"] == 0.5
    with pytest.raises(TypeError, match=r"Received: renorm=True, keras="):  # Keras raises it so
        BatchNormalization.from_config({**newer, "renorm": True})


def test_config_without_renorm_is_taken():
    config = BatchNormalization(momentum=0.5).get_config()
    older = {name: value for name, value in config.items() if name not in ARGUMENTS}
    assert BatchNormalization.from_config(older).get_config() == config


def test_config_names_renorm_only_where_keras_has_it():
    named = [name for name in BatchNormalization().get_config() if name in ARGUMENTS]
    assert named == [
        name for name in keras.layers.BatchNormalization().get_config() if name in ARGUMENTS
    ]


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "Keras's"])
def test_layer_without_renorm_trains_converts_and_is_estimated(rng, ours):
    layer = (BatchNormalization if ours else keras.layers.BatchNormalization)(name="bn")
    model = keras.Sequential([keras.Input((3,)), layer])
    x = rng.normal(3.0, 2.0, (32, 3)).astype(np.float32)
    model(x, training=True)
    report = keras_bn.estimate_population_statistics(model, x)
    assert len(report.layers) == 1
    np.testing.assert_allclose(layer.moving_mean, x.astype("float64").mean(0), rtol=1e-5)
    there, back = keras_bn.use_fused_batch_norm(model), keras_bn.use_keras_batch_norm(model)
    assert len(there.changed) == (not ours)
    assert len(back.changed) == 1
