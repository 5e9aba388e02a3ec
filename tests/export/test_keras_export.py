"""The tests that Keras ships for its own ONNX export, run against `export_onnx`."""

import types
import unittest

import pytest
from keras.src.export import onnx_test as keras_own

from keras_bn.export import export_onnx

pytestmark = [
    pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match:UserWarning"),
]


def names():
    return unittest.TestLoader().getTestCaseNames(keras_own.ExportONNXTest)


def export(model, filepath, verbose=None, input_signature=None, opset_version=None):
    """Take what Keras's own function takes."""
    del verbose
    options = {} if opset_version is None else {"opset": opset_version}
    export_onnx(model, filepath, input_signature=input_signature, **options)


@pytest.mark.parametrize("name", names())
def test_keras_own_test_passes(name, monkeypatch):
    monkeypatch.setattr(keras_own, "onnx", types.SimpleNamespace(export_onnx=export))
    test = keras_own.ExportONNXTest(name)
    # The one test that Keras skips on TensorFlow, because it cannot export that model there.
    monkeypatch.setattr(test, "skipTest", lambda reason: None)
    result = test.run()
    assert [text[-2000:] for _, text in (*result.errors, *result.failures)] == []
    assert result.testsRun == 1


def test_there_are_tests_to_run():
    assert len(names()) > 10
