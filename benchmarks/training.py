"""A whole training step: stock Keras, this layer without and with its kernel, merged, and no norm.

    python -m benchmarks.training [MODEL]...

Seconds are medians over runs in one process, the peers in turn. Memory is what two steps add to the
peak of a process of their own that has built the model.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from benchmarks.machine import machine
from keras_bn import use_fused_batch_norm
from keras_bn.export.runtime.latency import alternate
from keras_bn.native import library

RUNS = 9
MODELS = {
    "MobileNetV2": (keras.applications.MobileNetV2, 96, 32),
    "ResNet50": (keras.applications.ResNet50, 96, 16),
    "EfficientNetB0": (keras.applications.EfficientNetB0, 96, 16),
}
VARIANTS = ("stock", "without the kernel", "keras-bn", "merged", "no batch norm")


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


def step_of(name: str, variant: str) -> Callable[[], object]:
    """Return a function that trains a model on one batch; it has been called once."""
    build, size, batch = MODELS[name]
    keras.utils.set_random_seed(0)
    model = build(input_shape=(size, size, 3), weights=None, classes=10)
    if variant == "no batch norm":
        model = without_batch_norm(model)
    elif variant != "stock":
        use_fused_batch_norm(model, merge_activations=variant == "merged")
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, size, size, 3)).astype(np.float32)
    y = rng.integers(0, 10, batch)
    load = library.load
    if variant == "without the kernel":
        library.load = lambda: (None, "this benchmark does without")
    try:
        model.train_on_batch(x, y)
    finally:
        library.load = load
    return lambda: model.train_on_batch(x, y)


def added_memory(name: str, variant: str) -> float:
    """Return the MB that training adds to the peak of a new process."""
    words = [sys.executable, "-m", "benchmarks.training", "--memory", name, variant]
    done = subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: S603
    return float(done.stdout)


def peak() -> float:
    """Return this process's largest memory so far, in MB; `getrusage` would tell its parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def print_memory(name: str, variant: str) -> None:
    """Print what two steps add to this process's peak, in MB."""
    build, size, _ = MODELS[name]
    build(input_shape=(size, size, 3), weights=None, classes=10)
    before = peak()
    step_of(name, variant)()
    print(peak() - before)


def main() -> None:
    """Print a row for each model."""
    if sys.argv[1:2] == ["--memory"]:
        return print_memory(*sys.argv[2:])
    print(machine())
    print(f"| model | {', s | '.join(VARIANTS)}, s | memory added, MB |")
    print("|---|" + "---:|" * (len(VARIANTS) + 1))
    for name in sys.argv[1:] or MODELS:
        steps = [step_of(name, variant) for variant in VARIANTS]
        seconds = np.median(alternate(steps, RUNS, warm_up=1), axis=0)
        memory = " / ".join(f"{added_memory(name, variant):.0f}" for variant in VARIANTS)
        cells = " | ".join(f"{second:.3f}" for second in seconds)
        print(f"| {name} | {cells} | {memory} |", flush=True)
    return None


if __name__ == "__main__":
    main()
