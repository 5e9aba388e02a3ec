"""A whole training step: stock Keras, this layer without and with its kernel, merged, and no norm.

    python -m benchmarks.training [MODEL]...

Each runs in a process of its own, as training does: where one process holds them all, the memory
that one has left free serves another. The processes step in turns and sleep in between; seconds are
medians over the steps, the ratios medians within a turn. Memory is what the first two steps add to
the peak of such a process, which has built the model before.
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

RUNS = 15
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


def peak() -> float:
    """Return this process's largest memory so far, in MB; `getrusage` would tell its parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def serve(name: str, variant: str) -> None:
    """Print what two steps add to this process's peak, in MB; then step for each line given."""
    build, size, _ = MODELS[name]
    build(input_shape=(size, size, 3), weights=None, classes=10)
    before = peak()
    step = step_of(name, variant)
    step()
    print(peak() - before, flush=True)
    for _ in sys.stdin:
        step()
        print(flush=True)


class Process:
    """A process of its own that trains one variant of a model, a step at a time.

    Attributes:
        memory: What its first two steps added to its peak, in MB.
    """

    def __init__(self, name: str, variant: str) -> None:
        words = [sys.executable, "-m", "benchmarks.training", "--serve", name, variant]
        self.process = subprocess.Popen(  # noqa: S603
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.memory = float(self._answer())

    def __call__(self) -> None:
        """Run a step."""
        print(file=self.process.stdin, flush=True)
        self._answer()

    def _answer(self) -> str:
        answer = next(iter(self.process.stdout or ()), None)
        if answer is None:
            raise RuntimeError("benchmarks.training: a process ended before it was told to.")
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def main() -> None:
    """Print a row for each model."""
    if sys.argv[1:2] == ["--serve"]:
        return serve(*sys.argv[2:])
    print(machine())
    print(
        f"| model | {', s | '.join(VARIANTS)}, s | times faster: {' / '.join(VARIANTS[1:])} "
        "| memory added, MB |"
    )
    print("|---|" + "---:|" * (len(VARIANTS) + 2))
    for name in sys.argv[1:] or MODELS:
        steps = [Process(name, variant) for variant in VARIANTS]
        seconds = alternate(steps, RUNS, warm_up=1)
        faster = np.median(seconds[:, :1] / seconds[:, 1:], axis=0)
        cells = " | ".join(f"{second:.3f}" for second in np.median(seconds, axis=0))
        ratios = " / ".join(f"{ratio:.2f}" for ratio in faster)
        memory = " / ".join(f"{step.memory:.0f}" for step in steps)
        print(f"| {name} | {cells} | {ratios} | {memory} |", flush=True)
        for step in steps:
            step.close()
    return None


if __name__ == "__main__":
    main()
