"""Operators that tf2onnx lacks, by NumPy in float64."""

import keras
import numpy as np
import pytest

from keras_bn.export import export_onnx
from keras_bn.export.runtime.session import LEVELS, OnnxRuntime


@pytest.mark.parametrize("level", LEVELS)
def test_logarithm_of_what_is_added_to_one_keeps_its_digits(level, tmp_path):
    x = keras.Input((9,), name="x")
    y = keras.layers.Lambda(keras.ops.log1p, name="y")(x)
    export_onnx(keras.Model(x, y), tmp_path / "model.onnx")
    given = np.float32([[1e-30, -1e-10, 1e-8, 6e-8, 1e-4, -0.5, -0.999, 3.0, 1e30]])
    (found,) = OnnxRuntime(tmp_path / "model.onnx", level).runner(["x"], ["y"])([given])
    np.testing.assert_allclose(found, np.log1p(given.astype(np.float64)), rtol=5e-7)
