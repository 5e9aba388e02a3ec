"""Whatever happens on the way, a model is left as it was, but for its statistics in the end."""

import gc
import re
import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.statistics import estimation
from keras_bn.statistics.population import adapt_statistics, estimate_population_statistics
from tests.networks import Stock, alone, bits, cut, dense, drifting_rows, norms, statistics
from tests.oracles import averaged_statistics, pooled_statistics
from tests.tolerances import assert_close

ORDERS = pytest.mark.parametrize("sequential", [False, True], ids=["at once", "sequential"])
ERRORS = pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])


def estimate(model, data, **options):
    return estimate_population_statistics(model, data, verbose=0, **options)


def state(model):
    """Return all that must not change: variables, attributes of layers, how functions run."""
    layers = {
        layer.path: (layer.trainable, vars(layer).keys() - {"_inbound_nodes"})
        for layer in model._flatten_layers()
    }
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    return bits(model), layers, tf.config.functions_run_eagerly(), model.run_eagerly


class Loader:
    """Gives batches, however often it is iterated, and raises instead of one of them all."""

    def __init__(self, batches, error=None, at=0):
        self.batches, self.error, self.at, self.given = batches, error, at, 0

    def __iter__(self):
        for batch in self.batches:
            if self.error is not None and self.given == self.at:
                raise self.error("disk")
            self.given += 1
            yield batch


class Trap(keras.layers.Layer):
    """Raises once it is armed."""

    error = None

    def call(self, x):
        if self.error is not None:
            raise self.error("disk")
        return x


@pytest.fixture
def rows(rng):
    return drifting_rows(rng)


@pytest.fixture
def model(randomised):
    model = randomised(dense(BatchNormalization))
    model.run_eagerly = True
    return model


@ERRORS
@pytest.mark.parametrize(
    ("sequential", "at"), [(False, 0), (False, 1), (True, 0), (True, 1), (True, 5)]
)
def test_loader_that_raises_leaves_the_model_as_it_was(model, rows, error, sequential, at):
    model.run_eagerly = at == 0
    before = state(model)
    with pytest.raises(error, match="disk"):
        estimate(model, Loader(cut(rows)[0], error, at), sequential=sequential)
    assert state(model) == before


# Fails for OSError in a graph: what is raised is a StagingError of autograph, and no OSError.
@ERRORS
@ORDERS
@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
def test_layer_that_raises_leaves_the_model_as_it_was(randomised, rows, error, sequential, eager):
    model = dense(Stock)
    model.add(Trap(name="trap"))
    model.add(Stock())
    randomised(model).run_eagerly = eager
    before = state(model)
    model.get_layer("trap").error = error
    with pytest.raises(error, match="disk"):
        estimate(model, rows, sequential=sequential)
    del model.get_layer("trap").error
    assert state(model) == before
    estimate(model, rows)


def test_shape_that_the_model_refuses_leaves_it_as_it_was(model, rows):
    before = state(model)
    with pytest.raises(ValueError, match="incompatible"):
        estimate(model, Loader([rows, rows[:, :3]]))
    assert state(model) == before


def test_ghost_batches_that_do_not_divide_leave_the_model_as_it_was(rows):
    model = alone(BatchNormalization(ghost_batch_size=8))
    before = state(model)
    with pytest.raises(ValueError, match=re.escape("Received: ghost_batch_size=8, batch size 6")):
        estimate(model, rows)
    assert state(model) == before


@ERRORS
@pytest.mark.parametrize("at", [0, 1, 2, 3])
@ORDERS
def test_interrupt_during_assignment_restores_what_was_assigned(
    model, rows, monkeypatch, error, at, sequential
):
    before, assign, calls = state(model), keras.Variable.assign, []

    def assign_but_once(variable, value):
        calls.append(variable.path)
        if len(calls) == at + 1:
            raise error("disk")
        return assign(variable, value)

    monkeypatch.setattr(keras.Variable, "assign", assign_but_once)
    with pytest.raises(error, match="disk"):
        estimate(model, rows, sequential=sequential)
    monkeypatch.undo()
    assert len(calls) > at
    assert state(model) == before


@ORDERS
def test_nothing_but_the_statistics_changes(model, rows, sequential):
    before = state(model)
    estimate(model, rows, sequential=sequential)
    after = state(model)
    assert after[1:] == before[1:]
    changed = {path for path, value in after[0].items() if value != before[0][path]}
    assert changed == {
        variable.path for bn in norms(model) for variable in (bn.moving_mean, bn.moving_variance)
    }
    assert [bn.skipped_batches for bn in norms(model)] == [0, 0]


def test_call_that_somebody_put_on_a_layer_comes_back(rows):
    model = alone(Stock())
    (bn,) = model.layers
    original = bn.call
    vars(bn)["call"] = replaced = lambda inputs, training=None, mask=None: original(inputs)
    estimate(model, rows)
    assert vars(bn)["call"] is replaced


def test_optimizer_and_compiled_functions_go_on(rows):
    model = dense(Stock)
    model.add(keras.layers.Dropout(0.5, seed=0))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    targets = rows[:, :4]
    model.fit(rows, targets, verbose=0)
    old = model.predict(rows, verbose=0)
    functions = model.train_function, model.predict_function
    state_of_optimizer = [v.numpy().tobytes() for v in model.optimizer.variables]
    report = estimate(model, rows)
    assert (model.train_function, model.predict_function) == functions
    assert [v.numpy().tobytes() for v in model.optimizer.variables] == state_of_optimizer
    new = model.predict(rows, verbose=0)
    assert np.abs(new - old).max() > 0.1
    assert_close(new, model(rows, training=False))
    mean = norms(model)[0].moving_mean.numpy()
    model.fit(rows, targets, verbose=0)
    assert (norms(model)[0].moving_mean.numpy() != mean).all()
    report.undo()
    assert_close(model.predict(rows, verbose=0), model(rows, training=False))


@ORDERS
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_batch_that_is_not_finite_is_skipped(model, rows, sequential, poison):
    bad = rows[:32].copy()
    bad[3, 2] = poison
    clean = estimate(model, rows, sequential=sequential)
    found = bits(model)
    clean.undo()
    batches = [bad, *cut(rows)[0], bad]
    report = estimate(model, Loader(batches), sequential=sequential)
    assert bits(model) == found
    assert (report.batches, report.skipped_batches, report.samples) == (3, 2, 70)


@ORDERS
def test_batch_without_samples_or_weight_is_skipped(model, rows, sequential):
    batches = [(x, None, np.ones(len(x), np.float32)) for x in cut(rows)[0]]
    clean = estimate(model, Loader(batches), sequential=sequential, weighted=True)
    found = bits(model)
    clean.undo()
    empty, weightless = batches[0][0][:0], np.zeros(32, np.float32)
    batches = [(empty, None, weightless[:0]), (rows[:32], None, weightless), *batches]
    report = estimate(model, Loader(batches), sequential=sequential, weighted=True)
    assert bits(model) == found
    assert (report.batches, report.skipped_batches, report.samples) == (3, 2, 70)


# Fails for "sequential" without samples: a report on no layers, because nothing was called.
@ORDERS
@pytest.mark.parametrize("kind", ["nan", "no samples", "no weight"])
def test_data_without_a_usable_batch_are_refused(model, rows, sequential, kind):
    x = {"nan": rows * np.nan, "no samples": rows[:0], "no weight": rows}[kind]
    batch = x, None, np.zeros(len(x), np.float32)
    before = state(model)
    with pytest.raises(ValueError, match=re.escape("Received: 2 batches, none of them usable")):
        estimate(model, Loader([batch, batch]), sequential=sequential, weighted=kind == "no weight")
    assert state(model) == before


def test_model_whose_weights_are_nan_is_refused(model, rows):
    kernel = model.layers[3].kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    before = state(model)
    with pytest.raises(ValueError, match=re.escape("Received: 3 batches, none of them usable")):
        estimate(model, rows)
    assert state(model) == before


@pytest.mark.parametrize(
    ("options", "received"),
    [
        ({"steps": 9}, "3 batches"),
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": True}, "batch_size=True"),
    ],
)
@pytest.mark.parametrize("function", [estimate_population_statistics, adapt_statistics])
def test_options_out_of_range_leave_the_model_as_it_was(model, rows, function, options, received):
    before = state(model)
    with pytest.raises(ValueError, match=f"^{function.__name__}: .*Received: {received}"):
        function(model, rows, verbose=0, **options)
    assert state(model) == before


def test_sequential_estimate_needs_data_that_can_be_iterated_again(model, rows):
    before = state(model)
    with pytest.raises(ValueError, match=re.escape("Received: generator")):
        estimate(model, (x for x in cut(rows)[0]), sequential=True)
    assert state(model) == before


def test_memory_does_not_grow_with_the_number_of_batches(rng):
    model, seen = alone(BatchNormalization(), features=64), {}
    model.run_eagerly = False

    class Watched:
        def __iter__(self):
            for i in range(201):
                if i in (10, 200):
                    gc.collect()
                    tensors = sum(isinstance(o, tf.Tensor) for o in gc.get_objects())
                    seen[i] = tensors, tracemalloc.get_traced_memory()[0]
                yield rng.normal(size=(128, 64)).astype(np.float32)  # 32 KiB

    tracemalloc.start()
    try:
        estimate(model, Watched())
    finally:
        tracemalloc.stop()
    assert seen[200][0] <= seen[10][0] + 5
    assert seen[200][1] < seen[10][1] + 10 * 32 * 1024  # of 190 batches


def shares_of(monkeypatch, others):
    """Let `estimation.gather` add the numbers of other workers, one estimate's in all."""

    def gather(strategy, local, where):
        return np.stack([local(), *others])

    monkeypatch.setattr(estimation, "gather", gather)


def numbers_of(monkeypatch, model, data, **options):
    """Return the numbers with which a worker would take part in an estimate."""
    sent = []

    def gather(strategy, local, where):
        sent.append(local())
        return sent[-1][np.newaxis]

    monkeypatch.setattr(estimation, "gather", gather)
    estimate(model, data, **options).undo()
    return sent


@pytest.mark.parametrize("variance", ["paper", "pooled"])
def test_numbers_of_other_workers_count_like_own_batches(rows, monkeypatch, variance):
    model = alone(Stock())
    own, others = rows[:40], rows[40:]
    sent = numbers_of(monkeypatch, model, others, variance=variance)
    shares_of(monkeypatch, sent)
    report = estimate(model, own, variance=variance)
    oracle = averaged_statistics if variance == "paper" else pooled_statistics
    wanted = oracle([rows[:32], rows[32:40], others])
    assert_close(np.array(statistics(model)[0]), wanted)
    assert (report.batches, report.skipped_batches, report.samples) == (3, 0, 70)


def test_worker_with_nothing_but_empty_batches_gets_the_statistics_of_the_others(rows, monkeypatch):
    model = alone(Stock())
    shares_of(monkeypatch, numbers_of(monkeypatch, model, rows[:32]))
    estimate(model, Loader([rows[:0]]))
    assert_close(np.array(statistics(model)[0]), averaged_statistics([rows[:32]]))
