"""`export_onnx` against `model.export(format="onnx")`: seconds to a written file, and memory.

Each run is a process of its own, in turns, because stock Keras leaves gigabytes behind. Counted is
the call alone, fold and save included, without the parity check, which stock Keras does not have.
The peak is that of the whole process, with TensorFlow and the model in it. The last table is of the
command line, from its start to its end, with the proof and without.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RUNS = 3
COMPARED = ("ResNet50", "Xception", "MobileNetV3Small", "DenseNet121")
DEPTHS = ("ResNet50", "ResNet101", "ResNet152")
SKIPPED = ["--no-check"]
PROVED = ("ResNet50", "MobileNetV2")
LARGE = "large"  # 2.5 GB of weights
UNITS, WIDE_LAYERS = 12_500, 4
MILLION = 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or time one export in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "WHO"))
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--proof", action="store_true", help="the last table alone")
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(_time_one(*options.one)))
        return
    if not options.proof:
        _print_comparison(options.runs)
        _print_depths(options.runs)
        _print_large()
    _print_proof(options.runs)


def _build(name: str) -> Any:
    import keras

    if name != LARGE:
        return getattr(keras.applications, name)(weights=None, input_shape=_shape(name))
    x = keras.Input((UNITS,))
    y = x
    for _ in range(WIDE_LAYERS):
        y = keras.layers.Dense(UNITS, kernel_initializer="zeros")(y)
    return keras.Model(x, y)


def _shape(name: str) -> tuple[int, int, int]:
    size = 299 if name == "Xception" else 224
    return size, size, 3


def _time_one(name: str, who: str) -> dict[str, float]:
    model = _build(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        seconds = _stock(model, path) if who == "stock" else _ours(model, path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MILLION
    weights = sum(np.prod(v.shape) * 4 for v in model.variables) / 1e9
    return {"seconds": seconds, "peak": peak, "weights": weights, "layers": len(model.layers)}


def _ours(model: Any, path: Path) -> float:
    from keras_bn.export import export_onnx

    _import_converters()
    return _seconds(lambda: export_onnx(model, path, check=False))


def _stock(model: Any, path: Path) -> float:
    _import_converters()
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    model(np.zeros((1, *model.input_shape[1:]), np.float32))  # Keras wants a model that was called
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _seconds(lambda: model.export(path, format="onnx", verbose=False))


def _import_converters() -> None:
    """Import what both need, so that neither is charged for it."""
    import onnx_ir  # noqa: F401
    import tf2onnx  # noqa: F401

    import keras_bn.export.pipeline  # noqa: F401


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _run(name: str, who: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.export", "--one", name, who]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _medians(name: str, who: tuple[str, ...], runs: int) -> list[dict[str, float]]:
    found: dict[str, list[dict[str, float]]] = {peer: [] for peer in who}
    for _ in range(runs):
        for peer in who:
            found[peer].append(_run(name, peer))
    return [{key: float(np.median([r[key] for r in f])) for key in f[0]} for f in found.values()]


def _print_comparison(runs: int) -> None:
    print("| model | keras-bn, s | stock Keras, s | times faster | peak, GB | stock, GB |")
    print("|---|---:|---:|---:|---:|---:|")
    ratios = []
    for name in COMPARED:
        ours, stock = _medians(name, ("ours", "stock"), runs)
        ratios.append(stock["seconds"] / ours["seconds"])
        print(
            f"| {name} | {ours['seconds']:.2f} | {stock['seconds']:.2f} | {ratios[-1]:.1f} "
            f"| {ours['peak']:.2f} | {stock['peak']:.2f} |",
            flush=True,
        )
    print(f"| geometric mean | | | **{np.exp(np.mean(np.log(ratios))):.1f}** | | |")


def _print_depths(runs: int) -> None:
    print("\n| model | layers | keras-bn, s | ms a layer |")
    print("|---|---:|---:|---:|")
    for name in DEPTHS:
        (ours,) = _medians(name, ("ours",), runs)
        each = ours["seconds"] / ours["layers"] * 1e3
        print(f"| {name} | {ours['layers']:.0f} | {ours['seconds']:.2f} | {each:.1f} |", flush=True)


def _print_large() -> None:
    found = _run(LARGE, "ours")
    print("\n| weights, GB | keras-bn, s | peak, GB | peak / weights |")
    print("|---:|---:|---:|---:|")
    print(
        f"| {found['weights']:.2f} | {found['seconds']:.1f} | {found['peak']:.2f} "
        f"| {found['peak'] / found['weights']:.2f} |"
    )


def _print_proof(runs: int) -> None:
    print("\n| model | export with the proof, s | with --no-check, s | ratio |")
    print("|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in PROVED:
            source, target = Path(folder) / f"{name}.keras", Path(folder) / "model.onnx"
            _build(name).save(source)
            command = [sys.executable, "-m", "keras_bn.export", "export", str(source), str(target)]
            times = np.array([[_lasts([*command, *o]) for o in ([], SKIPPED)] for _ in range(runs)])
            proved, alone = np.median(times, 0)
            ratio = np.median(times[:, 0] / times[:, 1])
            print(f"| {name} | {proved:.1f} | {alone:.1f} | {ratio:.2f} |", flush=True)


def _lasts(command: list[str]) -> float:
    return _seconds(lambda: subprocess.run(command, capture_output=True, check=True))  # noqa: S603


if __name__ == "__main__":
    main()
