"""Estimate population statistics on several replicas, in a process of its own.

    python -m tests.keras_bn.statistics.population_replicas OUT.npz DEVICES KIND OPTIONS

DEVICES is "mirrored", for 2 logical CPUs, or "worker", for one worker, as TF_CONFIG says.

KIND is "arrays", "distributed" (a distributed dataset), "empty" (worker 1 has a batch without
samples and no other), "fails N" (the loader of worker 1 raises instead of giving its batch N), or
"undo" (arrays; replicas store different statistics, and the estimate is undone). OPTIONS are those
of the estimate, in JSON. Writes what each replica stores before and after, or the error.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.statistics.population import estimate_population_statistics
from tests.networks import cut, norms

SAMPLES = (70, 41)  # of the workers


def data(worker):
    """Return a worker's own samples and their weights."""
    rng = np.random.default_rng(worker)
    x = rng.normal(100.0 + worker, 2.0, (SAMPLES[worker], 4, 4, 2)).astype(np.float32)
    return x, rng.uniform(0.5, 2.0, len(x)).astype(np.float32)


def model():
    """Make a model with weights that are the same in every process."""
    network = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            BatchNormalization(),
            keras.layers.Conv2D(3, 2, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(3, use_bias=False),
            BatchNormalization(synchronized=True),
        ]
    )
    rng = np.random.default_rng(7)
    network.set_weights([rng.uniform(0.2, 1.0, w.shape) for w in network.get_weights()])
    return network


class Loader:
    """Gives batches of (inputs, targets, sample weights), however often it is iterated."""

    def __init__(self, x, w, fails_at=None):
        self.batches = list(zip(*cut(x, w), strict=True)) or [(x, w)]
        self.fails_at, self.given = fails_at, 0

    def __iter__(self):
        for x, w in self.batches:
            if self.given == self.fails_at:
                raise OSError("the disk is gone")
            self.given += 1
            yield x, x, w


def load(kind, worker, strategy):
    x, w = data(worker)
    if kind == "distributed":
        whole = tf.data.Dataset.from_tensor_slices((x[:65], x[:65], w[:65])).batch(32)
        return strategy.experimental_distribute_dataset(whole)  # a replica has no part of the last
    if kind == "empty" and worker == 1:
        return Loader(x[:0], w[:0])
    if kind.startswith("fails") and worker == 1:
        return Loader(x, w, fails_at=int(kind.split()[1]))
    return x, x, w


def make_replicas_differ(strategy, network):
    for bn in norms(network):
        for i, copy in enumerate(strategy.experimental_local_results(bn.moving_mean.value)):
            copy.assign(copy + i)


def stored(strategy, network):
    """Return the statistics of every replica of this process, by name."""
    return {
        f"{variable.path.replace('/', '.')} {i}": copy.numpy()
        for bn in norms(network)
        for variable in (bn.moving_mean, bn.moving_variance)
        for i, copy in enumerate(strategy.experimental_local_results(variable.value))
    }


def main(out, devices, kind, options):
    worker = 0
    if devices == "worker":
        worker = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        ring = tf.distribute.experimental.CommunicationImplementation.RING
        strategy = tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=tf.distribute.experimental.CommunicationOptions(
                implementation=ring
            )
        )
    else:
        cpus = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        network = model()
    if kind == "undo":
        make_replicas_differ(strategy, network)
    before = stored(strategy, network)
    found = {"error": ""}
    try:
        report = estimate_population_statistics(
            network, load(kind, worker, strategy), verbose=0, **json.loads(options)
        )
        found["counts"] = [report.batches, report.skipped_batches, report.samples]
        if kind == "undo":
            report.undo()
    except (OSError, RuntimeError) as error:
        found["error"] = f"{type(error).__name__}: {error}"
    after = stored(strategy, network)
    np.savez(
        out,
        **found,
        **{f"before {name}": value for name, value in before.items()},
        **{f"after {name}": value for name, value in after.items()},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
