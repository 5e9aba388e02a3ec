"""The layer inside functions that XLA compiles, against stock Keras: what it moves, and how long.

Counts, in the optimised HLO of a training step, how often instructions read and write a tensor of
the input's size: an operand or a result of as many elements, once for each instruction, except what
an instruction only gathers a few values from. Time: forward, backward and update, in turns.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import functools
import math
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.layer import layer_weights
from benchmarks.machine import machine
from keras_bn import BatchNormalization
from keras_bn.export.runtime.latency import alternate

SHAPES = [(32, 112, 112, 64), (32, 56, 56, 256), (32, 14, 14, 1024), (32, 7, 7, 2048)]
RUNS = 7
FREE = {"parameter", "tuple", "bitcast", "get-tuple-element", "constant", "opt-barrier"}
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?(%[\w.-]+) = (.*?) ([a-z][a-z-]*)\((.*?)\)(.*)$")
ARRAY = re.compile(r"\b(?:[a-z]+\d+|pred)\[([\d,]*)\]")


def compiled(layer: Any, x: tf.Tensor, backward: bool = True) -> Any:
    """Return a step of training that XLA compiles, forward and, if wanted, backward."""
    layer.build(x.shape)

    @tf.function(jit_compile=True, autograph=False)
    def step(x: tf.Tensor, dy: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        if not backward:
            return y
        return y, tape.gradient(y, [x, *layer_weights(layer)], output_gradients=dy)

    return step


def traffic(hlo: str, elements: int) -> tuple[int, int]:
    """Return how often a module reads and writes tensors of a number of elements."""
    computations = re.split(r"\n(?=%|ENTRY )", hlo)
    bodies = {text.split(" ", 1)[0]: text for text in computations}
    (entry,) = (text for text in computations if text.startswith("ENTRY "))
    found = [match.groups() for line in entry.splitlines() if (match := INSTRUCTION.match(line))]
    large = {name for name, result, *_ in found if _large(result, elements)}
    reads = writes = 0
    for _, result, kind, operands, rest in found:
        if kind in FREE:
            continue
        writes += _large(result, elements)
        body = bodies.get((re.findall(r"calls=(%[\w.-]+)", rest) or [""])[0], "")
        for place, name in enumerate(re.findall(r"%[\w.-]+", operands)):
            reads += name in large and not _only_gathered(body, place)
    return reads, writes


def _large(result: str, elements: int) -> int:
    sizes = [math.prod(int(n) for n in text.split(",") if n) for text in ARRAY.findall(result)]
    return sizes.count(elements)


def _only_gathered(body: str, place: int) -> bool:
    """Say whether a fused computation takes but a few values of its parameter at a place."""
    found = [match.groups() for line in body.splitlines() if (match := INSTRUCTION.match(line))]
    names = [name for name, _, kind, text, _ in found if (kind, text) == ("parameter", str(place))]
    uses = [
        (kind, re.findall(r"%[\w.-]+", operands)[0])
        for _, _, kind, operands, _ in found
        if names and names[0] in re.findall(r"%[\w.-]+", operands)
    ]
    return bool(uses) and all(kind == "gather" and first == names[0] for kind, first in uses)


def main() -> None:
    """Print the machine, and a row for each shape."""
    print(machine())
    print(
        "| shape | forward: reads + writes | Keras | forward and backward | Keras | keras-bn, ms "
        "| times faster than Keras |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    layers = (BatchNormalization, keras.layers.BatchNormalization)
    for shape in SHAPES:
        x, dy = (tf.random.normal(shape, 1.0, 2.0, seed=seed) for seed in (0, 1))
        cells = []
        for backward in (False, True):
            for cls in layers:
                step = compiled(cls(), x, backward)
                hlo = step.experimental_get_compiler_ir(x, dy)(stage="optimized_hlo")
                reads, writes = traffic(hlo, math.prod(shape))
                cells.append(f"{reads} + {writes}")
        steps = [compiled(cls(), x) for cls in layers]
        ours, stock = alternate([functools.partial(step, x, dy) for step in steps], RUNS).T
        times = f"{1e3 * np.median(ours):.1f} | {np.median(stock / ours):.2f}"
        print(f"| {shape} | {' | '.join(cells)} | {times} |", flush=True)


if __name__ == "__main__":
    main()
