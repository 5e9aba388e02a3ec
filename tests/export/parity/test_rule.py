"""Errors, and what is made of them."""

import numpy as np
import pytest

from keras_bn.export.parity import rule
from keras_bn.export.parity.measure import (
    argmax_agreement,
    channel_errors,
    errors_of,
    scale_of,
    top5_agreement,
)

EPSILON = float(np.finfo(np.float32).eps)


def never():
    raise AssertionError("rounding was asked for")


def judged(truth, own, plain, optimised=None, rounded=never):
    return rule.compare(
        "y",
        "drawn",
        "CPUExecutionProvider",
        rule.Standard(truth, "float64", own, "Keras", EPSILON, rounded),
        (plain, plain if optimised is None else optimised),
    )


def test_errors_are_relative_to_the_largest_magnitude():
    truth = np.array([[1.0, -4.0], [2.0, 0.0]])
    found = np.array([[1.0, -3.6], [1.8, 0.0]])
    errors = errors_of(truth, found, scale_of(truth))
    assert errors.max == pytest.approx(0.1)
    assert errors.rms == pytest.approx(np.sqrt((0.1**2 + 0.05**2) / 4))
    assert errors.index == (0, 1)
    assert (errors.expected, errors.found) == (-4.0, pytest.approx(-3.6))
    assert errors.quantiles[0] == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("truth", "found", "wrong"),
    [
        ([1.0, np.nan], [1.0, np.nan], False),
        ([1.0, np.inf], [1.0, np.inf], False),
        ([1.0, np.inf], [1.0, -np.inf], True),
        ([1.0, np.nan], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0, np.nan], True),
        ([1.0, 2.0], [np.inf, 2.0], True),
        ([1.0, 2.0], [[1.0, 2.0]], True),
    ],
)
def test_nan_and_infinity_must_be_the_same(truth, found, wrong):
    errors = errors_of(np.array(truth), np.array(found), 1.0)
    assert errors.max == (np.inf if wrong else 0.0)


def test_place_of_a_value_that_is_not_finite_is_told():
    errors = errors_of(np.ones((2, 3)), np.array([[1, 1, 1], [1, np.nan, 1.0]]), 1.0)
    assert errors.index == (1, 1)
    assert np.isnan(errors.found)


def test_tolerance_is_a_multiple_of_keras_error_and_a_floor(rng):
    truth = rng.normal(size=(100, 5))
    scale = scale_of(truth)
    own = truth + 1e-5 * scale
    limit = rule.MULTIPLE * 1e-5 + rule.FLOOR * EPSILON
    off = np.zeros_like(truth)
    off[7, 2] = scale
    assert judged(truth, own, truth + 0.99 * limit * off).passed
    row = judged(truth, own, truth + 1.01 * limit * off, rounded=list)
    assert not row.passed
    assert row.worst.index == (7, 2)
    assert row.tolerance == pytest.approx(limit)


def test_error_of_all_values_is_found_that_none_by_itself_would_show(rng):
    truth = rng.normal(size=(100, 5))
    scale = scale_of(truth)
    row = judged(truth, truth, truth + 8 * EPSILON * scale, rounded=list)
    assert row.worst.max < row.tolerance
    assert not row.passed
    assert "root mean square" in str(row)


def test_rounding_is_asked_for_only_if_keras_does_not_explain_the_error(rng):
    truth = rng.normal(size=(100, 5))
    off = 1e-4 * scale_of(truth)
    assert judged(truth, truth + off, truth - off).passed
    assert judged(truth, truth, truth - off, rounded=lambda: [truth + off]).passed
    assert not judged(truth, truth, truth - 9 * off, rounded=lambda: [truth + off]).passed
    assert not judged(truth, truth, truth * np.nan).passed


def test_either_level_of_optimisation_counts(rng):
    truth = rng.normal(size=(10, 5))
    row = judged(truth, truth, truth, truth + 1.0, rounded=list)
    assert not row.passed
    assert row.worst is row.optimised
    assert row.difference == pytest.approx(1.0 / scale_of(truth))


def test_reference_that_is_not_float64_has_a_constant_tolerance():
    truth = np.ones((10, 5))
    row = rule.compare(
        "y",
        "drawn",
        "CPUExecutionProvider",
        rule.Standard(truth, "Keras itself; no float64", truth, "Keras", EPSILON, never),
        (truth * (1 + 100 * EPSILON), truth),
    )
    assert row.tolerance == rule.FALLBACK * EPSILON
    assert not row.passed  # every value is off, and the root mean square too


def test_channel_errors_are_relative_to_each_channel():
    truth = np.array([[1e6, 1.0], [2e6, 2.0]])
    found = np.array([[1e6, 1.2], [2e6 + 2, 2.0]])
    assert channel_errors(truth, found) == pytest.approx([1e-6, 0.1])


def test_agreement_counts_ties_within_the_tolerance():
    truth = np.array([[0.1, 0.9, 0.0], [0.5, 0.5 + 1e-9, 0.0], [0.0, 0.2, 0.8]])
    found = np.array([[0.1, 0.9, 0.0], [0.5 + 1e-9, 0.5, 0.0], [0.8, 0.2, 0.0]])
    assert argmax_agreement(truth, found, 1e-8) == pytest.approx(2 / 3)
    assert argmax_agreement(truth, found, 0.0) == pytest.approx(1 / 3)


def test_agreement_of_the_five_largest(rng):
    truth = np.arange(12.0).reshape(1, 12)
    assert top5_agreement(truth, truth, 0.0) == 1.0
    swapped = truth.copy()
    swapped[0, [0, 11]] = swapped[0, [11, 0]]
    assert top5_agreement(truth, swapped, 0.0) == 0.0
    assert top5_agreement(truth[:, :4], truth[:, :4], 0.0) is None
    assert argmax_agreement(rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4)), 0.0) is None
