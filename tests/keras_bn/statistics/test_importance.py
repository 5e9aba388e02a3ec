"""Importance weights against Gaussians whose density ratio is known in closed form."""

import json
import random
import re
import sys

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.statistics.importance import ImportanceWeights, importance_weights
from tests.tolerances import assert_close

SHIFTED = {"source": np.arange(12.0), "target": np.arange(6.0, 18.0)}


def log_ratio(x, source, target):
    """Return log P_T(x) / P_S(x) of Gaussians with (mean, standard deviation), shape (N,)."""
    (m, s), (n, t) = source, target
    return (((x - m) / s) ** 2 / 2 - ((x - n) / t) ** 2 / 2 + np.log(s / t)).sum(1)


def weights_of(log_ratios):
    """Return the ratios divided by their mean."""
    ratios = np.exp(log_ratios)
    return ratios / ratios.mean()


def rms_log_error(weights, expected):
    return np.sqrt(np.mean(np.log(weights / expected) ** 2))


def with_squares(x):
    return np.concatenate([x, x**2], axis=1)


def least_squares(x, y, weights=None):
    """Return slope and intercept of the weighted least squares line."""
    root = np.sqrt(np.ones(len(x)) if weights is None else np.float64(weights))[:, None]
    return np.linalg.lstsq(root * np.c_[x, np.ones(len(x))], root[:, 0] * y)[0]


# Over 20 seeds, the RMS error of log w with 2000 + 2000 samples was 0.04 (1-D) and 0.08 (3-D) on
# average, 0.11 and 0.18 at worst; the correlation 0.997 or more on average.
@pytest.mark.parametrize("dimensions", [1, 3])
@pytest.mark.parametrize("targets", [500, 2000, 8000])
def test_weights_are_the_closed_form_of_a_mean_shift(rng, dimensions, targets):
    mean = np.full(dimensions, dimensions**-0.5)  # one standard deviation away
    source = rng.normal(0.0, 1.0, (2000, dimensions))
    found = importance_weights(source, rng.normal(mean, 1.0, (targets, dimensions)), clip=1e6)
    expected = weights_of(log_ratio(source, (0.0, 1.0), (mean, 1.0)))
    assert rms_log_error(found.weights, expected) < 0.1
    assert np.corrcoef(found.weights, expected)[0, 1] > 0.995
    assert found.held_out_auc == pytest.approx(0.7602, abs=0.025)  # Phi(1 / sqrt(2))


# Over 20 seeds: 0.09 on average and 0.18 at worst with squares; 1.26 at best without.
def test_unequal_variances_need_a_quadratic_feature(rng):
    source, target = rng.normal(0.0, 1.5, (2000, 1)), rng.normal(0.5, 0.9, (2000, 1))
    expected = weights_of(log_ratio(source, (0.0, 1.5), (0.5, 0.9)))
    linear = importance_weights(source, target).weights
    quadratic = importance_weights(source, target, features=with_squares).weights
    assert rms_log_error(quadratic, expected) < 0.15
    assert np.corrcoef(quadratic, expected)[0, 1] > 0.999
    assert rms_log_error(linear, expected) > 1.0
    assert np.corrcoef(linear, expected)[0, 1] < 0.5


def test_weighted_source_has_the_mean_and_variance_of_the_target(rng):
    source = rng.normal([0.0, 5.0], [1.5, 2.0], (4000, 2))
    target = rng.normal([0.5, 6.0], [1.0, 1.5], (4000, 2))
    w = importance_weights(source, target, features=with_squares).weights
    mean = np.average(source, axis=0, weights=w)
    variance = np.average((source - mean) ** 2, axis=0, weights=w)
    np.testing.assert_allclose(mean, target.mean(0), atol=0.02)
    np.testing.assert_allclose(variance, target.var(0), rtol=0.03)


def test_no_shift_gives_weights_near_one(rng):
    found = importance_weights(rng.normal(size=(1000, 3)), rng.normal(size=(1000, 3)))
    assert np.sqrt(np.mean((found.weights - 1.0) ** 2)) < 0.15
    assert found.effective_sample_size > 970.0
    assert found.held_out_auc == pytest.approx(0.5, abs=0.05)
    assert not found.barely_overlap


def test_as_many_dimensions_as_samples_do_not_overfit(rng):
    """Without a penalty a regression would tell these apart without an error."""
    found = importance_weights(rng.normal(size=(100, 200)), rng.normal(size=(100, 200)))
    assert found.effective_sample_size > 95.0
    assert found.held_out_auc == pytest.approx(0.5, abs=0.15)


def test_mean_is_one_and_same_inputs_give_same_weights(rng):
    source, target = rng.normal(size=(500, 2)), rng.normal(0.7, 1.0, (300, 2))
    found, again = importance_weights(source, target), importance_weights(source, target)
    assert found.weights.shape == (500,)
    assert found.weights.dtype == np.float32
    assert abs(found.weights.mean(dtype=np.float64) - 1.0) < 1e-6
    w = np.float64(found.weights)
    assert found.effective_sample_size == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-6)
    np.testing.assert_array_equal(found.weights, again.weights)


def test_units_of_the_values_do_not_matter(rng):
    source, target = rng.normal(size=(500, 2)), rng.normal(0.7, 1.0, (300, 2))
    expected = importance_weights(source, target).weights
    rescaled = (x * [1e-6, 1e6] + [0.0, 1e7] for x in (source, target))
    np.testing.assert_allclose(importance_weights(*rescaled).weights, expected, rtol=1e-3)


def test_ratios_above_clip_are_counted_and_share_the_largest_weight(rng):
    source, target = rng.normal(size=(1000, 1)), rng.normal(1.5, 1.0, (1000, 1))
    free, clipped = (importance_weights(source, target, clip=c) for c in (1e6, 3.0))
    ratios = np.exp(np.log(free.weights) - np.log(free.weights).mean())
    assert free.clipped == 0
    largest = np.isclose(clipped.weights, clipped.weights.max())
    assert clipped.clipped == largest.sum() > 50
    assert ratios[largest].min() > ratios[~largest].max()
    assert clipped.effective_sample_size > free.effective_sample_size
    kept = clipped.weights[~largest] / free.weights[~largest]
    assert_close(kept, np.full(kept.shape, kept[0]))


@pytest.mark.parametrize("targets", [250, 4000])
def test_clip_applies_to_the_ratio_whatever_the_sizes_of_the_samples(rng, targets):
    source, target = rng.normal(size=(1000, 1)), rng.normal(1.0, 1.0, (targets, 1))
    expected = (log_ratio(source, (0.0, 1.0), (1.0, 1.0)) > np.log(2.0)).sum()
    found = importance_weights(source, target, clip=2.0)
    assert found.clipped == pytest.approx(expected, rel=0.25)


def test_samples_apart_are_said_to_be(rng):
    source = rng.normal(size=(50, 3))
    found = importance_weights(source, source + 1e4)
    assert np.isfinite(found.weights).all()
    assert found.weights.mean(dtype=np.float64) == pytest.approx(1.0, abs=1e-6)
    assert found.held_out_auc == 1.0
    assert found.barely_overlap
    assert "They barely overlap: weighting cannot help" in str(found)


def test_report_says_it_in_words_and_as_data():
    found = ImportanceWeights(np.ones(500, np.float32), 312.4, 3, 20.0, 0.71)
    assert str(found) == (
        "500 weights, effective sample size 312.4 (62 %), 3 clipped at 20; "
        "the samples are told apart with AUC 0.71"
    )
    assert json.loads(json.dumps(found.to_dict())) == {
        "samples": 500,
        "effective_sample_size": 312.4,
        "clipped": 3,
        "clip": 20.0,
        "held_out_auc": 0.71,
        "barely_overlap": False,
    }


def test_few_samples_left_are_said_to_be_too_few():
    found = ImportanceWeights(np.ones(500, np.float32), 24.0, 3, 20.0, 0.71)
    assert "They barely overlap" in str(found)


def test_images_are_weighted_by_what_a_model_sees(rng):
    """The target is brighter; a model that averages pixels sees just that."""
    brightness = rng.normal([[90.0], [110.0]], 20.0, (2, 300))
    images = rng.normal(brightness[..., None, None, None], 5.0, (2, 300, 4, 4, 3))
    source, target = np.clip(images, 0, 255).astype(np.uint8)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(0.9),  # off in inference
        ]
    )
    found = importance_weights(source, target, features=model, batch_size=64)
    expected = weights_of(log_ratio(brightness[0][:, None], (90.0, 20.0), (110.0, 20.0)))
    assert np.corrcoef(found.weights, expected)[0, 1] > 0.98
    by_function = importance_weights(source, target, features=lambda x: x.mean((1, 2)) / 255)
    np.testing.assert_allclose(found.weights, by_function.weights, rtol=1e-3)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int64", "bool", "float16", "float64", ml_dtypes.bfloat16]
)
def test_any_real_dtype_and_shape_is_taken(rng, dtype):
    source, target = rng.integers(0, 2, (2, 40, 3, 2)).astype(dtype)
    flat = [x.reshape(40, 6).astype(np.float32) for x in (source, target)]
    assert_close(importance_weights(source, target).weights, importance_weights(*flat).weights)


def test_functions_may_return_tensors():
    found = importance_weights(**SHIFTED, features=lambda x: tf.constant(x[:, None]))
    np.testing.assert_array_equal(found.weights, importance_weights(**SHIFTED).weights)


def test_weighted_fit_of_a_wrong_model_moves_to_the_solution_of_the_target(rng):
    """A line through a parabola: which one depends on where the samples lie."""
    source = rng.normal(-0.5, 1.0, (4000, 1)).astype(np.float32)
    target = rng.normal(0.5, 0.7, (4000, 1)).astype(np.float32)
    y = source[:, 0] ** 2 + rng.normal(0.0, 0.1, 4000).astype(np.float32)
    w = importance_weights(source, target, features=with_squares).weights
    fitted = {}
    for name, weights in (("weighted", w), ("plain", None)):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.5), "mse")
        model.fit(source, y, sample_weight=weights, batch_size=4000, epochs=25, verbose=0)
        fitted[name] = np.concatenate([v.numpy().ravel() for v in model.weights])
        np.testing.assert_allclose(fitted[name], least_squares(source, y, weights), atol=1e-4)
    best = 2 * 0.5, 0.7**2 - 0.5**2  # slope and intercept of least squares under the target
    np.testing.assert_allclose(fitted["weighted"], best, atol=0.1)  # 0.03 on average of 20 seeds
    assert np.abs(fitted["plain"] - best).max() > 1.5


def test_weighted_batch_norm_has_the_statistics_of_the_target(rng):
    source = rng.normal([0.0, 5.0], [1.5, 2.0], (4000, 2)).astype(np.float32)
    target = rng.normal([0.5, 6.0], [1.0, 1.5], (4000, 2)).astype(np.float32)
    found = importance_weights(source, target, features=with_squares)
    layer = BatchNormalization(momentum=0.0)
    layer(source, training=True, sample_weight=found.weights)
    np.testing.assert_allclose(layer.moving_mean, target.mean(0), atol=0.02)
    np.testing.assert_allclose(layer.moving_variance, target.var(0), rtol=0.03)


def test_random_state_stays_as_it_was():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)])

    def draws():
        return random.random(), np.random.rand(), tf.random.uniform(()), keras.random.uniform(())  # noqa: NPY002, S311

    keras.utils.set_random_seed(1)
    expected = draws()
    keras.utils.set_random_seed(1)
    importance_weights(**{k: v[:, None] for k, v in SHIFTED.items()}, features=model)
    np.testing.assert_array_equal(draws(), expected)


def test_missing_scikit_learn_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'keras-bn[importance]'")):
        importance_weights(**SHIFTED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"source": []}, "`source` must have at least 10 samples", id="empty"),
        pytest.param({"target": np.ones((9, 2))}, "Received: shape=(9, 2)", id="too few"),
        pytest.param({"source": 3.0}, "Received: shape=()", id="no samples"),
        pytest.param({"target": np.ones((12, 2))}, "source=(12,), target=(12, 2)", id="shapes"),
        pytest.param({"source": np.ones((12, 0))}, "`source` must hold values", id="no values"),
        pytest.param({"target": [np.nan] * 2 + [1] * 9}, "nonfinite=2", id="nan"),
        pytest.param({"source": [np.inf] + [1] * 9}, "`source` must hold finite", id="inf"),
        pytest.param({"clip": 1.0}, "`clip` must be finite and > 1. Received: clip=1.0.", id="1"),
        pytest.param({"clip": np.nan}, "Received: clip=nan.", id="clip nan"),
        pytest.param({"clip": np.inf}, "Received: clip=inf.", id="clip inf"),
        pytest.param({"batch_size": 0}, "Received: batch_size=0.", id="batch size"),
    ],
)
def test_samples_and_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=r"^importance_weights: ") as error:
        importance_weights(**{**SHIFTED, **options})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        pytest.param(lambda x: x[1:], ValueError, "samples=12, returned=(11,)", id="rows"),
        pytest.param(np.mean, ValueError, "samples=12, returned=()", id="a number"),
        pytest.param(lambda x: x / np.inf / 0, ValueError, "return finite values", id="nan"),
        pytest.param(
            lambda x: np.ones((len(x), int(x[0]) + 1)),
            ValueError,
            "`features(target)` must have the source's shape beyond N",
            id="shapes",
        ),
        pytest.param(lambda x: [x, x], TypeError, "return one array", id="two outputs"),
        pytest.param(lambda x: x.astype(str), TypeError, "return real numbers", id="text"),
        pytest.param("mean", TypeError, "Received: features=str.", id="neither"),
    ],
)
def test_features_that_cannot_be_used_are_refused(features, error, message):
    with np.errstate(invalid="ignore"), pytest.raises(error, match=r"^importance_weights: ") as e:
        importance_weights(**SHIFTED, features=features)
    assert message in str(e.value)


def test_dataset_is_refused(rng):
    dataset = tf.data.Dataset.from_tensor_slices(rng.normal(size=(20, 2)))
    with pytest.raises(TypeError, match=re.escape("`source` must be an array of numbers")):
        importance_weights(dataset, dataset)
