"""The affine operators that stay in each exported model, as docs/folding.md lists them.

python -m tests.export.leftovers            # prints the table of docs/folding.md anew, in minutes
"""

import importlib
import pkgutil
import re
import tempfile
from collections import Counter
from pathlib import Path

import keras
import numpy as np

import keras_bn.models
from keras_bn.export import export_onnx
from tests.networks import APPLICATIONS

PAGE = Path(__file__).parents[2] / "docs" / "folding.md"
OWN = sorted(module.name for module in pkgutil.iter_modules(keras_bn.models.__path__))
ROW = re.compile(r"\| (\w+) \| \d+ \| (\d+) \|(.*)\|")
ENTRY = re.compile(r"(\d+) (\w+): ([\w, ]+)")


def build(name):
    """Return a model of this package or of Keras, not trained."""
    if name in OWN:
        return importlib.import_module(f"keras_bn.models.{name}").build()
    shape = (APPLICATIONS[name], APPLICATIONS[name], 3)
    return getattr(keras.applications, name)(weights=None, input_shape=shape, classes=50)


def trained(model, rng):
    """Give a model biases, statistics and gammas, some negative, that no initializer would."""
    for variable in model.variables:
        if variable.path.endswith(("bias", "beta", "moving_mean")):
            variable.assign(rng.normal(size=variable.shape) * 0.1)
        elif variable.path.endswith("moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith("gamma") and len(variable.shape) == 1:
            sign = rng.choice([1.0, 1.0, 1.0, -1.0], variable.shape)
            variable.assign(rng.uniform(0.5, 1.5, variable.shape) * sign)
    return model


def left(report):
    """Count what stays, by operator and reasons: backward, forward, one part each way."""
    return Counter(
        (
            row.operator,
            ", ".join(
                reason.name
                for reason in (row.reason, row.forward_reason, row.both_reason)
                if reason is not None
            ),
        )
        for row in report.refusals
    )


def documented():
    """Return what docs/folding.md says of each model."""
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {
        name: Counter({(op, reasons.strip()): int(n) for n, op, reasons in ENTRY.findall(entries)})
        for name, _, entries in rows
    }


def main():
    for name in (*OWN, *APPLICATIONS):
        model = trained(build(name), np.random.default_rng(0))
        with tempfile.TemporaryDirectory() as folder:
            report = export_onnx(model, Path(folder) / "model.onnx", check=False).fold
        entries = "; ".join(f"{n} {op}: {why}" for (op, why), n in sorted(left(report).items()))
        folded, stays = len(report.folds), len(report.refusals)
        print(f"| {name} | {folded} | {stays} | {entries} |", flush=True)


if __name__ == "__main__":
    main()
