"""The tests that Keras ships for its own layer, run against ours.

With `bessel_correction=False` all must pass. With the default, those fail, and only those, whose
expected running variance lacks the factor m / (m - 1); `EXPLAINED` lists them.
"""

import types
import unittest

import keras
import pytest
from keras.src.layers.normalization import batch_normalization_test as keras_own

from keras_bn import BatchNormalization

pytestmark = [
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),
    pytest.mark.filterwarnings("ignore:The model does not have any trainable weights:UserWarning"),
]

EXPLAINED = (
    "test_bachnorm_ignore_masked_values",  # a moving variance of 0.25; 20 values: 0.25 * 20 / 19
    "test_correctness",  # unit deviation in inference, after training on 24 to 48 values
    "test_renorm_correctness",  # the biased moving variance
)


@keras.saving.register_keras_serializable("tests")
class Biased(BatchNormalization):
    """Ours, as stock Keras has it."""

    def __init__(self, *args, bessel_correction=False, **kwargs):
        super().__init__(*args, bessel_correction=bessel_correction, **kwargs)


def names():
    loader = unittest.TestLoader()
    return loader.getTestCaseNames(keras_own.BatchNormalizationTest)


def run(name, layer, monkeypatch):
    """Run one of Keras's tests with `layers.BatchNormalization` replaced."""
    layers = types.SimpleNamespace(**vars(keras_own.layers))
    layers.BatchNormalization = layer
    monkeypatch.setattr(keras_own, "layers", layers)
    result = keras_own.BatchNormalizationTest(name).run()
    return [text[-2000:] for _, text in (*result.errors, *result.failures)]


@pytest.mark.parametrize("name", names())
def test_keras_own_test_passes_with_the_biased_variance(name, monkeypatch):
    assert run(name, Biased, monkeypatch) == []


@pytest.mark.parametrize("name", names())
def test_keras_own_test_differs_only_by_the_factor(name, monkeypatch):
    failed = run(name, BatchNormalization, monkeypatch)
    assert bool(failed) == name.startswith(EXPLAINED), failed
    assert all("Mismatch" in text or "not close" in text for text in failed), failed


def test_there_are_tests_to_run():
    assert len(names()) > 20
