"""ONNX Runtime's latency of our files: against the same network without batch norm, and stock's.

One sample, default optimisations, two threads; the sessions take turns in one process. "Without"
is the network that is built with no batch norm, and with a bias in each convolution that had one
behind it, exported by the same code: what a fold can reach at best. Stock is
`model.export(format="onnx")`. Biases, statistics and gammas are random, as after training; with
those of a fresh model, stock Keras folds more than it does in use.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import onnxruntime

from benchmarks.training import without_batch_norm
from keras_bn.export import export_onnx
from keras_bn.export.runtime.latency import alternate
from keras_bn.models import preact_resnet, temporal_cnn, unet

RUNS = 101
THREADS = 2
SIZES = {None: 128}  # what an unknown size is timed at


def _mlp() -> keras.Model:
    x = inputs = keras.Input((256,))
    for _ in range(4):
        x = keras.layers.Dense(512, use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def _application(name: str) -> Callable[[], keras.Model]:
    return lambda: getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "ResNet50": _application("ResNet50"),
    "ResNet50V2": _application("ResNet50V2"),
    "MobileNetV2": _application("MobileNetV2"),
    "MobileNetV3Small": _application("MobileNetV3Small"),
    "DenseNet121": _application("DenseNet121"),
    "1-D network": temporal_cnn.build,
    "U-Net": unet.build,
    "pre-activation ResNet": preact_resnet.build,
    "MLP": _mlp,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    options = parser.parse_args(arguments)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    peers = "folded, ms | without batch norm, ms | folded / without | stock, ms | stock / folded"
    print(f"| model | {peers} |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in options.models:
        print(_row(name, options.runs), flush=True)


def _row(name: str, runs: int) -> str:
    model = _trained(MODELS[name]())
    with tempfile.TemporaryDirectory() as folder:
        paths = {peer: Path(folder) / f"{peer}.onnx" for peer in ("ours", "without", "stock")}
        export_onnx(model, paths["ours"], check=False)
        export_onnx(_trained(without_batch_norm(model, biases=True)), paths["without"], check=False)
        if not _export_stock(model, paths["stock"]):
            del paths["stock"]
        shape = [1, *(size or SIZES[None] for size in model.input_shape[1:])]
        sample = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        seconds = alternate([_call(path, sample) for path in paths.values()], runs, warm_up=10)
    ms = np.median(seconds, 0) * 1e3
    to_ours = np.median(seconds / seconds[:, :1], 0)
    row = f"| {name} | {ms[0]:.3f} | {ms[1]:.3f} | {1 / to_ours[1]:.3f} "
    return row + (f"| {ms[2]:.3f} | {to_ours[2]:.2f} |" if len(ms) > 2 else "| no file | |")


def _trained(model: keras.Model) -> keras.Model:
    """Give a model the biases, statistics and gammas that training could."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        shape = variable.shape
        if variable.path.endswith(("bias", "beta", "moving_mean")):
            variable.assign(rng.normal(size=shape) * 0.1)
        elif variable.path.endswith(("moving_variance", "gamma")):
            variable.assign(rng.uniform(0.5, 1.5, shape))
    return model


def _export_stock(model: keras.Model, path: Path) -> bool:
    """Export as stock Keras does; say whether ONNX Runtime can load the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.export(path, format="onnx", verbose=False)
            _session(path)
        except Exception:
            return False
    return True


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _call(path: Path, sample: np.ndarray) -> Callable[[], object]:
    session = _session(path)
    feed = {value.name: sample for value in session.get_inputs()}
    return lambda: session.run(None, feed)


if __name__ == "__main__":
    main()
