import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Give every test the same seeds and the layer names of a new process."""
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session(free_memory=False)


@pytest.fixture
def randomised(rng):
    """Return a function that gives a model's weights values that no initializer would."""

    def randomise(model):
        for variable in model.variables:
            if not keras.backend.is_float_dtype(variable.dtype):
                continue
            values = rng.normal(size=variable.shape) * 0.5
            if variable.path.endswith("moving_variance"):
                values = values**2 + 0.1
            if variable.path.endswith("gamma"):
                values += 1.0
            variable.assign(values)
        return model

    return randomise


@pytest.fixture
def small_model(randomised):
    """A convolutional network with one of each: bias and none, depthwise, Dense, batch norms."""
    from keras_bn import BatchNormalization

    image = keras.Input((6, 6, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(image)
    x = BatchNormalization(name="conv_bn")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = BatchNormalization(name="depthwise_bn")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(5, name="dense")(x)
    x = BatchNormalization(name="dense_bn")(x)
    return randomised(keras.Model(image, x, name="small"))
