"""The layer against stock Keras: forward, backward and update of the running statistics."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import statistics

import keras
import tensorflow as tf

from benchmarks.timing import compare
from keras_bn import BatchNormalization

SHAPES = [(32, 56, 56, 64), (32, 28, 28, 128), (32, 14, 14, 256), (32, 7, 7, 512)]
DTYPES = ["float32", "bfloat16"]
RUNS = 15


def training_step(
    layer: keras.layers.Layer, x: tf.Tensor
) -> tf.types.experimental.ConcreteFunction:
    """Return a compiled function that runs the layer forward and backward on `x`."""
    layer.build(x.shape)

    @tf.function
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        weights = [variable.value for variable in layer.trainable_variables]
        return tape.gradient(y, [x, *weights], output_gradients=x)

    return step.get_concrete_function()


def main() -> None:
    """Print a row for each shape and dtype, and the geometric means."""
    print("| shape | dtype | keras-bn, ms | stock Keras, ms | times faster |")
    print("|---|---|---:|---:|---:|")
    for dtype in DTYPES:
        policy = dtype if dtype == "float32" else f"mixed_{dtype}"
        ratios = []
        for shape in SHAPES:
            x = tf.cast(tf.random.normal(shape, 3.0, 2.0, seed=0), dtype)
            ours = training_step(BatchNormalization(dtype=policy), x)
            stock = training_step(keras.layers.BatchNormalization(dtype=policy), x)
            a, b, ratio = compare(ours, stock, RUNS)
            ratios.append(ratio)
            print(f"| {shape} | {dtype} | {1e3 * a:.1f} | {1e3 * b:.1f} | {ratio:.2f} |")
        print(f"| geometric mean | {dtype} | | | {statistics.geometric_mean(ratios):.2f} |")


if __name__ == "__main__":
    main()
