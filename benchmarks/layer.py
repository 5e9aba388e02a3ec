"""The layer against stock Keras 3 and tf_keras: forward, backward, update of the statistics.

"bound" is 8/3 of the time of a two-operand addition of the same tensor: a batch norm reads or
writes the tensor 8 times in all (forward: 2 reads and a write; backward: twice 2 reads, and a
write), the addition 3 times.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import statistics
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from keras_bn import BatchNormalization
from keras_bn.export.runtime.latency import alternate

RESNET50 = [
    (32, 112, 112, 64),
    (32, 56, 56, 256),
    (32, 28, 28, 512),
    (32, 14, 14, 1024),
    (32, 7, 7, 2048),
]
MOBILENET_V2 = [
    (32, 112, 112, 32),
    (32, 56, 56, 144),
    (32, 28, 28, 192),
    (32, 14, 14, 576),
    (32, 7, 7, 960),
]
OTHERS = [(256, 512), (32, 128, 256)]
RUNS = 15


def training(layer: Any, x: tf.Tensor) -> Callable[[], object]:
    """Return a compiled function that runs a layer forward and backward on `x`."""
    if not layer.built:
        layer.build(x.shape)

    @tf.function
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return tape.gradient(y, [x, *layer_weights(layer)], output_gradients=x)

    return step.get_concrete_function()


def layer_weights(layer: Any) -> list[Any]:
    """Return a layer's trainable weights as TensorFlow's tape knows them."""
    ours = isinstance(layer, keras.Layer)
    return [weight.value if ours else weight for weight in layer.trainable_variables]


def inference(layer: Any, x: tf.Tensor) -> Callable[[], object]:
    """Return a compiled function that runs a layer in inference on `x`."""
    if not layer.built:
        layer.build(x.shape)
    return tf.function(lambda: layer(x, training=False)).get_concrete_function()


def addition_of(x: tf.Tensor) -> Callable[[], object]:
    """Return a compiled function that adds `x` to itself."""
    return tf.function(lambda: x + x).get_concrete_function()


def main() -> None:
    """Print a row for each shape and dtype, and the geometric means."""
    print(
        "| shape | dtype | keras-bn, ms | faster than Keras | than tf_keras | times the bound "
        "| without the guard | inference, faster than Keras |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for dtype in ("float32", "bfloat16"):
        policy = dtype if dtype == "float32" else f"mixed_{dtype}"
        columns: list[list[float]] = []
        for shape in RESNET50 + MOBILENET_V2 + OTHERS:
            x = tf.cast(tf.random.normal(shape, 1.0, 2.0, seed=0), dtype)
            ours, stock = (
                BatchNormalization(dtype=policy),
                keras.layers.BatchNormalization(dtype=policy),
            )
            peer = tf_keras.layers.BatchNormalization(dtype=tf_keras.mixed_precision.Policy(policy))
            functions = [
                training(ours, x),
                training(stock, x),
                training(peer, x),
                addition_of(x),
                training(BatchNormalization(dtype=policy, skip_nonfinite=False), x),
                inference(ours, x),
                inference(stock, x),
            ]
            seconds = alternate(functions, RUNS)
            a, b, c, addition, bare, d, e = seconds.T
            row = [np.median(r) for r in (b / a, c / a, a / (addition * 8 / 3), bare / a, e / d)]
            columns.append([float(value) for value in row])
            cells = " | ".join(f"{value:.2f}" for value in row)
            print(f"| {shape} | {dtype} | {1e3 * np.median(a):.1f} | {cells} |", flush=True)
        means = (statistics.geometric_mean(column) for column in zip(*columns, strict=True))
        cells = " | ".join(f"**{mean:.2f}**" for mean in means)
        print(f"| geometric mean | {dtype} | | {cells} |", flush=True)


if __name__ == "__main__":
    main()
