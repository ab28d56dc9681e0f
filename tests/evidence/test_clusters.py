"""Items that hang together: against loops, scipy, and data whose truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import permutation_test

from lm_eval_clas import ClasError
from lm_eval_clas.evidence.best_of_many import paired_gains
from lm_eval_clas.evidence.clusters import Clusters, agreeing, connected, within_correlation
from lm_eval_clas.evidence.paired_tests import average_interval, sign_flips


def drawn(clusters: Clusters, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """Gains of mean 0 that correlate so much within clusters."""
    common, own = rng.normal(size=clusters.count)[clusters.numbers], rng.normal(size=clusters.items)
    return math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own


def uneven(items: int, count: int, rng: np.random.Generator) -> Clusters:
    return Clusters.of([*range(count), *rng.integers(count, size=items - count).tolist()])


def test_items_of_one_key_are_one_cluster() -> None:
    clusters = Clusters.of(["b", "a", "b", "c", "a"])
    assert clusters.numbers.tolist() == [0, 1, 0, 2, 1]
    assert (clusters.items, clusters.count, clusters.sizes.tolist(), clusters.alone) == (5, 3, [2, 2, 1], False)
    assert clusters.sums([[1, 2, 4, 8, 16], [0, 1, 0, 1, 0]]).tolist() == [[5, 18, 8], [0, 1, 1]]
    assert Clusters.single(3).alone
    with pytest.raises(ClasError, match="5 items do not fit 2"):
        clusters.sums([1, 2])


@pytest.mark.parametrize("seed", range(5))
def test_joining_is_what_a_chain_of_shared_clusters_connects(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [Clusters.of(rng.integers(25, size=30).tolist()) for _ in range(3)]
    together = [{item} for item in range(30)]
    for part in parts:
        for one, other in itertools.combinations(range(30), 2):
            if part.numbers[one] == part.numbers[other] and together[one] is not together[other]:
                together[one] |= together[other]
                for item in together[other]:
                    together[item] = together[one]
    numbers = connected(parts).numbers
    for one, other in itertools.combinations(range(30), 2):
        assert (numbers[one] == numbers[other]) == (other in together[one])
    assert connected([parts[0], parts[0]]) is parts[0]


def test_flips_of_clusters_are_scipys_flips_of_their_sums() -> None:
    rng = np.random.default_rng(1)
    for count, exact in ((9, True), (40, False)):
        clusters = uneven(5 * count, count, rng)
        gains = drawn(clusters, 0.3, rng) + 0.15
        known = permutation_test(
            (clusters.sums(gains),), np.sum, permutation_type="samples", n_resamples=9999, vectorized=True, rng=rng
        )
        p = sign_flips(gains, np.zeros(clusters.items), clusters)
        assert p == pytest.approx(known.pvalue, abs=1e-12 if exact else 0.015)


def test_clusters_of_one_are_no_clusters() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = rng.random((2, 50))
    assert sign_flips(ours, theirs, Clusters.single(50)) == sign_flips(ours, theirs)
    values = rng.random((4, 50))
    one, other = paired_gains(values, 0), paired_gains(values, 0, clusters=Clusters.single(50))
    assert (one.low.tolist(), one._p_values.tolist()) == (other.low.tolist(), other._p_values.tolist())
    known = permutation_test((ours[:12] - theirs[:12],), np.sum, permutation_type="samples", vectorized=True)
    assert sign_flips(ours[:12], theirs[:12]) == pytest.approx(known.pvalue)


@pytest.mark.parametrize("count", [2, 5, 6])
def test_few_clusters_cannot_show_anything(count: int) -> None:
    clusters = Clusters.of([item % count for item in range(60)])
    ours, theirs = np.arange(1.0, 61), np.zeros(60)
    assert sign_flips(ours, theirs, clusters) == pytest.approx(2 / 2**count)
    low, high = average_interval([ours], [clusters])
    assert (math.isnan(low) and math.isnan(high)) == (count < 6)
    assert (2 / 2**count < 0.05) == (count >= 6)


def test_one_cluster_leaves_nothing_to_compare() -> None:
    together = Clusters.of(["all"] * 9)
    assert math.isnan(sign_flips(np.ones(9), np.zeros(9), together))
    assert within_correlation(np.arange(9), together) is None
    assert sign_flips([1.0], [0.0], Clusters.single(1)) == 1


@pytest.mark.parametrize("correlation", [0.0, 0.4])
def test_without_an_effect_flips_of_clusters_are_rarely_significant(correlation: float) -> None:
    """Of 400 data sets, 5 % are 20, and 34 three standard errors more; items flipped one by one find far too much."""
    rng = np.random.default_rng(3)
    found = np.zeros(3)
    for trial in range(400):
        clusters = uneven(150, 30, rng)
        gains = drawn(clusters, correlation, rng)
        options = {"resamples": 399, "seed": trial}
        low, high = average_interval([gains], [clusters], **options)
        apart = sign_flips(gains, np.zeros(150), **options)
        found += (sign_flips(gains, np.zeros(150), clusters, **options) < 0.05, not low <= 0 <= high, apart < 0.05)
    assert 6 <= found[0] <= 34
    assert 6 <= found[1] <= 38  # percentiles of 399 resamples are a little rough
    assert found[2] > 80 if correlation else found[2] <= 34


def test_correlations_within_clusters_are_found_again() -> None:
    rng = np.random.default_rng(4)
    for correlation in (0.0, 0.2, 0.6):
        clusters = uneven(6000, 1200, rng)
        assert within_correlation(drawn(clusters, correlation, rng), clusters) == pytest.approx(correlation, abs=0.04)
    assert within_correlation(np.ones(4), Clusters.of([0, 0, 1, 1])) is None
    assert within_correlation([1, 2, 3], Clusters.single(3)) is None
    assert within_correlation([5, 5, 7, 7], Clusters.of([0, 0, 1, 1])) == 1
    # Of equal clusters of two: (B - W) / (B + W), by hand: B = 2 * ((1 - 2.5)**2 + (4 - 2.5)**2) / 1 = 9, W = (2 + 2) / 2 = 2.
    assert within_correlation([0, 2, 3, 5], Clusters.of([0, 0, 1, 1])) == pytest.approx(7 / 11)


def test_an_interval_by_clusters_is_as_wide_as_their_spread() -> None:
    """Against the standard error of a ratio of cluster sums to sizes, and Student's t."""
    rng = np.random.default_rng(5)
    clusters = uneven(900, 180, rng)
    gains = drawn(clusters, 0.5, rng)
    residual = clusters.sums(gains - gains.mean())
    error = math.sqrt(float(residual @ residual) * 180 / 179) / 900
    low, high = average_interval([gains], [clusters])
    assert (high - low) / 2 == pytest.approx(1.973 * error, rel=0.05)
    assert np.diff(average_interval([gains]))[0] < 0.75 * (high - low)


def test_parallel_languages_draw_the_same_clusters() -> None:
    """The same gains in three languages tell no more than in one, and items that any language puts together stay together."""
    rng = np.random.default_rng(6)
    clusters = uneven(300, 60, rng)
    gains = drawn(clusters, 0.6, rng)
    one = average_interval([gains], [clusters])
    assert average_interval([gains] * 3, [clusters] * 3, parallel="aaa") == pytest.approx(one)
    mixed = [Clusters.single(300), clusters, clusters]
    assert average_interval([gains] * 3, mixed, parallel="aaa") == pytest.approx(one)
    apart = average_interval([gains] * 3, [clusters] * 3, parallel="abc")
    assert np.diff(apart)[0] == pytest.approx(np.diff(one)[0] / math.sqrt(3), rel=0.1)
    pair = average_interval([gains, gains, -gains], [clusters] * 3, parallel="aab")
    assert pair[0] == pytest.approx(np.quantile([2 / 3 * a - b / 3 for a, b in _means(gains, clusters)], 0.023), abs=0.01)


def test_translations_whose_clusters_differ_a_little_are_drawn_together() -> None:
    """One premise has become two in one language, two have become one in another, and a fourth language has none."""
    own = [item // 3 for item in range(90)]
    split = [100 if item == 4 else number for item, number in enumerate(own)]
    merged = [max(number, 1) for number in own]
    partitions = [Clusters.of(own), Clusters.of(split), Clusters.of(merged), Clusters.single(90)]
    (group,) = agreeing(partitions)
    assert (group.languages, group.clusters.count) == ((0, 1, 2, 3), 29)
    rng = np.random.default_rng(11)
    gains = drawn(partitions[0], 0.6, rng)
    together = average_interval([gains] * 4, partitions, parallel="aaaa")
    assert together == pytest.approx(average_interval([gains], [group.clusters]))


@pytest.mark.parametrize("sizes", [(5, 4, 7), (3, 4, 5)])
def test_passages_that_only_have_the_same_numbers_are_drawn_apart(sizes: tuple[int, ...]) -> None:
    """The first 100 items of each language, whose passages overlap in chains: all are connected, or nearly so."""
    partitions = [Clusters.of([item // size for item in range(100)]) for size in (*sizes, sizes[0])]
    assert connected(partitions).count < 6
    assert [group.languages for group in agreeing(partitions)] == [(0, 3), (1,), (2,)]
    rng = np.random.default_rng(12)
    gains = [drawn(one, 0.3, rng) for one in partitions]
    low, high = average_interval(gains, partitions, parallel="aaaa")
    assert (low, high) == pytest.approx(average_interval(gains, partitions, parallel="abca"), abs=0.02)
    assert 0 < high - low < 0.6


def test_joining_leaves_as_many_clusters_as_can_show_something() -> None:
    own = Clusters.of([item // 10 for item in range(60)])
    chained = Clusters.of([max(item // 10, 1) for item in range(60)])
    assert (own.count, chained.count) == (6, 5)
    assert len(agreeing([own, chained])) == 1  # one of them shows nothing by itself
    other = Clusters.of([0 if item in (9, 10) else 1 + item // 10 for item in range(60)])
    assert connected([own, other]).count == 5
    assert len(agreeing([own, other])) == 2


def _means(gains: np.ndarray, clusters: Clusters) -> list[tuple[float, float]]:
    """Of two independent draws of clusters, in a loop."""
    rng = np.random.default_rng(7)
    sums, sizes = clusters.sums(gains), clusters.sizes

    def mean() -> float:
        picks = rng.integers(clusters.count, size=clusters.count)
        return float(sums[picks].sum() / sizes[picks].sum())

    return [(mean(), mean()) for _ in range(4000)]


def test_the_best_of_many_flips_clusters() -> None:
    """Against the enumeration of all flips of eight clusters."""
    rng = np.random.default_rng(8)
    clusters = uneven(40, 8, rng)
    values = rng.normal(size=(3, 40)) + np.array([[0.0], [0.4], [0.5]])
    sums = clusters.sums(values - values[0])
    errors = [math.sqrt(float(row @ row)) or 1.0 for row in sums]
    best = [
        max(float(np.dot(signs, row)) / error for row, error in zip(sums, errors, strict=True))
        for signs in itertools.product((1, -1), repeat=8)
    ]
    gains = paired_gains(values, 0, clusters=clusters, resamples=20_000)
    assert (gains.items, gains.clusters) == (40, 8)
    for setting in (1, 2):
        exact = np.mean([one >= sums[setting].sum() / errors[setting] - 1e-12 for one in best])
        assert gains.p_value(setting) == pytest.approx(exact, abs=0.015)


def test_the_best_of_many_is_rarely_significant_where_items_hang_together() -> None:
    """At 5 %, of 250 data sets, up to 22 are within three standard errors; single items find several times as many."""
    rng = np.random.default_rng(9)
    found = np.zeros(2)
    for trial in range(250):
        clusters = uneven(100, 20, rng)
        values = np.stack([np.zeros(100), *(drawn(clusters, 0.4, rng) for _ in range(4))])
        for side, of in enumerate((clusters, None)):
            gains = paired_gains(values, 0, clusters=of, resamples=199, seed=trial)
            found[side] += gains.p_value(int(gains.gains.argmax())) < 0.05
    assert found[0] <= 22
    assert found[1] >= 40
