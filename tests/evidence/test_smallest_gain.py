"""The smallest gain that items can show: found in 80 % of simulated cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from lm_eval_clas.evidence.clusters import Clusters
from lm_eval_clas.evidence.paired_tests import average_interval, sign_flips
from lm_eval_clas.evidence.smallest_gain import (
    chance_of_interval,
    mean_interval,
    measured_error,
    planned_error,
    smallest_gain,
    smallest_of_interval,
)


def uneven(items: int, count: int, rng: np.random.Generator) -> Clusters:
    return Clusters.of([*range(count), *rng.integers(count, size=items - count).tolist()])


def drawn(clusters: Clusters, correlation: float, spread: float, rng: np.random.Generator) -> np.ndarray:
    common, own = rng.normal(size=clusters.count)[clusters.numbers], rng.normal(size=clusters.items)
    return spread * (math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own)


@pytest.mark.parametrize(("items", "count", "correlation"), [(120, 120, 0.0), (200, 40, 0.3), (60, 12, 0.2)])
def test_a_gain_of_this_size_is_found_in_four_of_five_cases(items: int, count: int, correlation: float) -> None:
    """Of 600 data sets, three standard errors are 5 %."""
    rng = np.random.default_rng(1)
    clusters = uneven(items, count, rng)
    gain = smallest_gain(planned_error(clusters, correlation, 0.2), clusters)
    assert gain is not None
    found = 0
    for trial in range(600):
        gains = gain + drawn(clusters, correlation, 0.2, rng)
        found += sign_flips(gains, np.zeros(items), clusters, resamples=399, seed=trial) < 0.05
    assert found / 600 == pytest.approx(0.8, abs=0.06)


def test_right_and_wrong_answers_vary_as_many_of_them_change() -> None:
    rng = np.random.default_rng(2)
    changed = rng.choice([1.0, -1.0, 0.0], size=200_000, p=[0.05, 0.05, 0.9])
    assert planned_error(Clusters.single(400), 0.0, math.sqrt(0.1)) == pytest.approx(changed.std() / 20, rel=0.01)


def test_planned_and_measured_errors_agree() -> None:
    rng = np.random.default_rng(3)
    clusters = uneven(300, 60, rng)
    measured = [measured_error(drawn(clusters, 0.3, 0.2, rng), clusters) for _ in range(300)]
    true = np.std([drawn(clusters, 0.3, 0.2, rng).mean() for _ in range(3000)])
    assert np.mean(measured) == pytest.approx(true, rel=0.06)
    assert planned_error(clusters, 0.3, 0.2) == pytest.approx(true, rel=0.04)


def test_an_interval_tells_the_same() -> None:
    rng = np.random.default_rng(4)
    clusters = uneven(900, 180, rng)
    gains = drawn(clusters, 0.3, 1.0, rng)
    low, high = average_interval([gains], [clusters])
    assert smallest_of_interval(low, high) == pytest.approx(smallest_gain(measured_error(gains, clusters), clusters), rel=0.05)
    assert smallest_of_interval(0.0, 0.0) is None


def test_more_correlation_and_fewer_clusters_need_larger_gains() -> None:
    clusters = Clusters.of([item % 30 for item in range(150)])
    assert planned_error(clusters, 0.0, 1.0) == pytest.approx(1 / math.sqrt(150))
    assert planned_error(clusters, 1.0, 1.0) == pytest.approx(1 / math.sqrt(30))
    assert smallest_gain(0.1, Clusters.of([item % 5 for item in range(150)])) is None
    assert smallest_gain(0.0, Clusters.single(50)) is None
    few, many = smallest_gain(0.1, Clusters.single(8)), smallest_gain(0.1, Clusters.single(800))
    assert smallest_gain(0.1, Clusters.of([max(0, item - 60) for item in range(80)])) is None  # one cluster is most of all
    assert few is not None
    assert many == pytest.approx(0.1 * (1.960 + 0.842), rel=0.01)
    assert few > many


def test_the_interval_of_a_mean_holds_it_in_95_of_100_cases() -> None:
    """Of 2,000 data sets, three standard errors are 1.5 %."""
    rng = np.random.default_rng(5)
    clusters = uneven(120, 24, rng)
    held = 0
    for _ in range(2000):
        ends = mean_interval(0.3 + drawn(clusters, 0.3, 1.0, rng), clusters)
        assert ends is not None
        held += ends[0] <= 0.3 <= ends[1]
    assert held / 2000 == pytest.approx(0.95, abs=0.025)
    assert mean_interval([1.0, 2.0, 3.0, 4.0, 5.0], Clusters.single(5)) is None


def test_chance_of_an_interval_is_that_of_its_normal() -> None:
    assert chance_of_interval(1.0, 0.0, 2.0) == pytest.approx(0.05)
    assert chance_of_interval(-1.0, -2.0, 0.0) == pytest.approx(0.05)
    assert chance_of_interval(0.0, -1.0, 1.0) == pytest.approx(1.0)
    assert chance_of_interval(0.0, 0.0, 0.0) == 1.0
    assert chance_of_interval(0.1, 0.1, 0.1) == 0.0


@pytest.mark.parametrize("count", [6, 12, 200])
def test_the_chance_of_an_interval_is_that_of_the_test_it_was_made_with(count: int) -> None:
    """An average over few clusters has Student's t far beyond its interval, too; the oracle is scipy's test."""
    gains = np.random.default_rng(count).normal(0.6, 1.0, count)
    tested = scipy.stats.ttest_1samp(gains, 0.0)
    low, high = tested.confidence_interval(0.95)
    assert chance_of_interval(gains.mean(), low, high, count) == pytest.approx(tested.pvalue)
