from __future__ import annotations

import numpy as np
import pytest

from edgekd.timing import LEAST_FLOOR, Change, change, median_interval, p99, quantile, thinned


@pytest.mark.parametrize("percent", [0, 10, 50, 90, 95, 100])
def test_quantiles_are_numpys(percent):
    samples = np.random.default_rng(0).integers(1, 10**6, 997)
    assert quantile(samples, percent) == np.percentile(samples, percent)


def test_p99_needs_a_thousand_samples():
    assert p99(np.arange(999)) is None
    assert p99(np.arange(1001)) == 990


def test_interval_of_five_constant_processes_is_that_of_the_binomial():
    # The pooled median of five draws from {1..5} is 1 when three draws are: P(B(5, 1/5) >= 3) = 0.058, which is more
    # than 2.5 % and less than 10 %; it is 2 or less with P(B(5, 2/5) >= 3) = 0.317. Symmetric at the other end.
    processes = [np.full(7, value) for value in (1, 2, 3, 4, 5)]
    assert median_interval(processes) == (1, 5)
    assert median_interval(processes, confidence=0.8) == (2, 4)


def test_the_process_is_resampled_and_not_the_sample():
    slow, fast = np.full(10_000, 20), np.full(10_000, 10)
    assert median_interval([slow, fast]) == (10, 20)  # resampling 20,000 samples one by one, 15 has half the draws
    assert median_interval([fast, fast, fast]) == (10, 10)


def test_interval_contains_the_median_and_repeats():
    rng = np.random.default_rng(1)
    processes = [rng.normal(1e6 + 1e4 * k, 1e4, 300).astype(np.int64) for k in range(5)]
    low, high = median_interval(processes)
    assert low < np.median(np.concatenate(processes)) < high
    assert (low, high) == median_interval(processes)


def test_one_process_tells_nothing_about_the_spread():
    assert median_interval([np.arange(100)]) is None


@pytest.mark.parametrize(("count", "kept"), [(10, 10), (11, 6), (1000, 10), (3, 3)])
def test_thinning_keeps_at_most_the_limit_and_spans_the_run(count, kept):
    samples = thinned(np.arange(count), 10)
    assert len(samples) == kept
    assert samples[0] == 0
    assert samples[-1] >= 0.8 * (count - 1)


def processes(centre, rng, count=5, spread=0.003):
    return [rng.normal(centre * rng.normal(1, spread), centre * 0.01, 200).astype(np.int64) for _ in range(count)]


@pytest.mark.parametrize(("factor", "verdict"), [(1.2, "regressed"), (1.0, "ok"), (0.8, "improved")])
def test_a_clear_change_is_called_by_its_name(factor, verdict):
    rng = np.random.default_rng(0)
    found = change(processes(factor * 1e6, rng), processes(1e6, rng))
    assert found.low < factor * 1.01
    assert found.high > factor * 0.99
    assert found.verdict(1.05) == verdict


def test_an_interval_across_the_limit_is_inconclusive():
    assert Change(1.06, 1.02, 1.10).verdict(1.05) == "inconclusive"
    assert Change(1.06, 1.0501, 1.10).verdict(1.05) == "regressed"
    assert Change(1.02, 1.0, 1.05).verdict(1.05) == "ok"
    assert Change(2.0).verdict(1.05) == "inconclusive"  # a single process


def test_what_slows_both_of_a_pair_falls_out():
    moments = [10, 20, 30, 40, 50]
    then, now = ([np.full(9, 1000 * m * f) for m in moments] for f in (1, 2))
    assert change(now, then, paired=True) == Change(2, 2, 2)
    unpaired = change(now, then)
    assert unpaired.low < 1
    assert unpaired.high > 3


def test_the_floor_is_as_far_as_an_a_a_run_reaches_but_never_too_low():
    assert Change(1.001, 0.999, 1.002).floor() == LEAST_FLOOR
    assert Change(1.0, 0.96, 1.01).floor() == pytest.approx(1 / 0.96 - 1)
    assert Change(1.1).floor() == pytest.approx(0.1)


def test_false_alarms_are_rare_and_a_tenth_is_found():
    rng = np.random.default_rng(7)
    verdicts = {
        f: [change(processes(f * 1e6, rng), processes(1e6, rng)).verdict(1.02) for _ in range(60)] for f in (1, 1.1)
    }
    assert "regressed" not in verdicts[1]
    assert verdicts[1.1].count("regressed") == 60
