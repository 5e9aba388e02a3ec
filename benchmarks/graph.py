"""What a training step reads and writes: the traced graph of the layer, without a clock.

Counts the operators that take or make a tensor of the input's shape, and the bytes that those move
for each element of the input. TensorFlow may still fuse some; it does not fuse what Keras writes.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import collections
from typing import Any

import keras
import tensorflow as tf

from benchmarks.layer import training
from keras_bn import BatchNormalization

SHAPE = (8, 6, 5, 4)
FREE = {
    "Identity",
    "IdentityN",
    "If",
    "StatelessIf",
    "Reshape",
    "Const",
    "Shape",
    "Size",
}  # move no elements


def full_size(graph: Any, shape: tuple[int, ...]) -> tuple[collections.Counter[str], int]:
    """Return the operators on tensors of a shape, and the bytes they move for each element."""
    operators: collections.Counter[str] = collections.Counter()
    moved = 0
    for operator in graph.get_operations():
        tensors = [t for t in (*operator.inputs, *operator.outputs) if t.shape == shape]
        if tensors and operator.type not in FREE and operator.type != "Placeholder":
            operators[operator.type] += 1
            moved += sum(tensor.dtype.size for tensor in tensors)
    return operators, moved


def main() -> None:
    """Print a row for each layer and dtype."""
    print("| layer | dtype | operators on whole tensors, forward and backward | bytes an element |")
    print("|---|---|---|---:|")
    for dtype in ("float32", "bfloat16"):
        policy = dtype if dtype == "float32" else f"mixed_{dtype}"
        for cls in (BatchNormalization, keras.layers.BatchNormalization):
            x = tf.cast(tf.random.normal(SHAPE), dtype)
            function: Any = training(cls(dtype=policy), x)
            operators, moved = full_size(function.graph, x.shape)
            text = ", ".join(f"{n} {name}" for name, n in sorted(operators.items()))
            print(f"| {cls.__module__.split('.')[0]} | {dtype} | {text} | {moved} |")


if __name__ == "__main__":
    main()
