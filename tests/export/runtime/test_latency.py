import time

import numpy as np
import pytest

from keras_bn.export.runtime import latency
from keras_bn.export.runtime.latency import alternate, measure_latency


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `pass_time` moves, in place of the machine's."""
    now = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])

    def pass_time(*seconds):
        durations = iter(seconds)
        last = seconds[-1]

        def function():
            now[0] += next(durations, last)

        return function

    return pass_time


def test_medians_quartiles_and_ratios_are_of_the_turns(clock):
    quick, slow = clock(0.001), clock(0.004)
    found = measure_latency({"slow": slow, "quick": quick}, batch_size=8, threads=2, seconds=1.0)
    assert (found.batch_size, found.threads) == (8, 2)
    assert found.turns == pytest.approx(1.0 / 0.005, abs=1)
    first, last = found.timings
    assert (first.name, last.name) == ("slow", "quick")
    assert (first.low, first.median, first.high) == pytest.approx((4.0, 4.0, 4.0))
    assert (first.ratio, last.ratio) == pytest.approx((4.0, 1.0))


def test_ratio_is_the_median_of_ratios_within_a_turn(clock, monkeypatch):
    monkeypatch.setattr(latency, "FEWEST", 3)
    still = [0.001] * (latency.WARM_UP + 1)
    a, b = clock(*still, 0.002, 0.030, 0.400), clock(*still, 0.001, 0.010, 0.100)
    found = measure_latency({"a": a, "b": b}, batch_size=1, threads=1, seconds=0.0)
    assert found.turns == 3
    assert found.timings[0].ratio == pytest.approx(3.0)
    assert found.timings[0].median == pytest.approx(30.0)


def test_warm_up_does_not_count(clock):
    compiling = clock(100.0, 0.001)
    found = measure_latency({"": compiling}, batch_size=1, threads=1, seconds=0.1)
    assert found.timings[0].high == pytest.approx(1.0)
    assert found.turns == pytest.approx(100, abs=1)


def test_every_turn_runs_all_in_an_order_of_its_own():
    ran = []
    functions = [lambda i=i: ran.append(i) for i in range(3)]
    assert alternate(functions, runs=20, warm_up=2).shape == (20, 3)
    turns = np.reshape(ran, (22, 3))
    assert (np.sort(turns) == [0, 1, 2]).all()
    assert len(np.unique(turns, axis=0)) > 3


def test_real_time_is_measured():
    found = measure_latency({"": lambda: time.sleep(0.002)}, batch_size=1, threads=1, seconds=0.02)
    assert 2.0 <= found.timings[0].low <= found.timings[0].median <= found.timings[0].high


def test_another_clock_counts():
    ticks = iter(range(100))
    seconds = alternate([lambda: None] * 2, runs=3, warm_up=0, clock=lambda: next(ticks))
    assert (seconds == 1).all()
