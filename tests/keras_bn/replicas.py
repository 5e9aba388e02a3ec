"""Run a synchronised layer on several replicas: `python -m tests.keras_bn.replicas ...`.

    OUT.npz DEVICES SIZES [mask]     MirroredStrategy, DEVICES logical CPUs
    OUT.npz DEVICES SIZES fit        the same through `model.fit`
    OUT.npz worker SIZES [mask]      one worker, as TF_CONFIG says

SIZES are the samples for each replica, such as 3,5 or 6,0. The data are those of `data(SIZES)`.
Writes the outputs, the gradients, the running statistics and the number of collectives.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from keras_bn import BatchNormalization

SHAPE = (4, 3, 5)
MEAN = 100.0  # enough for E[x^2] - E[x]^2 to lose four digits


def data(sizes):
    """Return the whole batch: x, dy, mask, sample_weight."""
    rng = np.random.default_rng(0)
    x = rng.normal(MEAN, 2.0, (sum(sizes), *SHAPE)).astype(np.float32)
    x += np.arange(len(x), dtype=np.float32).reshape(-1, 1, 1, 1)  # replicas differ in the mean
    dy = rng.normal(size=x.shape).astype(np.float32)
    return x, dy, rng.random(x.shape[:-1]) < 0.7, rng.uniform(0.5, 2.0, len(x)).astype(np.float32)


def step(layer, weighted):
    """Return a function of (x, dy, mask, sample_weight): outputs and gradients."""

    def forward_and_backward(x, dy, mask, sample_weight):
        weights = {"mask": mask, "sample_weight": sample_weight} if weighted else {}
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True, **weights)
            loss = tf.reduce_sum(y * dy)
        variables = [variable.value for variable in layer.trainable_variables]
        return (y, *tape.gradient(loss, [x, *variables]))

    return forward_and_backward


def collectives(function):
    """Count the collective operators of a function and of the functions it calls."""
    graphs = [
        function.graph,
        *(f.graph for f in function.graph._functions.values() if hasattr(f, "graph")),
    ]
    return sum(op.type.startswith("CollectiveReduce") for g in graphs for op in g.get_operations())


def fit(sizes):
    """Train a small model with `model.fit`; return its weights and predictions."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(3, 3, padding="same", use_bias=False),
            BatchNormalization(synchronized=True, momentum=0.5),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    x, *_ = data(sizes)
    x = (x - MEAN) / 10.0
    y = x.mean((1, 2, 3))[:, np.newaxis]
    model.fit(x, y, batch_size=len(x), epochs=3, shuffle=False, verbose=0)
    weights = {f"weight{i}": weight for i, weight in enumerate(model.get_weights())}
    skipped = model.layers[1].skipped_batches
    return {**weights, "prediction": model.predict(x, verbose=0), "skipped": skipped}


def main(out, devices, sizes, *options):
    sizes = [int(size) for size in sizes.split(",")]
    if devices == "worker":
        ring = tf.distribute.experimental.CommunicationImplementation.RING
        strategy = tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=tf.distribute.experimental.CommunicationOptions(
                implementation=ring
            )
        )
    else:
        cpus = [tf.config.LogicalDeviceConfiguration()] * int(devices)
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(int(devices))])
    if "fit" in options:
        with strategy.scope():
            np.savez(out, **fit(sizes))
        return
    with strategy.scope():
        layer = BatchNormalization(synchronized=True, momentum=0.5)
        layer.build((None, *SHAPE))
    starts = np.cumsum([0, *sizes])

    def part(array):
        def value(context):
            i = context.replica_id_in_sync_group
            return tf.constant(array[starts[i] : starts[i + 1]])

        return strategy.experimental_distribute_values_from_function(value)

    parts = [part(array) for array in data(sizes)]
    run = tf.function(lambda *parts: strategy.run(step(layer, "mask" in options), parts))
    found = collectives(run.get_concrete_function(*parts))
    results = [strategy.experimental_local_results(result) for result in run(*parts)]
    names = ("y", "dx", "dgamma", "dbeta")
    saved = {f"{n}{i}": r for n, rs in zip(names, results, strict=True) for i, r in enumerate(rs)}
    for name in ("moving_mean", "moving_variance"):
        copies = strategy.experimental_local_results(getattr(layer, name).value)
        saved |= {f"{name}{i}": copy for i, copy in enumerate(copies)}
    np.savez(out, collectives=found, **{name: np.asarray(array) for name, array in saved.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
