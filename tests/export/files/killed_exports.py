"""Kill exports at many points and see what is left; run by `test_external.py` in a process apart.

Prints a line for each killed export: what the target was then, "old", "new" or what is wrong.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

from keras_bn.export.files.onnx_file import write
from keras_bn.export.files.whole_file import replacing
from tests.export.graphs import graph

WATCHED = ("open", "os.", "shutil.", "tempfile.")


def model(value, size):
    text = f"g (float[{size}] x, float[{size}] w) => (float[{size}] y) {{ y = Mul(x, w) }}"
    return graph(text, w=np.full(size, value, np.float32))


def export(target, number, external_data):
    with replacing(target) as temporary:
        write(number, temporary, external_data=external_data)


def state(target):
    """Return which model a file holds, or what is wrong with it."""
    try:
        onnx.checker.check_model(target)
        weight = onnx.numpy_helper.to_array(onnx.load(target).graph.initializer[0])
    except Exception as e:
        return f"broken: {type(e).__name__}: {e}".replace("\n", " ")
    return {(1.0,): "old", (2.0,): "new"}.get(tuple(np.unique(weight)), "broken: mixed")


def die_at(number):
    """Kill this process at the given file operation from now on."""
    left = [number]

    def count(event, _):
        if event.startswith(WATCHED) and event != "os.kill":
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    fsync = os.fsync
    os.fsync = lambda handle: (count("os.fsync", ()), fsync(handle))[1]


def end_with(function):
    """Run a function in a forked process, which must never return to its parent's code."""
    try:
        function()
        os._exit(0)
    except BaseException as e:
        print(f"broken: {type(e).__name__}: {e}", flush=True)
        os._exit(1)


def at_every_operation(before, after):
    """Replace a target, killed at the first file operation, the second, ... until it ends."""
    old, new = model(1.0, 1000), model(2.0, 1000)
    for number in range(100):
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "model.onnx"
            export(target, old, before)
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                end_with(lambda n=number, t=target: (die_at(n), export(t, new, after)))
            _, status = os.waitpid(child, 0)
            print(state(target))
            if status == 0:
                print(sorted(p.suffix for p in Path(folder).iterdir()))
                return


def at_any_time(rounds):
    """Replace a target again and again in a process that is killed at random times."""
    models = [model(1.0, 500_000), model(2.0, 500_000)]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.onnx"
        export(target, models[0], True)
        for _ in range(rounds):
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                end_with(lambda: [export(target, models[n % 2], True) for n in range(10**6)])
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            print(state(target))


def main():
    if sys.argv[1] == "any time":
        at_any_time(int(sys.argv[2]))
    else:
        at_every_operation(*(argument == "two" for argument in sys.argv[1:]))
