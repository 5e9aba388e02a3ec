"""What `CovariateShiftMonitor` adds to `fit`: the same epochs with it and without, in turn.

"budgeted" is the share of the time with it that its budget, 5 %, bounds; the rest of the difference
is what a call of `fit` pays once, running the held batches before the first epoch. The first call
also traces the model, which is shown by itself and not part of the ratio.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import functools
import sys

import keras
import numpy as np

from keras_bn import CovariateShiftMonitor, use_fused_batch_norm
from keras_bn.export.runtime.latency import alternate
from keras_bn.models import digits_cnn

RUNS = 5
BATCH = 32
MODELS = {  # how it is built, height and width, channels, steps an epoch, epochs
    "digits CNN, 8 x 8": (digits_cnn.build, 8, 1, 56, 20),
    "MobileNetV2, 96 x 96": (
        functools.partial(
            keras.applications.MobileNetV2, input_shape=(96, 96, 3), weights=None, classes=10
        ),
        96,
        3,
        20,
        3,
    ),
}


def main(wanted: list[str]) -> None:
    """Print a row for each model, or for those whose names begin with one of the words given."""
    print(
        "| model | steps x epochs | without, s | with, s | ratio | budgeted | batches an epoch "
        "| first setup, s |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name, (build, size, channels, steps, epochs) in MODELS.items():
        if wanted and not name.startswith(tuple(wanted)):
            continue
        keras.utils.set_random_seed(0)
        model = build()
        use_fused_batch_norm(model)
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(steps * BATCH, size, size, channels)).astype(np.float32)
        y = rng.integers(0, 10, len(x))
        monitor = CovariateShiftMonitor(x, batch_size=BATCH)
        fit = functools.partial(model.fit, x, y, batch_size=BATCH, verbose=0)
        fit(epochs=1, callbacks=[monitor])
        setup, before = monitor.setup_seconds, monitor.seconds - monitor.setup_seconds
        fits = [
            functools.partial(fit, epochs=epochs),
            functools.partial(fit, epochs=epochs, callbacks=[monitor]),
        ]
        seconds = alternate(fits, RUNS, warm_up=0)
        budgeted = (monitor.seconds - monitor.setup_seconds - before) / seconds[:, 1].sum()
        without, with_monitor = np.median(seconds, axis=0)
        ratio = np.median(seconds[:, 1] / seconds[:, 0])
        batches = np.mean(monitor.batches_compared[1:])
        print(
            f"| {name} | {steps} x {epochs} | {without:.2f} | {with_monitor:.2f} | {ratio:.3f} "
            f"| {budgeted:.1%} | {batches:.1f} | {setup:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
