"""Internal covariate shift during training, against the divergence of moments taken in NumPy."""

import csv
import itertools
import math
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.statistics import monitor as callbacks
from keras_bn.statistics.monitor import CovariateShiftMonitor
from tests.oracles import normalise
from tests.tolerances import assert_close

KEY = "internal_covariate_shift"
EPSILON = 0.02


class Recorder(keras.callbacks.Callback):
    """Keep the weights from before the first epoch and from after each."""

    def on_train_begin(self, logs=None):
        self.weights = [self.model.get_weights()]

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())


class Clock(keras.callbacks.Callback):
    """Stand in for the clock: an epoch takes so many seconds, and a batch that is run one."""

    def __init__(self, monkeypatch, seconds):
        super().__init__()
        self.now, self.seconds = 0.0, seconds
        run = CovariateShiftMonitor._moments

        def run_for_a_second(monitor, x):
            self.now += 1.0
            return run(monitor, x)

        stand_in = types.SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(callbacks, "time", stand_in)
        monkeypatch.setattr(CovariateShiftMonitor, "_moments", run_for_a_second)

    def on_train_batch_end(self, batch, logs=None):
        self.now += self.seconds if batch == 0 else 0.0


class Subclassed(keras.Model):
    """A model that the first batch builds."""

    def __init__(self):
        super().__init__()
        self.dense, self.norm = keras.layers.Dense(3), keras.layers.BatchNormalization(name="late")

    def call(self, x, training=None):
        return self.norm(self.dense(x), training=training)


def network(dropout=0.0, *, learning_rate=0.1, norm=BatchNormalization, **options):
    """Dense, norm, dense, norm; 3 features in and 2 out."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, name="d1"),
            norm(epsilon=EPSILON, name="first"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(2, name="d2"),
            norm(epsilon=EPSILON, name="second"),
        ],
        name="net",
    )
    options = {"jit_compile": False, **options}
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), "mse", **options)
    return model


def eager(**options):
    """Return a network that runs eagerly: three batches take less time than tracing does."""
    return network(run_eagerly=True, **options)


@pytest.fixture
def x(rng):
    return rng.normal(1.0, 2.0, (48, 3)).astype(np.float32)


def fit(model, x, monitor, *others, epochs=2, **options):
    y = np.tanh(x[:, :2])
    return model.fit(
        x, y, batch_size=16, epochs=epochs, verbose=0, callbacks=[monitor, *others], **options
    )


def divergence(before, now):
    """Return the mean over channels of KL(now || before) of Gaussians fitted to two samples."""
    (m, v), (n, w) = ((x.mean(0), x.var(0, ddof=1) + EPSILON) for x in (before, now))
    return np.mean((w / v + (n - m) ** 2 / v - 1 - np.log(w / v)) / 2)


def inputs_of_norms(weights, batches):
    """Return what enters the two batch norms of `network`, each batch normalised by itself."""
    kernel1, bias1, gamma, beta, *rest = (np.asarray(w, np.float64) for w in weights)
    kernel2, bias2 = next((a, b) for a, b in itertools.pairwise(rest) if a.ndim == 2)
    first = [np.float64(x) @ kernel1 + bias1 for x in batches]
    second = [normalise(h, h.mean(0), h.var(0), gamma, beta, EPSILON) for h in first]
    return np.concatenate(first), np.concatenate([h @ kernel2 + bias2 for h in second])


def test_shift_is_the_divergence_of_the_inputs_one_epoch_apart(x):
    monitor, recorder = (
        CovariateShiftMonitor(x, batches=2, batch_size=16, budget=None, log_layers=True),
        Recorder(),
    )
    history = fit(network(0.5), x, monitor, recorder, epochs=3).history
    seen = [inputs_of_norms(weights, [x[:16], x[16:32]]) for weights in recorder.weights]
    expected = [[divergence(b[i], n[i]) for b, n in itertools.pairwise(seen)] for i in (0, 1)]
    assert list(monitor.history) == ["net/first", "net/second"]
    assert_close(list(monitor.history.values()), expected, 1e-4)
    assert_close(monitor.mean_history, np.mean(expected, 0), 1e-4)
    assert history[f"{KEY}/net/first"] == monitor.history["net/first"]
    assert history[KEY] == monitor.mean_history
    assert monitor.batches_compared == [2, 2, 2]


@pytest.mark.parametrize("norm", [BatchNormalization, keras.layers.BatchNormalization])
def test_training_is_the_same_to_the_last_bit(x, norm):
    trained = []
    for monitors in ([], [CovariateShiftMonitor(x, batch_size=16, budget=None)]):
        keras.utils.set_random_seed(1)
        model = network(0.5, norm=norm)
        fitted = model.fit(x, x[:, :2], batch_size=16, epochs=3, verbose=0, callbacks=monitors)
        optimizer = [np.asarray(variable) for variable in model.optimizer.variables]
        trained.append([*model.get_weights(), *optimizer, fitted.history["loss"]])
    for without, with_monitor in zip(*trained, strict=True):
        np.testing.assert_array_equal(without, with_monitor)


def test_nothing_moves_without_learning(x):
    monitor = CovariateShiftMonitor(x, budget=None)
    fit(eager(learning_rate=0.0), x, monitor)
    assert monitor.history == {"net/first": [0.0, 0.0], "net/second": [0.0, 0.0]}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"jit_compile": "auto"}, id="jit"),
        pytest.param({"steps_per_execution": 3}, id="steps_per_execution"),
        pytest.param({"run_eagerly": True}, id="eager"),
    ],
)
def test_ways_of_running_measure_the_same(x, options):
    found = []
    for chosen in ({}, options):
        keras.utils.set_random_seed(1)
        monitor = CovariateShiftMonitor(x, budget=None)
        fit(network(**chosen), x, monitor, shuffle=False)
        found.append(list(monitor.history.values()))
    assert_close(found[1], found[0], 1e-3)


def test_model_that_the_first_batch_builds_is_measured_from_the_second_epoch(x):
    model = Subclassed()
    model.compile("sgd", "mse", jit_compile=False)
    monitor = CovariateShiftMonitor(x, budget=None, log_layers=True)
    history = model.fit(x, x, epochs=3, verbose=0, callbacks=[monitor]).history
    path = model.norm.path
    assert list(monitor.history) == [path]
    assert [math.isnan(shift) for shift in history[f"{KEY}/{path}"]] == [True, False, False]
    assert [math.isnan(shift) for shift in history[KEY]] == [True, False, False]


def test_csv_logger_behind_it_repeats_what_was_measured_last(x, tmp_path, monkeypatch):
    clock = Clock(monkeypatch, 10.0)
    monitor = CovariateShiftMonitor(x, batch_size=16, log_layers=True)
    logger = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    fit(eager(), x, monitor, logger, clock, epochs=6)
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    expected = {f"{KEY}/{path}": values for path, values in monitor.history.items()}
    expected |= {KEY: monitor.mean_history}
    for name, values in expected.items():
        assert [math.isnan(value) for value in values] == [True, False] * 3
        carried = [values[0], values[1], values[1], values[3], values[3], values[5]]
        np.testing.assert_array_equal([float(row[name]) for row in rows], carried)


def test_logs_have_the_mean_and_the_worst_layer(x):
    monitor = CovariateShiftMonitor(x, budget=None)
    assert monitor.worst_layer is None
    history = fit(network(0.5), x, monitor, epochs=2).history
    assert set(history) == {"loss", KEY, f"{KEY}_worst"}
    values = np.array(list(monitor.history.values()))
    np.testing.assert_array_equal(history[f"{KEY}_worst"], values.max(0))
    assert monitor.history[monitor.worst_layer][-1] == values[:, -1].max()


def test_tensorboard_behind_it_writes_a_scalar_for_each_layer(x, tmp_path):
    pytest.importorskip("tensorboard")
    monitor = CovariateShiftMonitor(x, budget=None, log_layers=True)
    fit(eager(), x, monitor, keras.callbacks.TensorBoard(str(tmp_path), write_graph=False))
    found = {}
    for file in (tmp_path / "train").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(float(tf.make_ndarray(value.tensor)))
    for path, values in monitor.history.items():
        assert_close(found[f"epoch_{KEY}/{path}"], values)
    assert_close(found[f"epoch_{KEY}"], monitor.mean_history)


def test_early_stopping_behind_it_can_watch_it(x):
    monitor = CovariateShiftMonitor(x, budget=None)
    stop = keras.callbacks.EarlyStopping(KEY, mode="max", patience=1)
    history = fit(eager(), x, monitor, stop, epochs=5).history
    assert len(monitor.mean_history) == 2
    assert set(history) == {"loss", KEY, f"{KEY}_worst"}
    assert list(monitor.history) == ["net/first", "net/second"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(1000.0, [3, 3, 3, 3], id="all of the three batches"),
        pytest.param(50.0, [2, 2, 2, 2], id="two and a half an epoch"),
        pytest.param(10.0, [0, 1, 0, 1], id="half a batch an epoch"),
    ],
)
def test_budget_bounds_what_is_run(x, monkeypatch, seconds, expected):
    monitor = CovariateShiftMonitor(x, batch_size=16)
    fit(eager(), x, monitor, Clock(monkeypatch, seconds), epochs=4)
    assert monitor.batches_compared == expected
    assert [math.isnan(shift) for shift in monitor.mean_history] == [n == 0 for n in expected]
    assert monitor.setup_seconds == 4.0
    assert monitor.seconds - 4.0 <= 0.05 * 4 * seconds


def test_budget_does_not_save_more_than_a_batch(x, monkeypatch):
    clock = Clock(monkeypatch, 1000.0)
    monitor = CovariateShiftMonitor(x, batch_size=16)
    slow_start = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(clock, "seconds", 10.0)
    )
    fit(eager(), x, monitor, clock, slow_start, epochs=5)
    assert monitor.batches_compared == [3, 1, 1, 0, 1]


def test_value_after_a_skipped_epoch_is_the_shift_since_the_last_measurement(x, monkeypatch):
    monitor, recorder = CovariateShiftMonitor(x, batch_size=16), Recorder()
    fit(eager(), x, monitor, recorder, Clock(monkeypatch, 10.0), epochs=4)
    seen = [inputs_of_norms(w, [x[:16]])[0] for w in recorder.weights]
    expected = [divergence(seen[0], seen[2]), divergence(seen[2], seen[4])]
    assert_close(monitor.history["net/first"][1::2], expected, 1e-4)


def test_second_fit_appends_and_starts_from_its_own_weights(x):
    model, monitor = eager(learning_rate=0.0), CovariateShiftMonitor(x, budget=None)
    fit(model, x, monitor)
    model.set_weights([w + 1.0 for w in model.get_weights()])
    fit(model, x, monitor, epochs=1)
    assert monitor.history["net/first"] == [0.0, 0.0, 0.0]
    assert monitor.epochs == [0, 1, 0]


def test_other_model_starts_other_histories(x):
    monitor = CovariateShiftMonitor(x, budget=None)
    fit(eager(), x, monitor)
    fit(eager(learning_rate=0.0), x, monitor, epochs=1)
    assert monitor.history == {"net/first": [0.0], "net/second": [0.0]}


def test_other_layers_start_other_histories(x):
    monitor = CovariateShiftMonitor(x, budget=None)
    fit(eager(), x, monitor)
    model = eager()
    model.get_layer("second").trainable = False
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, x, monitor, epochs=1)
    assert {path: len(values) for path, values in monitor.history.items()} == {"net/first": 1}
    assert monitor.unchanged == {"net/second": "it is frozen (`trainable=False`)"}
    assert len(monitor.epochs) == len(monitor.mean_history) == len(monitor.batches_compared) == 1


def test_model_is_traced_again_only_when_keras_traces_it_again(x, monkeypatch):
    made = []
    original = callbacks.ObservedModel
    monkeypatch.setattr(
        callbacks, "ObservedModel", lambda *a, **k: made.append(original(*a, **k)) or made[-1]
    )
    model, monitor = network(), CovariateShiftMonitor(x)
    fit(model, x, monitor)
    fit(model, x, monitor)
    assert len(made) == 1
    model.compile("sgd", "mse", jit_compile=False)
    fit(model, x, monitor)
    assert len(made) == 2


def test_interrupted_fit_leaves_nothing_behind(x):
    def interrupt(epoch, logs):
        raise KeyboardInterrupt

    model, monitor = network(), CovariateShiftMonitor(x, budget=None)
    stop = keras.callbacks.LambdaCallback(on_epoch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(model, x, monitor, stop)
    assert all("call" not in vars(layer) for layer in model.layers)
    fit(model, x, monitor)
    assert monitor.epochs == [0, 0, 1]
    assert np.isfinite(monitor.mean_history).all()


def test_weights_that_are_not_finite_give_nan(x):
    model, monitor = eager(), CovariateShiftMonitor(x, budget=None)
    spoil = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: (
            epoch == 1 and model.set_weights([w * np.nan for w in model.get_weights()])
        )
    )
    fit(model, x, monitor, spoil, epochs=3)
    assert [math.isnan(shift) for shift in monitor.mean_history] == [False, True, True]


def test_batch_that_is_not_finite_is_left_out(x):
    spoilt = x.copy()
    spoilt[3] = np.nan
    monitors = [
        CovariateShiftMonitor(data, batch_size=16, budget=None) for data in (spoilt, x[16:])
    ]
    fit(eager(), x, *monitors)
    assert monitors[0].history == monitors[1].history


@pytest.mark.parametrize(
    "hold",
    [
        pytest.param(lambda x: (x, x[:, :2]), id="arrays"),
        pytest.param(lambda x: tf.data.Dataset.from_tensor_slices(x).batch(16).repeat(), id="tf"),
        pytest.param(lambda x: (x[i : i + 16] for i in (0, 16, 32)), id="generator"),
    ],
)
def test_data_are_copied_once_from_whatever_holds_them(x, hold):
    held = x.copy()
    data = hold(held)
    monitors = [
        CovariateShiftMonitor(data, batches=3, batch_size=16, budget=None),
        CovariateShiftMonitor(x, batches=3, batch_size=16, budget=None),
    ]
    held[:] = 0.0
    fit(eager(), x, *monitors)
    assert monitors[0].history == monitors[1].history


def test_layers_can_be_chosen(x):
    monitor = CovariateShiftMonitor(x, layers="second")
    fit(eager(), x, monitor)
    assert list(monitor.history) == ["net/second"]


@pytest.mark.parametrize("batches", [0, -1, 1.5, True])
def test_batches_out_of_range_are_refused(x, batches):
    with pytest.raises(ValueError, match=re.escape(f"Received: batches={batches!r}.")):
        CovariateShiftMonitor(x, batches=batches)


@pytest.mark.parametrize("budget", [0, 0.0, -0.1, 1.1, math.nan, "5 %", True])
def test_budget_out_of_range_is_refused(x, budget):
    with pytest.raises(ValueError, match=re.escape(f"Received: budget={budget!r}.")):
        CovariateShiftMonitor(x, budget=budget)


def test_batch_size_out_of_range_is_refused(x):
    with pytest.raises(ValueError, match=re.escape("Received: batch_size=0.")):
        CovariateShiftMonitor(x, batch_size=0)


@pytest.mark.parametrize("data", [np.zeros((0, 3)), [], [np.zeros((0, 3))]])
def test_data_without_samples_are_refused(data):
    with pytest.raises(ValueError, match="`data` must have"):
        CovariateShiftMonitor(data)


def test_data_of_another_type_are_refused():
    with pytest.raises(TypeError, match="Received: int"):
        CovariateShiftMonitor(3)


def test_model_without_batch_norm_is_refused_when_training_begins(x):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="plain")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=re.escape("Received: 'plain', it has none.")):
        fit(model, x, CovariateShiftMonitor(x))


def test_model_with_frozen_batch_norm_only_is_refused(x):
    model = network()
    model.trainable = False
    with pytest.raises(
        ValueError, match=re.escape("Received: 'net', which has none such: net/first")
    ):
        fit(model, x, CovariateShiftMonitor(x))
