"""What is drawn suits what reads it."""

import re

import keras
import numpy as np
import pytest

from keras_bn.export import ExportError
from keras_bn.export.parity.samples.distributions import distributions_of
from keras_bn.export.parity.samples.samples import draw
from keras_bn.export.signature import signature_of


def drawn(model, case="drawn", **options):
    """Return all values drawn for each input in one kind of batches."""
    batches, _, _ = draw(model, signature_of(model), seed=0, **options)
    chosen = [batch.arrays for batch in batches if batch.case == case]
    return [np.concatenate([a.reshape(-1) for a in column]) for column in zip(*chosen, strict=True)]


def of_layer(layer, shape=(64,), dtype="float32"):
    x = keras.Input(shape, dtype=dtype, name="x")
    return keras.Model(x, layer(x))


def whys(model):
    signature = signature_of(model)
    return [d.why for d in distributions_of(model, signature.specs, {})]


def test_embedding_gets_every_index_that_it_has():
    (values,) = drawn(of_layer(keras.layers.Embedding(7, 3), dtype="int32"))
    assert values.dtype == np.int32
    assert set(values) == set(range(7))


def test_smallest_of_several_tables_counts():
    x = keras.Input((64,), dtype="int32", name="x")
    tables = [keras.layers.Embedding(n, 3)(x) for n in (9, 4, 6)]
    (values,) = drawn(keras.Model(x, keras.layers.Add()(tables)))
    assert set(values) == set(range(4))


def test_rescaling_gets_pixels():
    model = of_layer(keras.layers.Rescaling(1 / 255))
    (values,) = drawn(model)
    assert values.min() >= 0
    assert 200 < values.max() <= 255
    assert np.array_equal(values, np.round(values))
    assert "as pixels are" in whys(model)[0]


def test_normalization_gets_what_it_was_adapted_to():
    layer = keras.layers.Normalization(mean=[100.0, -3.0], variance=[25.0, 0.01])
    x = keras.Input((40, 2), name="x")
    batches, _, _ = draw(model := keras.Model(x, layer(x)), signature_of(model), seed=0)
    values = np.concatenate([b.arrays[0].reshape(-1, 2) for b in batches if b.case == "drawn"])
    np.testing.assert_allclose(values.mean(0), [100, -3], atol=1.5)
    np.testing.assert_allclose(values.std(0), [5, 0.1], rtol=0.2)


def test_inputs_of_nested_models_are_looked_through():
    inner_input = keras.Input((64,), dtype="int32")
    inner = keras.Model(inner_input, keras.layers.Embedding(5, 2)(inner_input))
    x = keras.Input((64,), dtype="int32", name="x")
    outer = keras.Sequential([keras.Input((64,), dtype="int32"), inner])
    for model in (keras.Model(x, inner(x)), outer):
        assert set(drawn(model)[0]) == set(range(5))


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bool", {False, True}), ("int64", {0, 1}), ("uint8", set(range(256)))]
)
def test_dtype_alone_says_what_may_be(dtype, expected):
    model = of_layer(keras.layers.Lambda(lambda x: keras.ops.cast(x, "float32")), (4096,), dtype)
    (values,) = drawn(model)
    assert set(values.tolist()) == expected


@pytest.mark.parametrize(
    ("shape", "before"),
    [
        ((12,), keras.layers.Reshape((2, 3, 2))),
        ((2, 4, 5), keras.layers.Permute((2, 3, 1))),
        ((4, 6), lambda x: x[..., :2]),
    ],
    ids=["reshaped", "transposed", "sliced"],
)
def test_normalization_of_other_axes_gives_one_mean_and_deviation(shape, before):
    x = keras.Input(shape)
    layer = keras.layers.Normalization(mean=[90.0, 110.0], variance=[4.0, 4.0])
    (values,) = drawn(keras.Model(x, layer(before(x))))
    assert abs(values.mean() - 100) < 5
    assert 7 < values.std() < 14  # the root of 4 + 100


def test_stated_range_is_kept():
    model = of_layer(keras.layers.Dense(2))
    (values,) = drawn(model, ranges={"x": (2.0, 3.0)})
    assert 2.0 <= values.min() < 2.1 < 2.9 < values.max() <= 3.0
    whole = of_layer(keras.layers.Embedding(50, 2), dtype="int32")
    assert set(drawn(whole, ranges={"x": (10, 12)})[0]) == {10, 11, 12}


def test_inputs_of_a_signature_are_read_by_their_names():
    z, a = (keras.Input((4,), name=name, dtype="int32") for name in "za")
    tables = keras.layers.Embedding(50, 2)(z), keras.layers.Embedding(3, 2)(a)
    model = keras.Model([z, a], keras.layers.Add()(tables))
    spec = keras.InputSpec(shape=(None, 4), dtype="int32")
    _, drawn, _ = draw(model, signature_of(model, [{"z": spec, "a": spec}]), seed=0)
    assert "0 to 49" in drawn["z"]
    assert "0 to 2" in drawn["a"]


def test_constant_samples_of_two_inputs_are_not_the_same():
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    batches, _, _ = draw(model := keras.Model([x, y], x - y), signature_of(model), seed=0)
    left, right = next(batch.arrays for batch in batches if batch.case == "constant")
    assert np.all(left != right)


def test_constant_samples_are_constant_and_reach_the_ends():
    model = of_layer(keras.layers.Rescaling(1 / 255))
    (values,) = drawn(model, "constant")
    assert [set(row) for row in values.reshape(-1, 64)] == [{0.0}, {255.0}]
    floats = of_layer(keras.layers.Dense(2))
    assert [set(row) for row in drawn(floats, "constant")[0].reshape(-1, 64)] == [{0.0}, {1.0}]


def test_values_out_of_range_are_far_out_but_indices_are_not():
    model = of_layer(keras.layers.Rescaling(1 / 255))
    (values,) = drawn(model, "out of range")
    assert values.min() < -255
    assert values.max() > 510
    table = of_layer(keras.layers.Embedding(7, 3), dtype="int32")
    batches, _, _ = draw(table, signature_of(table), seed=0)
    assert "out of range" not in {batch.case for batch in batches}


def test_seed_decides():
    model = of_layer(keras.layers.Dense(2))
    signature = signature_of(model)
    first, same, other = (draw(model, signature, seed=s)[0][0].arrays[0] for s in (0, 0, 1))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", [-1, 0.5, "0"])
def test_seed_that_is_none_is_refused(seed):
    model = of_layer(keras.layers.Dense(2))
    with pytest.raises(ExportError, match=re.escape(f"Received: {seed!r}")):
        draw(model, signature_of(model), seed=seed)


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (0, np.inf), (0,), "ab", None, (0, "x")])
def test_range_that_is_none_is_refused(limits):
    model = of_layer(keras.layers.Dense(2))
    with pytest.raises(ExportError, match="two finite numbers, the smaller first"):
        draw(model, signature_of(model), seed=0, ranges={"x": limits})


def test_range_of_no_input_is_refused():
    model = of_layer(keras.layers.Dense(2))
    with pytest.raises(ExportError, match=re.escape("['x']. Received: 'image'")):
        draw(model, signature_of(model), seed=0, ranges={"image": (0, 1)})
