"""`export_onnx` against `model.export(format="onnx")`: seconds to a written file, no parity."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import contextlib
import io
import logging
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from benchmarks.timing import alternate
from keras_bn.export import export_onnx
from keras_bn.models import digits_cnn

RUNS = 3


def main() -> None:
    """Print a row for each model."""
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    models = {
        "digits_cnn": digits_cnn.build(),
        "MobileNetV2, 96 x 96": keras.applications.MobileNetV2((96, 96, 3), weights=None),
    }
    print("| model | keras-bn, s | stock Keras, s | times faster |")
    print("|---|---:|---:|---:|")
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"

            def ours(model: keras.Model = model, path: Path = path) -> None:
                export_onnx(model, path, check=False)

            def stock(model: keras.Model = model, path: Path = path) -> None:
                with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                    warnings.simplefilter("ignore")
                    model.export(path, format="onnx", verbose=False)

            a, b = alternate([ours, stock], RUNS).T
        ratio = np.median(b / a)
        print(f"| {name} | {np.median(a):.2f} | {np.median(b):.2f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
