"""The native kernel: against NumPy float64, and in the places where it must or must not run."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import keras_bn
from keras_bn import BatchNormalization
from keras_bn.native import library
from keras_bn.native.operators import batch_sums, normalise_by
from tests.oracles import gradients, moments, normalise
from tests.tolerances import HALF, assert_close

OPERATORS, WHY_NOT = library.load()
native = pytest.mark.skipif(OPERATORS is None, reason=WHY_NOT or "it is there")

SHAPES = [
    pytest.param((4, 5, 6, 3), -1, id="few channels, left-over positions"),
    pytest.param((3, 7, 7, 129), -1, id="one more than a row of 128"),
    pytest.param((2, 1500), 1, id="more channels than a tile"),
    pytest.param((700, 4100), 1, id="several strips and tiles"),
    pytest.param((40, 3, 5), 1, id="few values behind the channels"),
    pytest.param((6, 3, 5, 6), 1, id="channels first"),
    pytest.param((2, 3, 1040), 1, id="more values behind than a lane"),
    pytest.param((1, 2, 140000), 1, id="several parts behind"),
    pytest.param((3, 50), 0, id="channels first of all"),
    pytest.param((1, 3), 1, id="one value a channel"),
    pytest.param((2, 2, 3, 3, 2, 3), -3, id="rank 6, channels inside"),
]


def trained(x, axis, gamma, beta, dy, weights=None):
    """Return y, the moments, and the gradients to x, gamma and beta."""
    channels = x.shape[axis]
    gamma, beta = tf.constant(gamma, tf.float32), tf.constant(beta, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([x, gamma, beta])
        found, *_ = batch_sums(x, axis, (tf.zeros(channels), tf.ones(channels)), 0.9, weights)
        y = normalise_by(x, found, gamma, beta, 1e-3, axis, weights)
    return y, found, *tape.gradient(y, [x, gamma, beta], dy)


@native
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_passes_follow_the_definition(rng, shape, axis, dtype):
    channels = shape[axis]
    x = tf.cast(rng.normal(3.0, 2.0, shape), dtype)
    dy = tf.cast(rng.normal(size=shape), dtype)
    gamma, beta = rng.uniform(0.5, 2.0, (2, channels))
    y, found, dx, dgamma, dbeta = trained(x, axis, gamma, beta, dy)
    wide, upstream = (np.moveaxis(tf.cast(t, "float64"), axis, -1) for t in (x, dy))
    mean, variance, m = moments(wide)
    half = HALF.get(dtype, 2e-5)
    expected = normalise(wide, mean, variance, gamma, beta, 1e-3)
    assert_close(found[0, 0] + found[0, 1], mean)
    assert_close(found[0, 2], variance)
    np.testing.assert_array_equal(found[0, 3], m)
    assert_close(np.moveaxis(tf.cast(y, "float64"), axis, -1), expected, half)
    if m[0] == 1:
        return  # the gradient is a rounded zero
    for a, e in zip(
        (np.moveaxis(tf.cast(dx, "float64"), axis, -1), dgamma, dbeta),
        gradients(wide, upstream, gamma, 1e-3),
        strict=True,
    ):
        assert_close(a, e, half)


@native
@pytest.mark.parametrize("where", ["sampled rows far off", "one huge value", "sorted"])
def test_a_sample_that_misses_the_mean_costs_no_digits(rng, where):
    x = 1e4 + rng.normal(size=(20000, 2))
    if where == "sampled rows far off":
        places = ((np.arange(1, 17) * 0.6180339887498949) % 1.0 * len(x)).astype(int)
        x[places] = 2e4
    elif where == "one huge value":
        x[0] = 1e7
    else:
        x = np.sort(x**3, 0)
    x = x.astype(np.float32)
    y, found, *_ = trained(tf.constant(x), 1, np.ones(2), np.zeros(2), tf.ones(x.shape))
    mean, variance, _ = moments(x)
    assert_close(found[0, 2], variance, 2e-6)
    assert_close(y, normalise(x, mean, variance, 1.0, 0.0, 1e-3), 2e-6)


@native
def test_the_number_of_threads_does_not_change_a_bit(rng):
    x = tf.constant(rng.normal(2.0, 3.0, (64, 56, 56, 24)), tf.float32)
    dy = tf.constant(rng.normal(size=x.shape), tf.float32)
    results = []
    for threads in (1, 2, 3, 8, 2):
        library.set_threads_of_library(threads)
        results.append(trained(x, 3, np.ones(24), np.zeros(24), dy))
    library.set_threads_of_library(0)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@native
def test_weighted_gradients_are_those_of_the_definition(rng):
    """Against TensorFlow's gradient of the portable formula in float64."""
    x, dy = rng.normal(3.0, 2.0, (2, 6, 5, 4))
    w = rng.uniform(0.0, 2.0, (6, 5)) * (rng.random((6, 5)) < 0.7)
    layer = BatchNormalization(dtype="float64")
    layer.build(x.shape)
    single = BatchNormalization()
    single.build(x.shape)
    found = []
    for each, dtype in ((single, "float32"), (layer, "float64")):
        point, weights = tf.constant(x, dtype), tf.constant(w, dtype)
        with tf.GradientTape() as tape:
            tape.watch([point, weights])
            y = each(point, training=True, sample_weight=weights)
        variables = [variable.value for variable in each.trainable_variables]
        sources = [point, weights, *variables]
        found.append(tape.gradient(y, sources, tf.constant(dy, dtype)))
    for a, e in zip(*found, strict=True):
        assert_close(a, e, 2e-5)


@native
def test_what_weighs_nothing_may_be_nan_in_the_gradient_too(rng):
    x, w = rng.normal(size=(6, 4)).astype(np.float32), np.array([1, 1, 0, 1, 1, 1], np.float32)
    x[2] = np.nan
    dy = rng.normal(size=x.shape).astype(np.float32)
    dy[2] = 0.0
    _, _, dx, *_ = trained(tf.constant(x), 1, np.ones(4), np.zeros(4), dy, tf.constant(w))
    kept = w > 0
    expected, *_ = gradients(x[kept], dy[kept], 1.0, 1e-3)
    assert_close(dx.numpy()[kept], expected)


@native
@pytest.mark.parametrize(
    "options",
    [{}, {"ghost_batch_size": 2}, {"renorm": True}, {"weights": True}, {"synchronized": True}],
    ids=lambda options: next(iter(options), "plain"),
)
def test_second_order_gradients_in_every_configuration(rng, options):
    """Against those of the portable formula in float64; its own are checked against differences."""
    options = dict(options)
    weights = rng.uniform(0.5, 2.0, 6) if options.pop("weights", False) else None
    x, direction, upstream = rng.normal(size=(3, 6, 3, 2))
    found = []
    for dtype in ("float32", "float64"):
        layer = BatchNormalization(dtype=dtype, **options)
        layer.build(x.shape)
        point, w = tf.constant(x, dtype), None if weights is None else tf.constant(weights, dtype)
        with tf.GradientTape() as outer:
            outer.watch(point)
            with tf.GradientTape() as inner:
                inner.watch(point)
                y = layer(point, training=True, sample_weight=w)
                loss = tf.reduce_sum(tf.sin(y) * tf.constant(upstream, dtype))
            along = tf.reduce_sum(inner.gradient(loss, point) * tf.constant(direction, dtype))
        found.append(outer.gradient(along, point))
    assert_close(*found, 1e-4)


@native
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "function"])
def test_jvp_is_the_derivative_along_a_direction(rng, compiled):
    x, direction = rng.normal(size=(2, 8, 4))
    layer = BatchNormalization()
    layer.build(x.shape)
    call = tf.function(lambda x: layer(x, training=True))
    point = tf.constant(x, tf.float32)
    with tf.autodiff.ForwardAccumulator(point, tf.constant(direction, tf.float32)) as accumulator:
        y = call(point) if compiled else layer(point, training=True)
    step = 1e-6
    ends = [
        normalise(z, *moments(z)[:2], 1.0, 0.0, 1e-3)
        for z in (x + step * direction, x - step * direction)
    ]
    assert_close(accumulator.jvp(y), (ends[0] - ends[1]) / (2 * step), 1e-5)


@native
def test_jacobian_is_that_of_the_definition(rng):
    x = rng.normal(size=(4, 2))
    layer = BatchNormalization()
    layer.build(x.shape)
    point = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(point)
        y = layer(point, training=True)
    found = tape.jacobian(y, point).numpy()
    for index in np.ndindex(x.shape):
        dy = np.zeros(x.shape)
        dy[index] = 1.0
        assert_close(found[index], gradients(x, dy, 1.0, 1e-3)[0], 2e-5)


@native
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"moving_mean": np.zeros(4)}, r"`moving_mean` must have the shape \[3\]"),
        ({"axis": 5}, "`axis` must be one of the input's"),
        ({"ghost_batch_size": 3}, "`ghost_batch_size` must divide the batch size"),
        ({"weights": [np.ones((4, 3))]}, "`weights` must have a leading part"),
        ({"weights": [np.ones(5)]}, "`weights` must have a leading part"),
    ],
)
def test_operator_refuses_sizes_that_do_not_match(change, words):
    arguments = {
        "x": np.zeros((4, 3), np.float32),
        "moving_mean": np.zeros(3),
        "moving_variance": np.ones(3),
        "momentum": 0.9,
        "weights": [],
        "axis": -1,
    }
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        OPERATORS.keras_bn_sums(**(arguments | change))


@native
def test_gradient_operators_refuse_a_dy_of_another_shape():
    x = tf.zeros((4, 3))
    common = {"x": x, "gamma": tf.ones(3), "beta": tf.ones(3), "axis": -1, "epsilon": 1e-3}
    common["moments"] = tf.zeros((1, 5, 3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="`dy` must have the shape"):
        OPERATORS.keras_bn_gradient_sums(dy=tf.zeros((3, 4)), **common)
    sums = tf.zeros((2, 1, 3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="`dy` must have the shape"):
        OPERATORS.keras_bn_gradient(
            dy=tf.zeros((3, 4)), all_sums=sums, own_sums=sums, weights=[], **common
        )


@native
def test_graphs_for_serving_and_for_xla_hold_no_operator_of_ours(rng):
    layer = BatchNormalization()
    layer.build((None, 4))
    x = tf.TensorSpec((None, 4))
    functions = [
        tf.function(lambda x: layer(x, training=False)),
        tf.function(lambda x: layer(x, training=True), jit_compile=True),
    ]
    for function in functions:
        graph = function.get_concrete_function(x).graph
        assert not [op.type for op in graph.get_operations() if op.type.startswith("KerasBn")]


@native
def test_operators_that_run_at_once_agree(rng):
    layers = [BatchNormalization() for _ in range(6)]
    x = tf.constant(rng.normal(size=(512, 512)), tf.float32)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            ys = [layer(x, training=True) for layer in layers]
            loss = tf.add_n([tf.reduce_sum(y**3) for y in ys])
        return tape.gradient(loss, x), ys

    alone = layers[0](x, training=True)
    for _ in range(20):
        for y in step(x)[1]:
            np.testing.assert_array_equal(y, alone)


def test_kernel_tells_what_a_layer_trains_on():
    found = keras_bn.kernel()
    assert found.name == ("native" if OPERATORS is not None else "tensorflow")
    assert str(found) == f"{found.name}: {found.reason}"
    assert keras_bn.kernel(BatchNormalization(fused=False)).reason == "`fused` is False"
    assert "float64" in keras_bn.kernel(BatchNormalization(dtype="float64")).reason
    with pytest.raises(TypeError, match="Received: int"):
        keras_bn.kernel(3)


def test_kernel_without_the_library(monkeypatch):
    monkeypatch.setattr(library, "load", lambda: (None, "it is not there"))
    assert str(keras_bn.kernel()) == "tensorflow: it is not there"
    ghosts = keras_bn.kernel(BatchNormalization(ghost_batch_size=4))
    assert str(ghosts) == "portable: it is not there, and `ghost_batch_size` is 4"


def test_environment_variable_switches_it_off():
    code = "import keras_bn; print(keras_bn.kernel())"
    words = [sys.executable, "-W", "error::RuntimeWarning", "-c", code]
    environment = {**os.environ, "KERAS_BN_NATIVE": "0"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "tensorflow: the environment variable KERAS_BN_NATIVE is 0"


@pytest.mark.parametrize("content", [b"", b"no library"])
def test_library_that_does_not_load_is_one_warning(tmp_path, monkeypatch, content):
    path = tmp_path / "_kernel.so"
    path.write_bytes(content)
    monkeypatch.setattr(library, "LIBRARY", path)
    library.load.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="the native kernel does not load"):
            assert library.load()[0] is None
        assert "does not load" in library.load()[1]  # and warns no second time
    finally:
        library.load.cache_clear()


def test_missing_library_is_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "_kernel.so")
    library.load.cache_clear()
    try:
        assert "is not built" in library.load()[1]
    finally:
        library.load.cache_clear()


@native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forked_child_works_with_threads_of_its_own():
    code = """
import os, warnings
import numpy as np, tensorflow as tf
from keras_bn.native.operators import batch_sums
x = tf.constant(np.random.default_rng(0).normal(size=(4096, 512)), tf.float32)
momentum, running = tf.constant(0.9), (tf.zeros(512), tf.ones(512))
before = batch_sums(x, 1, running, momentum)[0].numpy()
warnings.simplefilter("ignore")
child = os.fork()
if child == 0:
    after = batch_sums(x, 1, running, momentum)[0].numpy()
    os._exit(0 if np.array_equal(before, after) else 1)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(before, batch_sums(x, 1, running, momentum)[0].numpy())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@native
@pytest.mark.parametrize("gamma", [1.0, 1.37, -0.6, 3e4])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_value_is_read_and_rounded_as_its_type_says(dtype, gamma):
    bits = np.arange(1 << 16, dtype=np.uint16)
    x = tf.bitcast(tf.constant(bits[:, None]), dtype)
    found = tf.constant([[[0.0], [0.0], [1.0], [1.0], [1.0]]])  # mean 0, variance 1
    y = normalise_by(x, found, tf.constant([gamma]), tf.zeros(1), 0.0, -1, None)
    wide = tf.cast(x, "float32")
    wide = tf.where(tf.abs(wide) < np.finfo(np.float32).tiny, 0.0 * wide, wide)  # flushed
    expected = tf.cast(wide * tf.constant(gamma), dtype)
    np.testing.assert_array_equal(tf.cast(y, "float32"), tf.cast(expected, "float32"))


def available_gigabytes():
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20


@native
@pytest.mark.slow
def test_more_values_than_an_int32_counts():
    if available_gigabytes() < 15:
        pytest.skip("three tensors of 4 GB, and 15 GB are not free")
    channels, tail = 1024, 96
    rows = 2**31 // channels + tail  # the tail lies behind the 2^31st value
    share = tail / rows
    array = np.zeros((rows, channels), np.float16)
    array[-tail:] = 4096.0
    x = tf.constant(array)
    array[-tail:], array[-tail // 2 :] = 0.0, 1.0  # half of the tail has a gradient
    gamma, beta = tf.ones(channels), tf.zeros(channels)
    found, *_ = batch_sums(x, -1, (beta, gamma), 0.9)
    mean, variance = 4096.0 * share, 4096.0**2 * share * (1 - share)
    assert_close(found[0, 0] + found[0, 1], np.full(channels, mean))
    assert_close(found[0, 2], np.full(channels, variance))
    y = normalise_by(x, found, gamma, beta, 1e-3, -1)
    normalised = (np.array([0.0, 4096.0]) - mean) / np.sqrt(variance + 1e-3)
    for i, expected in ((0, normalised[0]), (-tail - 1, normalised[0]), (-tail, normalised[1])):
        assert_close(tf.cast(y[i], "float64"), np.full(channels, expected), HALF["float16"])
    del y
    dy = tf.constant(array)
    options = {"axis": -1, "epsilon": 1e-3}
    sums = OPERATORS.keras_bn_gradient_sums(dy, x, found, gamma, beta, **options)
    dx, dgamma, dbeta = OPERATORS.keras_bn_gradient(
        dy, x, found, gamma, beta, sums, sums, [], **options
    )
    np.testing.assert_array_equal(dbeta, np.full(channels, tail // 2))
    assert_close(dgamma, np.full(channels, tail // 2 * normalised[1]))
    for i, upstream, y_there in ((-tail - 1, 0, 0), (-tail, 0, 1), (-1, 1, 1)):
        centred = upstream - share / 2 * (1 + normalised[y_there] * normalised[1])
        expected = np.full(channels, centred / np.sqrt(variance + 1e-3))
        assert np.abs(tf.cast(dx[i], "float64") - expected).max() < 2e-5  # of 0.018 in the tail
