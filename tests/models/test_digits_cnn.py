import keras
import numpy as np

from keras_bn import BatchNormalization
from keras_bn.models import digits_cnn


def test_network_has_the_layers_that_the_demo_promises():
    model = digits_cnn.build()
    kinds = [type(layer) for layer in model.layers]
    assert keras.layers.DepthwiseConv2D in kinds
    assert kinds.count(BatchNormalization) == 5
    assert 45_000 <= model.count_params() <= 55_000


def test_same_seed_gives_the_same_weights():
    a, b, other = (digits_cnn.build(seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not all(np.array_equal(x, y) for x, y in zip(a, other, strict=True))
