"""The layer against stock Keras 3, tf_keras and PyTorch: forward, backward, update of statistics.

    python -m benchmarks.layer [float32 | bfloat16 | options]...

`TF_ENABLE_ONEDNN_OPTS=0` and `=1` are two machines; run it in both. "TensorFlow's kernel" is this
layer without its native one (`KERAS_BN_NATIVE=0`). PyTorch is a peer where `torch` can be imported.

"bound" is 8/3 of the time of a two-operand addition of the same tensor: a batch norm reads or
writes the tensor 8 times in all (forward: 2 reads and a write; backward: twice 2 reads, and a
write), the addition 3 times.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from benchmarks.machine import machine
from keras_bn import BatchNormalization
from keras_bn.export.runtime.latency import alternate
from keras_bn.native import library

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
RUNS = 11


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
    ours = isinstance(getattr(layer, "layer", layer), keras.Layer)
    return [weight.value if ours else weight for weight in layer.trainable_variables]


def addition_of(x: tf.Tensor) -> Callable[[], object]:
    """Return a compiled function that adds `x` to itself."""
    return tf.function(lambda: x + x).get_concrete_function()


def without_native(layer: Any, x: tf.Tensor) -> Callable[[], object]:
    """Return `training` of a layer that does without the native kernel."""
    load = library.load
    library.load = lambda: (None, "this benchmark does without")
    try:
        return training(layer, x)
    finally:
        library.load = load


def torch_training(shape: tuple[int, ...], dtype: str) -> Callable[[], object] | None:
    """Return the same step for PyTorch, channels last in memory; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(os.cpu_count() or 1)
    x = torch.randn(shape).to(getattr(torch, dtype)) * 2 + 1
    x = x.movedim(-1, 1).detach().requires_grad_()
    layer = torch.nn.BatchNorm1d(shape[-1]) if len(shape) < 4 else torch.nn.BatchNorm2d(shape[-1])

    def step() -> object:
        x.grad = layer.weight.grad = layer.bias.grad = None
        layer(x).backward(x.detach())
        return x.grad

    return step


def print_layer(dtype: str) -> None:
    """Print a row for each shape, and the geometric means; and again for ranks of 4 alone."""
    policy = dtype if dtype == "float32" else f"mixed_{dtype}"
    rows: list[list[float]] = []
    shapes = RESNET50 + MOBILENET_V2 + OTHERS
    for shape in shapes:
        x = tf.cast(tf.random.normal(shape, 1.0, 2.0, seed=0), dtype)
        peer = tf_keras.layers.BatchNormalization(dtype=tf_keras.mixed_precision.Policy(policy))
        functions = [
            training(BatchNormalization(dtype=policy), x),
            training(keras.layers.BatchNormalization(dtype=policy), x),
            without_native(BatchNormalization(dtype=policy), x),
            training(peer, x),
            torch_training(shape, dtype) or (lambda: None),
            addition_of(x),
        ]
        a, b, c, d, e, addition = alternate(functions, RUNS).T
        row = [b / a, c / a, d / a, e / a, a / (addition * 8 / 3)]
        rows.append([float(np.median(ratio)) for ratio in row])
        cells = " | ".join(f"{value:.2f}" for value in rows[-1])
        print(f"| {shape} | {dtype} | {1e3 * np.median(a):.1f} | {cells} |", flush=True)
    for name, kept in (
        ("geometric mean", rows),
        ("of rank 4", [row for row, shape in zip(rows, shapes, strict=True) if len(shape) == 4]),
    ):
        means = np.exp(np.log(kept).mean(0))
        print(f"| {name} | {dtype} | | {' | '.join(f'**{m:.2f}**' for m in means)} |", flush=True)


def print_options() -> None:
    """Print a row for each way to train, against stock Keras's nearest, and stock without it."""
    shape = (32, 28, 28, 192)
    x = tf.random.normal(shape, 1.0, 2.0, seed=0)
    mask = tf.random.uniform(shape[:-1], seed=0) < 0.9
    weights = tf.random.uniform(shape[:1], seed=0)
    plain = training(BatchNormalization(), x)
    stock = training(keras.layers.BatchNormalization(), x)
    masked = training(Given(keras.layers.BatchNormalization(), mask=mask), x)
    cases = {
        "plain": (BatchNormalization(), stock),
        "ReLU6 inside": (
            BatchNormalization(activation="relu6"),
            training(
                keras.Sequential([keras.layers.BatchNormalization(), keras.layers.ReLU(6)]), x
            ),
        ),
        "mask": (Given(BatchNormalization(), mask=mask), masked),
        "sample weights": (Given(BatchNormalization(), sample_weight=weights), masked),
        "ghost batches of 8": (BatchNormalization(ghost_batch_size=8), stock),
        "renorm": (
            BatchNormalization(renorm=True),
            training(keras.layers.BatchNormalization(renorm=True), x),
        ),
        "synchronized": (
            BatchNormalization(synchronized=True),
            training(keras.layers.BatchNormalization(synchronized=True), x),
        ),
    }
    for name, (layer, nearest) in cases.items():
        functions = [training(layer, x), nearest, stock, without_native(layer, x), plain]
        a, b, c, d, e = alternate(functions, 3 * RUNS).T
        cells = " | ".join(f"{np.median(ratio):.2f}" for ratio in (b / a, c / a, d / a, a / e))
        print(f"| {name} | {1e3 * np.median(a):.1f} | {cells} |", flush=True)


class Given:
    """A layer that is called with the same mask or weights every time."""

    def __init__(self, layer: Any, **arguments: Any) -> None:
        self.layer, self.arguments = layer, arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)

    def __call__(self, x: Any, training: bool) -> Any:
        """Call the layer."""
        return self.layer(x, training=training, **self.arguments)


def main() -> None:
    """Print the machine, and a table for each word of the command line."""
    print(machine())
    parts = sys.argv[1:] or ["float32", "bfloat16", "options"]
    if {"float32", "bfloat16"} & {*parts}:
        print(
            "| shape | dtype | keras-bn, ms | faster than Keras | than TensorFlow's kernel "
            "| than tf_keras | than PyTorch | times the bound |"
        )
        print("|---|---|---:|---:|---:|---:|---:|---:|")
    for dtype in ("float32", "bfloat16"):
        if dtype in parts:
            print_layer(dtype)
    if "options" in parts:
        print(
            "| way to train | ms | faster than Keras's nearest | than Keras's plain "
            "| than without the kernel | times its own plain |"
        )
        print("|---|---:|---:|---:|---:|---:|")
        print_options()


if __name__ == "__main__":
    main()
