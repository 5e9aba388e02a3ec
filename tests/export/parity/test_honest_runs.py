"""Honest exports raise no alarm."""

import pytest

from tests.export.parity.parity_trials import RANDOM, RUNS, SEEDS, honest


def test_enough_honest_runs():
    assert RUNS >= 260


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_honest_exports_raise_no_alarm(name):
    for report in honest(name):
        assert report.passed, str(report)


def test_honest_random_network_raises_no_alarm():
    reports = honest(RANDOM)
    for _ in range(8):
        report = next(reports)
        assert report.passed, str(report)
