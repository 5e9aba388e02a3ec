"""A whole training step: with this package's layer, with Keras's, and without normalisation."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import functools

import keras
import numpy as np

from keras_bn import use_fused_batch_norm
from keras_bn.export.runtime.latency import alternate

RUNS = 15
MODELS = {
    "MobileNetV2, 96 x 96, batch 32": (keras.applications.MobileNetV2, 96, 32),
    "ResNet50, 96 x 96, batch 16": (keras.applications.ResNet50, 96, 16),
}


class Nothing(keras.layers.Layer):
    """What stands where a batch norm was, to see what a step costs without."""

    def call(self, x: object, mask: object = None) -> object:
        """Return the input."""
        del mask  # cloning passes the arguments that the batch norm was called with
        return x


def without_batch_norm(model: keras.Model, biases: bool = False) -> keras.Model:
    """Rebuild a model with every batch norm replaced by nothing.

    Args:
        model: The model.
        biases: Whether layers that leave their bias to the batch norm get one of their own.
    """

    def clone(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.layers.BatchNormalization):
            return Nothing(name=layer.name)
        config = layer.get_config()
        if biases and "use_bias" in config:
            config["use_bias"] = True
        return layer.__class__.from_config(config)

    return keras.models.clone_model(model, clone_function=clone)


def main() -> None:
    """Print a row for each model."""
    print("| model | keras-bn, s | Keras, s | without, s | times faster | share of the step |")
    print("|---|---:|---:|---:|---:|---|")
    for name, (build, size, batch) in MODELS.items():
        keras.utils.set_random_seed(0)
        stock = build(input_shape=(size, size, 3), weights=None, classes=10)
        ours = keras.models.clone_model(stock)
        use_fused_batch_norm(ours)
        models = [ours, stock, without_batch_norm(stock)]
        rng = np.random.default_rng(0)
        x = rng.normal(size=(batch, size, size, 3)).astype(np.float32)
        y = rng.integers(0, 10, batch)
        for model in models:
            model.compile("sgd", "sparse_categorical_crossentropy")
        steps = [functools.partial(model.train_on_batch, x, y) for model in models]
        a, b, c = np.median(alternate(steps, RUNS, warm_up=2), axis=0)
        share = f"{(a - c) / a:.0%} instead of {(b - c) / b:.0%}"
        print(f"| {name} | {a:.3f} | {b:.3f} | {c:.3f} | {b / a:.2f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
