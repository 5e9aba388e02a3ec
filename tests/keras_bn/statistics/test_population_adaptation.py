"""Adaptation to a new domain, and the reports of both functions."""

import json
import re

import numpy as np
import pytest

from keras_bn import BatchNormalization
from keras_bn.statistics.movement import MEANING
from keras_bn.statistics.population import adapt_statistics, estimate_population_statistics
from tests.networks import (
    alone,
    bits,
    convolutional,
    dense,
    drifting_rows,
    kernels,
    norms,
    statistics,
)
from tests.oracles import pooled_statistics
from tests.tolerances import assert_close


@pytest.fixture
def rows(rng):
    return drifting_rows(rng)


@pytest.fixture
def model(randomised):
    model = randomised(dense())
    model.run_eagerly = True
    return model


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 1])
@pytest.mark.parametrize("variance", ["paper", "pooled"])
def test_adaptation_blends_linearly(model, rows, strength, variance):
    before = np.array(statistics(model))
    report = estimate_population_statistics(model, rows, variance=variance, verbose=0)
    found = np.array(statistics(model))
    report.undo()
    adapt_statistics(model, rows, strength=strength, variance=variance, verbose=0)
    adapted = np.array(statistics(model))
    assert_close(adapted, (1 - strength) * before + strength * found)
    if strength in (0, 1):
        np.testing.assert_array_equal(adapted, (before, found)[int(strength)])


def test_adaptation_pools_unless_told_otherwise(model, rows):
    report = estimate_population_statistics(model, rows, variance="pooled", verbose=0)
    found = bits(model)
    report.undo()
    adapt_statistics(model, rows, verbose=0)
    assert bits(model) == found


def test_sequential_adaptation_runs_on_blended_statistics(model, rows):
    first = norms(model)[0]
    old = statistics(model)
    adapt_statistics(model, rows, strength=0.3, sequential=True, verbose=0)
    x, wanted = np.float64(rows), []
    for kernel, before in zip(kernels(model), old, strict=True):
        x = x @ kernel
        found = pooled_statistics([x])
        wanted.append([0.7 * a + 0.3 * b for a, b in zip(before, found, strict=True)])
        normal = (x - wanted[-1][0]) / np.sqrt(wanted[-1][1] + first.epsilon)
        x = np.maximum(first.gamma.numpy() * normal + first.beta.numpy(), 0)
    assert_close(statistics(model), wanted)


@pytest.mark.parametrize("options", [{"momentum": None}, {"renorm": True}, {}], ids=str)
def test_adaptation_of_strength_zero_changes_no_bit(rows, options):
    model = alone(BatchNormalization(**options))
    model(rows, training=True)
    before = bits(model)
    adapt_statistics(model, rows, strength=0.0, verbose=0)
    assert bits(model) == before


@pytest.mark.parametrize("strength", [float("nan"), -0.1, 1.1, float("inf")])
def test_adaptation_strength_out_of_range_is_refused(model, rows, strength):
    with pytest.raises(ValueError, match=re.escape(f"Received: strength={strength}")):
        adapt_statistics(model, rows, strength=strength)


def test_movement_is_measured_in_old_deviations(model, rows):
    old_mean, old_variance = statistics(model)[0]
    movement = estimate_population_statistics(model, rows, verbose=0).layers[0]
    mean, variance = statistics(model)[0]
    assert movement.layer == norms(model)[0].path
    assert_close(movement.mean_shift, (mean - old_mean) / np.sqrt(old_variance + 1e-3))
    assert_close(
        movement.log_variance_ratio, np.log((variance + 1e-3) / (old_variance + 1e-3)), 1e-4
    )


def test_values_count_the_positions(rng):
    model = convolutional()
    x = rng.normal(size=(70, 6, 6, 2)).astype(np.float32)
    report = estimate_population_statistics(model, x, verbose=0)
    assert [layer.values for layer in report.layers] == [70 * 25, 70 * 16]


def test_report_is_json_and_a_line_for_each_layer(randomised, rows):
    model = randomised(dense(depth=3))
    frozen, *others = norms(model)
    frozen.trainable = False
    report = estimate_population_statistics(model, rows, verbose=0)
    again = json.loads(json.dumps(report.to_dict()))
    assert [layer["layer"] for layer in again["layers"]] == [bn.path for bn in others]
    assert again["layers"][0]["mean_shift"] == report.layers[0].mean_shift.tolist()
    assert again["unchanged"] == {frozen.path: "it is frozen (`trainable=False`)"}
    assert (again["batches"], again["skipped_batches"], again["samples"]) == (3, 0, 70)
    head, names, *lines = str(report).splitlines()
    assert head.startswith("2 layers have new statistics, 1 left alone; 70 samples in 3 batches")
    assert names.split() == "layer |mean| moved at most ln variance ratio |ln| at most".split()
    meaning = [line.strip() for line in lines[2:-1]]
    assert [line.split()[0].rstrip(":") for line in lines if line.strip() not in meaning] == [
        *(bn.path for bn in others),
        frozen.path,
    ]
    assert meaning == list(MEANING)
    assert f"{np.abs(report.layers[0].mean_shift).max():.3f}" in lines[0]


def test_report_does_not_show_what_it_keeps_for_undo(model, rows):
    report = estimate_population_statistics(model, rows, verbose=0)
    assert "_before" not in repr(report)


def test_undo_restores_every_bit_and_may_be_repeated(model, rows):
    before = bits(model)
    first = adapt_statistics(model, rows, strength=0.3, verbose=0)
    adapted = bits(model)
    second = estimate_population_statistics(model, rows, verbose=0)
    second.undo()
    assert bits(model) == adapted
    first.undo()
    assert bits(model) == before
    first.undo()
    assert bits(model) == before


def test_progress_bar_is_shown_only_if_wanted(model, rows, capsys):
    estimate_population_statistics(model, rows, verbose=0)
    assert capsys.readouterr() == ("", "")
    estimate_population_statistics(model, rows, verbose=1)
    assert "3/3" in capsys.readouterr().out
    estimate_population_statistics(model, rows, sequential=True)
    assert "6/6" in capsys.readouterr().out
    estimate_population_statistics(model, iter([rows]))
    assert "1/Unknown" in capsys.readouterr().out
