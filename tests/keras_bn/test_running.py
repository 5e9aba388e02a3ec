import keras
import numpy as np
import pytest

from keras_bn.running import bessel_factor, update_running


@pytest.mark.parametrize(("count", "factor"), [(0.0, 1.0), (1.0, 1.0), (2.0, 2.0), (5.0, 1.25)])
def test_bessel_factor_is_m_over_m_minus_one(count, factor):
    assert float(bessel_factor(keras.ops.convert_to_tensor(count))) == factor


def test_update_running_averages_exponentially():
    moving = keras.Variable([1.0, 2.0])
    update_running(moving, keras.ops.convert_to_tensor([5.0, 6.0]), momentum=0.75)
    np.testing.assert_array_equal(moving, [2.0, 3.0])


def test_update_running_keeps_the_dtype_of_the_variable():
    moving = keras.Variable([1.0], dtype="float16")
    update_running(moving, keras.ops.convert_to_tensor([3.0]), momentum=0.5)
    assert moving.dtype == "float16"
    np.testing.assert_array_equal(moving, [2.0])
