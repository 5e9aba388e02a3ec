"""Replicas and workers end with the statistics of one process on all their batches, bit by bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_bn.statistics.population import estimate_population_statistics
from tests.keras_bn.statistics.population_replicas import Loader, data, model
from tests.keras_bn.test_synchronized import tasks
from tests.networks import norms
from tests.tolerances import FLOAT32, assert_close

ROOT = Path(__file__).parents[3]
SCRIPT = "tests.keras_bn.statistics.population_replicas"
SECONDS = 60
OPTIONS = pytest.mark.parametrize(
    "options",
    [
        pytest.param({"variance": "paper"}, id="paper"),
        pytest.param({"variance": "pooled"}, id="pooled"),
        pytest.param({"variance": "paper", "sequential": True}, id="paper, sequential"),
        pytest.param({"variance": "pooled", "sequential": True}, id="pooled, sequential"),
        pytest.param({"variance": "pooled", "weighted": True}, id="pooled, weighted"),
    ],
)


def run(folder, devices, kind, options, environments):
    """Run the script once for each environment, at the same time; return what they wrote."""
    outs = [folder / f"out{i}.npz" for i in range(len(environments))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", SCRIPT, str(out), devices, kind, json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        for out, environment in zip(outs, environments, strict=True)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, output
    finally:  # one that waits for a worker that failed
        for process in processes:
            process.kill()
            process.communicate()
    return [dict(np.load(out)) for out in outs]


def workers(folder, kind, options):
    environments = [{"TF_CONFIG": task} for task in tasks(2)]
    return run(folder, "worker", kind, options, environments)


class All:
    """The batches of several loaders, one after the other."""

    def __init__(self, *loaders):
        self.loaders = loaders

    def __iter__(self):
        for loader in self.loaders:
            yield from loader


def assert_everywhere(results, batches, options):
    """Compare the copies of all replicas with one process on all batches, and with each other."""
    network = model()
    report = estimate_population_statistics(network, batches, verbose=0, **options)
    variables = [v for bn in norms(network) for v in (bn.moving_mean, bn.moving_variance)]
    for result in results:
        assert str(result["error"]) == ""
        assert result["counts"][0] == report.batches
        assert result["counts"][2] == report.samples
        copies = {k: v for k, v in result.items() if k.startswith("after")}
        replicas = len(copies) // len(variables)
        for j, (name, copy) in enumerate(copies.items()):
            assert_close(copy, variables[j // replicas].numpy(), FLOAT32)
            first = name.rpartition(" ")[0] + " 0"
            np.testing.assert_array_equal(copy, results[0][first])
    return replicas


def assert_unchanged(result):
    for name, value in result.items():
        if name.startswith("before"):
            np.testing.assert_array_equal(value, result["after" + name.removeprefix("before")])


@pytest.mark.slow
@OPTIONS
def test_arrays_under_mirrored_strategy_equal_one_device(tmp_path, options):
    results = run(tmp_path, "mirrored", "arrays", options, [{}])
    assert assert_everywhere(results, Loader(*data(0)), options) == 2


@pytest.mark.slow
def test_undo_gives_every_replica_its_own_statistics_back(tmp_path):
    (result,) = run(tmp_path, "mirrored", "undo", {}, [{}])
    assert_unchanged(result)


class Parts:
    """The batches that the replicas of a distributed dataset have: halves, and an odd last one."""

    def __iter__(self):
        x, w = data(0)
        for i in (0, 16, 32, 48):
            yield x[i : i + 16], None, w[i : i + 16]
        yield x[64:65], None, w[64:65]


@pytest.mark.slow
@OPTIONS
def test_distributed_dataset_equals_its_parts_on_one_device(tmp_path, options):
    results = run(tmp_path, "mirrored", "distributed", options, [{}])
    assert assert_everywhere(results, Parts(), options) == 2
    assert results[0]["counts"][1] == 1  # the second replica's part of the last batch


@pytest.mark.slow
@OPTIONS
def test_two_workers_equal_one_device_on_the_batches_of_both(tmp_path, options):
    results = workers(tmp_path, "arrays", options)
    batches = All(Loader(*data(0)), Loader(*data(1)))
    assert assert_everywhere(results, batches, options) == 1


@pytest.mark.slow
@pytest.mark.parametrize("sequential", [False, True], ids=["at once", "sequential"])
def test_worker_without_samples_has_the_statistics_of_the_other(tmp_path, sequential):
    options = {"sequential": sequential}
    results = workers(tmp_path, "empty", options)
    assert_everywhere(results, Loader(*data(0)), options)


# Fails for "sequential, first batch": the others wait for ever.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("sequential", "at"),
    [
        pytest.param(False, 0, id="first batch"),
        pytest.param(False, 1, id="second batch"),
        pytest.param(True, 0, id="sequential, first batch"),
        pytest.param(True, 4, id="sequential, second pass"),
    ],
)
def test_worker_that_fails_makes_the_other_raise_and_nothing_changes(tmp_path, sequential, at):
    first, second = workers(tmp_path, f"fails {at}", {"sequential": sequential})
    assert str(second["error"]) == "OSError: the disk is gone"
    assert str(first["error"]).startswith("RuntimeError: estimate_population_statistics: every")
    assert "Received: an error on worker [1]" in str(first["error"])
    assert_unchanged(first)
    assert_unchanged(second)
