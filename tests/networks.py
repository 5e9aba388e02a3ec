"""Small networks with batch norms, and what those store."""

import keras
import numpy as np

from tests.oracles import moments, normalise
from tests.tolerances import FLOAT32, assert_close

Stock = keras.layers.BatchNormalization

# A member of every family of keras.applications, with an image size that it accepts.
APPLICATIONS = {
    "ConvNeXtTiny": 64,
    "DenseNet121": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "InceptionResNetV2": 96,
    "InceptionV3": 96,
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Large": 64,
    "MobileNetV3Small": 64,
    "NASNetMobile": 64,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "VGG16": 64,
    "Xception": 96,
}


def dense(layer=Stock, depth=2, **options):
    """Make a network of Dense, BN, ReLU, as often as asked, on 5 features."""
    model = keras.Sequential([keras.Input((5,))])
    for _ in range(depth):
        model.add(keras.layers.Dense(4, use_bias=False))
        model.add(layer(**options))
        model.add(keras.layers.ReLU())
    return model


def convolutional(layer=Stock):
    """Make a network of Conv, BN, ReLU, Conv, BN on images of shape (6, 6, 2)."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 2, use_bias=False),
            layer(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(4, 2, use_bias=False),
            layer(),
        ]
    )


def alone(layer, features=5):
    """Make a model of a layer and nothing else, which runs eagerly: that is faster here."""
    model = keras.Sequential([keras.Input((features,)), layer])
    model.run_eagerly = True
    return model


def norms(model):
    """Return the batch-norm layers of a model, at any depth."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, Stock)]


def kernels(model):
    """Return the kernels of the model's own layers, in NumPy."""
    return [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]


def statistics(model):
    """Return the running mean and variance of each batch norm, in float64."""
    return [
        (np.float64(bn.moving_mean.numpy()), np.float64(bn.moving_variance.numpy()))
        for bn in norms(model)
    ]


def bits(model):
    """Return the bytes of every variable of a model, seeds and counters among them."""
    return {v.path: np.asarray(v.numpy()).tobytes() for v in model.variables}


def cut(*arrays, size=32):
    """Cut arrays into batches, the last one smaller."""
    return [[a[i : i + size] for i in range(0, len(arrays[0]), size)] for a in arrays]


def drifting_rows(rng, size=70):
    """Draw rows of 5 features whose mean drifts, so that batches differ."""
    drift = np.linspace(0.0, 3.0, size)[:, np.newaxis]
    return (rng.normal(1.0, 2.0, (size, 5)) + drift).astype(np.float32)


def batch_normalised(x, epsilon=1e-3):
    """Return a batch as a fresh layer normalises it in training."""
    return normalise(x, *moments(x)[:2], 1.0, 0.0, epsilon)


def assert_stored(layer, found, tolerance=FLOAT32):
    assert_close(layer.moving_mean, found[0], tolerance)
    assert_close(layer.moving_variance, found[1], tolerance)


def changed(model, before):
    """Return the paths of the variables of a model whose bytes are not what they were."""
    return {path for path, value in bits(model).items() if value != before[path]}
