"""Every kind of data comes out as the batches that `keras.Model.fit` would make of it."""

import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn.statistics.batches import batch_size_of, batches, check_data, number_of_batches

X = np.arange(30.0, dtype=np.float32).reshape(10, 3)
Y = np.arange(10.0, dtype=np.float32)
W = Y + 0.5
CUTS = (slice(0, 4), slice(4, 8), slice(8, 10))


class Sequence(keras.utils.PyDataset):
    """Batches of X and Y, the last one smaller; or without end."""

    def __init__(self, infinite=False):
        super().__init__()
        self.infinite = infinite

    @property
    def num_batches(self):
        return None if self.infinite else len(CUTS)

    def __getitem__(self, i):
        return X[CUTS[i % 3]], Y[CUTS[i % 3]]


class Loader:
    """What has an `__iter__` and nothing else."""

    def __init__(self, *elements):
        self.elements = elements

    def __iter__(self):
        return iter(self.elements)


def dataset(infinite=False):
    whole = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    return whole.repeat() if infinite else whole


def taken(data, batch_size=4, steps=None):
    """Check data, then return its batches in NumPy."""
    check_data("f", data, batch_size=batch_size, steps=steps)
    found = list(batches("f", data, batch_size=batch_size, steps=steps))
    return [tf.nest.map_structure(lambda t: t if t is None else t.numpy(), b) for b in found]


def assert_batches(found, *expected):
    """Compare batches with the cuts of (inputs, targets, sample weights)."""
    assert len(found) == len(CUTS)
    for batch, cut in zip(found, CUTS, strict=True):
        wanted = tf.nest.map_structure(lambda a, c=cut: a if a is None else a[c], expected)
        tf.nest.assert_same_structure(batch, wanted)
        for one, other in zip(tf.nest.flatten(batch), tf.nest.flatten(wanted), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(X, (X, None, None), id="array"),
        pytest.param(tf.constant(X), (X, None, None), id="tensor"),
        pytest.param(tf.Variable(X), (X, None, None), id="variable"),
        pytest.param((X,), (X, None, None), id="tuple of one"),
        pytest.param((X, Y), (X, Y, None), id="x and y"),
        pytest.param((X, Y, W), (X, Y, W), id="x, y and weights"),
        pytest.param((X, None, W), (X, None, W), id="x and weights"),
        pytest.param({"a": X, "b": Y}, ({"a": X, "b": Y}, None, None), id="dict of inputs"),
        pytest.param(({"a": X}, {"b": Y}), ({"a": X}, {"b": Y}, None), id="dicts"),
        pytest.param([X, Y], ([X, Y], None, None), id="list of inputs"),
        pytest.param(([X, W], Y), ([X, W], Y, None), id="list of inputs and y"),
    ],
)
def test_arrays_are_cut_into_batches_the_last_one_smaller(data, expected):
    assert_batches(taken(data), *expected)


@pytest.mark.parametrize("batch_size", [10, 11, np.int64(32)])
def test_arrays_shorter_than_a_batch_are_one_batch(batch_size):
    assert [len(x) for x, _, _ in taken(X, batch_size)] == [10]


@pytest.mark.parametrize("kind", [list, tuple])
def test_elements_of_a_loader_are_unpacked_whether_tuple_or_list(kind):
    elements = [kind((X[cut], Y[cut], W[cut])) for cut in CUTS]
    assert_batches(taken(Loader(*elements)), X, Y, W)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(dataset, id="tf.data.Dataset"),
        pytest.param(Sequence, id="PyDataset"),
        pytest.param(lambda: ((X[cut], Y[cut]) for cut in CUTS), id="generator"),
        pytest.param(lambda: Loader(*((X[c], Y[c]) for c in CUTS)), id="loader"),
        pytest.param(lambda: [(X[cut], Y[cut]) for cut in CUTS], id="list of unequal batches"),
    ],
)
@pytest.mark.parametrize("batch_size", [4, 1])
def test_what_gives_batches_is_not_cut_again(data, batch_size):
    if isinstance(data(), list):
        with pytest.raises(ValueError, match=re.escape("Received: lengths [2, 4]")):
            taken(data(), batch_size)
    else:
        assert_batches(taken(data(), batch_size), X, Y, None)


def test_inputs_alone_may_come_from_a_loader():
    assert_batches(taken(Loader(*(X[cut] for cut in CUTS))), X, None, None)


@pytest.mark.parametrize("data", [X, dataset(), dataset(infinite=True), Sequence()])
def test_steps_take_the_first_batches(data):
    assert [len(x) for x, _, _ in taken(data, steps=2)] == [4, 4]


@pytest.mark.parametrize("data", [dataset(infinite=True), Sequence(infinite=True)])
def test_infinite_data_go_on_as_long_as_steps_say(data):
    assert [len(x) for x, _, _ in taken(data, steps=7)] == [4, 4, 2, 4, 4, 2, 4]


@pytest.mark.parametrize("data", [dataset(infinite=True), Sequence(infinite=True)])
def test_infinite_data_without_steps_are_refused(data):
    with pytest.raises(ValueError, match=re.escape("Received: steps=None")):
        check_data("f", data, batch_size=4, steps=None)


def test_generator_gives_no_more_than_was_asked_for():
    numbers = iter(range(100))
    endless = (X[:1] * i for i in numbers)
    assert len(taken(endless, steps=3)) == 3
    assert next(numbers) == 3


@pytest.mark.parametrize("data", [X, dataset(), Sequence(), Loader(X)])
def test_fewer_batches_than_steps_are_refused_when_they_end(data):
    message = f"Received: {1 if isinstance(data, Loader) else 3} batches"
    with pytest.raises(ValueError, match=re.escape(message)):
        taken(data, steps=4)


@pytest.mark.parametrize("data", [X[:0], [], (), Loader(), dataset().take(0), iter([])])
def test_empty_data_are_refused(data):
    with pytest.raises(ValueError, match=re.escape("Received: 0 batches")):
        taken(data)


def test_used_iterator_has_nothing_left():
    data = iter([X])
    taken(data)
    with pytest.raises(ValueError, match=re.escape("Received: 0 batches")):
        taken(data)


@pytest.mark.parametrize("data", [(X, Y[:9]), {"a": X, "b": Y[:9]}, (X, Y, W[:9]), [X, Y[:9]]])
def test_arrays_of_unequal_length_are_refused(data):
    with pytest.raises(ValueError, match=re.escape("f: `data` must be arrays of one length")):
        check_data("f", data, batch_size=4, steps=None)
    with pytest.raises(ValueError, match=re.escape("Received: lengths [9, 10]")):
        check_data("f", data, batch_size=4, steps=None)


@pytest.mark.parametrize("data", [3, None, "x.npz", object(), np.float32(1.0), [[1.0, 2.0]]])
def test_what_holds_no_batches_is_refused(data):
    with pytest.raises(TypeError, match=re.escape(f"Received: {type(data).__name__}")):
        check_data("f", data, batch_size=4, steps=None)


def test_array_without_samples_axis_is_refused():
    with pytest.raises(TypeError, match=re.escape("f: `data` must be arrays")):
        check_data("f", np.array(1.0), batch_size=4, steps=None)


@pytest.mark.parametrize("value", [0, -1, True, 2.5, "32", None])
def test_batch_size_other_than_a_positive_integer_is_refused(value):
    with pytest.raises(ValueError, match=re.escape(f"Received: batch_size={value!r}")):
        check_data("f", X, batch_size=value, steps=None)


@pytest.mark.parametrize("value", [0, -1, True, 2.5, "32"])
def test_steps_other_than_a_positive_integer_are_refused(value):
    with pytest.raises(ValueError, match=re.escape(f"Received: steps={value!r}")):
        check_data("f", X, batch_size=4, steps=value)


def test_iterator_is_refused_where_several_passes_are_needed():
    for data in ((x for x in [X]), iter(dataset())):
        with pytest.raises(ValueError, match=re.escape(f"Received: {type(data).__name__}")):
            check_data("f", data, batch_size=4, steps=None, passes=2)
    for data in (X, dataset(), Sequence(), Loader(X)):
        check_data("f", data, batch_size=4, steps=None, passes=2)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(X, 3, id="array"),
        pytest.param(X[:8], 2, id="whole batches"),
        pytest.param(({"a": X}, Y), 3, id="structure"),
        pytest.param(Sequence(), 3, id="PyDataset"),
        pytest.param(Sequence(infinite=True), None, id="infinite PyDataset"),
        pytest.param(dataset(), 3, id="dataset"),
        pytest.param(dataset(infinite=True), None, id="infinite dataset"),
        pytest.param(dataset().filter(lambda x, y: True), None, id="dataset of unknown length"),
        pytest.param(Loader(X), None, id="loader"),
        pytest.param(iter([X]), None, id="iterator"),
    ],
)
def test_number_of_batches_is_known_where_it_can_be(data, expected):
    assert number_of_batches(data, batch_size=4, steps=None) == expected
    assert number_of_batches(data, batch_size=4, steps=2) == 2


class Streaming(Loader):
    """Like a torch DataLoader of an IterableDataset, which has a `__len__` that raises."""

    def __len__(self):
        raise TypeError("object of type 'IterableDataset' has no len()")


def test_number_of_batches_is_unknown_where_len_raises():
    assert number_of_batches(Streaming(X), batch_size=4, steps=None) is None


@pytest.mark.parametrize("inputs", [X, {"a": X, "b": Y}, [X, Y], tf.constant(X)])
def test_batch_size_is_that_of_any_input(inputs):
    assert batch_size_of(inputs) == 10


DISTRIBUTED = """
import numpy as np, tensorflow as tf
from keras_bn.statistics.batches import batches, check_data, number_of_batches
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.arange(20, dtype=np.float32).reshape(10, 2)
data = tf.data.Dataset.from_tensor_slices((x, {"y": x[:, 0]}, x[:, 1])).batch(4)
data = strategy.experimental_distribute_dataset(data)
options = {"batch_size": 1, "steps": None}
check_data("f", data, passes=2, **options)
number_of_batches(data, **options)
for a, y, w in [*batches("f", data, **options), *batches("f", data, batch_size=1, steps=1)]:
    print(a.numpy()[:, 0].tolist(), y["y"].numpy().tolist(), (w.numpy() - 1).tolist())
"""


def test_distributed_dataset_gives_a_batch_for_each_replica():
    found = subprocess.run(
        [sys.executable, "-c", DISTRIBUTED],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert found.returncode == 0, found.stderr
    parts = [[0.0, 2.0], [4.0, 6.0], [8.0, 10.0], [12.0, 14.0], [16.0], [18.0]]
    lines = [" ".join(3 * [str(part)]) for part in [*parts, *parts[:2]]]
    assert found.stdout.splitlines() == lines
