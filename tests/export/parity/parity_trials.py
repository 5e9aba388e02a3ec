"""Honest exports that must agree, and seeded faults that must not: what docs/parity.md rests on.

python -m tests.export.parity.parity_trials [honest] [faults]

prints the tables of docs/parity.md, in minutes.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

import keras
import numpy as np

import keras_bn
from keras_bn import BatchNormalization
from keras_bn.export import check_parity, export_onnx
from keras_bn.export.parity.samples.samples import draw
from keras_bn.export.signature import signature_of
from tests.conftest import randomise
from tests.export.leftovers import OWN, build, trained
from tests.export.parity.normed_networks import NETWORKS, OPTIONS, normed
from tests.export.parity.parity_faults import FAULTS, norms
from tests.networks import APPLICATIONS

RANDOM = "random networks"
RELU6 = "relu6"
SEEDS = {
    RANDOM: 60,
    **dict.fromkeys(NETWORKS, len(OPTIONS)),
    **dict.fromkeys(OWN, 14),
    **dict.fromkeys(APPLICATIONS, 2),
}
RUNS = sum(SEEDS.values())


def random_network(seed):
    """Make a small network whose weights no training gives: variances from e^-9 to e^9."""
    rng = np.random.default_rng(seed)
    x = keras.Input((8, 8, 2), name="x")
    y = x
    for _ in range(rng.integers(1, 6)):
        y = keras.layers.Conv2D(int(rng.integers(1, 9)), 3, padding="same")(y)
        y = BatchNormalization()(y)
        y = keras.layers.Activation(str(rng.choice(["relu", "tanh", "linear"])))(y)
    model = keras.Model(x, keras.layers.Flatten()(y))
    for variable in model.variables:
        values = rng.normal(size=variable.shape)
        variable.assign(np.exp(3 * values) if "variance" in variable.path else values)
    return model


def relu6_network():
    """Make a small network in which ReLU6 meets values above 6."""
    x = keras.Input((12, 12, 3), name="x")
    y = x
    for number in range(2):
        y = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"conv{number}")(y)
        y = BatchNormalization(name=f"norm{number}")(y)
        y = keras.layers.ReLU(6.0, name=f"relu{number}")(keras.layers.Rescaling(6.0)(y))
    y = keras.layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, keras.layers.Dense(3, name="dense")(y))


def calibrated(model, rng):
    """Give a model weights as after training: biases, gammas and the statistics of its inputs."""
    trained(model, rng)
    signature = signature_of(model)
    batch = draw(model, signature, seed=0)[0][2].arrays
    names = [spec.name for spec in signature.specs]
    inputs = dict(zip(names, batch, strict=True)) if len(batch) > 1 else batch[0]
    if norms(model):
        keras_bn.estimate_population_statistics(
            model, inputs, variance="pooled", include_frozen=True, verbose=0
        )
    return model


def models(name):
    """Yield the models of one row, each as it is to be exported."""
    # The networks of Keras are too deep for weights that were never meant for them.
    regimes = (calibrated, trained, randomise) if name in OWN else (calibrated, trained)
    for seed in range(SEEDS[name]):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(seed)
        if name == RANDOM:
            yield random_network(seed)
        elif name in NETWORKS:
            yield normed(name, seed)  # as Keras initialises it
        else:
            yield regimes[seed % len(regimes)](build(name), np.random.default_rng(seed))


def honest(name):
    """Export and check the models of one row; yield the reports."""
    for seed, model in enumerate(models(name)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(model, path, check=False)
            layers = name in (*OWN, *NETWORKS, RANDOM) and seed < 3
            yield check_parity(model, path, seed=seed, explain=layers or None)


def seeded(name, fault, seed):
    """Seed a fault; return the layer that is wrong and the report, or None if there is no place."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = calibrated(relu6_network() if name == RELU6 else build(name), rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        layer = FAULTS[fault](model, path, rng)
        return None if layer is None else (layer, check_parity(model, path, explain=True))


def margin(report):
    """Return how near to its tolerance the worst output is: 1 is at it."""
    return max(
        max(row.worst.max / row.tolerance, row.worst.rms / row.rms_tolerance)
        for row in report.outputs
    )


def places(fault):
    """Return the networks that a fault is seeded in: all small ones, and every third large one."""
    number = list(FAULTS).index(fault)
    large = [name for i, name in enumerate(APPLICATIONS) if i % 3 == number % 3]
    return [RELU6, *OWN, *large]


def print_honest():
    print("| network | runs | alarms | nearest to the tolerance | largest error of Keras |")
    print("|---|---|---|---|---|")
    for name in SEEDS:
        reports = list(honest(name))
        alarms = sum(not report.passed for report in reports)
        own = max(row.keras.max for report in reports for row in report.outputs)
        worst = max(map(margin, reports))
        print(f"| {name} | {len(reports)} | {alarms} | {worst:.2f} | {own:.1e} |", flush=True)


def print_faults():
    print("| fault | seeded | found | by outputs alone | located |")
    print("|---|---|---|---|---|")
    for fault in FAULTS:
        counts = Counter()
        for name in places(fault):
            found = seeded(name, fault, 0)
            if found is None:
                continue
            layer, report = found
            located = report.fault is not None and layer in report.fault.layers
            counts["seeded"] += 1
            counts["found"] += not report.passed
            counts["outputs"] += not all(row.passed for row in report.outputs)
            counts["located"] += located
            if not located:
                print(f"{fault}, {name}, {layer}: {report.fault}", file=sys.stderr)
        row = (counts[key] for key in ("seeded", "found", "outputs", "located"))
        print(f"| {fault} | {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    for part in sys.argv[1:] or ("honest", "faults"):
        {"honest": print_honest, "faults": print_faults}[part]()
