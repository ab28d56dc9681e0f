"""Gains and their uncertainty: against loops, against cases worked out by hand, and on data without any effect."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

import numpy as np
import pytest

from lm_eval_clas import ClasError
from lm_eval_clas.evidence.best_of_many import gains_of, paired_gains
from lm_eval_clas.evidence.clusters import Clusters


def answers(items: int, settings: int = 8, seed: int = 0) -> np.ndarray:
    """Right or wrong [settings, items], without any effect: settings differ by noise only, and agree with their neighbours."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(settings, items))
    for setting in range(1, settings):
        steps[setting] = 0.8 * steps[setting - 1] + 0.6 * steps[setting]
    return (rng.normal(size=items) + 0.5 * steps > 0).astype(float)


def f1(items: Sequence[tuple[int, int]]) -> float:
    """Corpus F1 of (gold, prediction) pairs."""
    both = sum(gold and guess for gold, guess in items)
    return 2 * both / max(1, sum(gold + guess for gold, guess in items))


def test_scores_and_gains_are_means_and_their_differences() -> None:
    gains = paired_gains([[0, 1, 1, 0, 1, 0], [1, 1, 1, 0, 1, 0], [0.0, 0.5, 0.0, 0.0, 0.0, 1.0]], 0)
    assert gains.scores.tolist() == pytest.approx([1 / 2, 2 / 3, 1 / 4])
    assert gains.gains.tolist() == pytest.approx([0, 1 / 6, -1 / 4])
    assert gains.items == 6
    assert (gains.low[0], gains.high[0], gains.p_value(0)) == (0, 0, 1)
    assert gains.p_value(2) == 1


def test_intervals_equal_a_loop_up_to_resampling() -> None:
    values = answers(80, settings=4)
    gains = paired_gains(values, 1, resamples=4000, level=0.9)
    rng = np.random.default_rng(99)
    picks = [rng.integers(80, size=80) for _ in range(4000)]
    for setting in range(4):
        drawn = sorted(float(values[setting][pick].mean() - values[1][pick].mean()) for pick in picks)
        assert gains.low[setting] == pytest.approx(drawn[200], abs=0.013)  # neighbouring gains are 1/80 apart
        assert gains.high[setting] == pytest.approx(drawn[-201], abs=0.013)


def test_intervals_of_few_clusters_hold_the_truth_as_often_as_they_say() -> None:
    """600 data sets without an effect, drawn alike: plain percentiles hold 0 in 86 % of them."""
    rng = np.random.default_rng(4)
    rows = np.repeat(rng.normal(size=(600, 6)), 4, axis=1) + 0.5 * rng.normal(size=(600, 24))
    shares = np.concatenate([np.zeros((1, 24)), rows])
    gains = gains_of(shares, clusters=Clusters.of([item // 4 for item in range(24)]))
    assert 0.91 < np.mean((gains.low[1:] <= 0) & (gains.high[1:] >= 0)) < 0.97


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fewer_than_six_clusters_have_no_interval(count: int) -> None:
    clusters = Clusters.of([item % count for item in range(60)])
    gains = paired_gains(answers(60, settings=3), 0, clusters=clusters)
    assert np.isnan([gains.low, gains.high]).all()
    assert np.isfinite(gains.gains).all()
    few = paired_gains(answers(count, settings=3), 0)
    assert np.isnan([few.low, few.high]).all()


def test_p_values_are_those_of_all_flips_also_where_there_is_no_interval() -> None:
    """Four of five clusters gain: of the 32 flips, five have a sum as large, and one a larger one."""
    clusters = Clusters.of([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    gains = paired_gains([[0.0] * 10, [1, 1, 1, 1, 1, 1, 1, 1, -1, -1]], 0, clusters=clusters, resamples=20_000)
    assert gains.p_value(1) == pytest.approx(6 / 32, abs=0.01)


def test_p_values_equal_the_enumeration_of_all_flips() -> None:
    values = np.random.default_rng(3).normal(size=(4, 10)) + np.array([[0.0], [0.4], [0.6], [-0.2]])
    differences = values - values[0]
    errors = [math.sqrt(sum(d * d for d in row)) or 1.0 for row in differences]
    best = [
        max(sum(s * d for s, d in zip(signs, row, strict=True)) / error for row, error in zip(differences, errors, strict=True))
        for signs in itertools.product((1, -1), repeat=10)
    ]
    gains = paired_gains(values, 0, resamples=20_000)
    for setting, (row, error) in enumerate(zip(differences, errors, strict=True)):
        exact = np.mean([one >= sum(row) / error - 1e-12 for one in best])
        assert gains.p_value(setting) == pytest.approx(exact, abs=0.015)


def test_a_gain_on_every_item_is_as_significant_as_the_items_are_many() -> None:
    """There is no variance, and no division by it."""
    for items, expected in ((1, 1 / 2), (2, 1 / 4), (4, 1 / 16)):
        gains = paired_gains([[0.5] * items, [0.75] * items], 0, resamples=20_000)
        assert gains.p_value(1) == pytest.approx(expected, abs=0.015)
        assert gains.gains[1] == 0.25
    gains = paired_gains([[0.5] * 8, [0.75] * 8], 0)
    assert gains.low[1] == gains.high[1] == gains.gains[1] == 0.25
    assert paired_gains([[0] * 50, [1] * 50], 0, resamples=999).p_value(1) == 1 / 1000
    assert paired_gains([[0] * 50, [0] * 50, [-1] * 50], 0).p_value(1) == 1


def test_a_real_gain_is_found_and_its_luckiest_rival_is_not() -> None:
    values = answers(200, seed=1)
    better = values.copy()
    better[5] = np.maximum(values[0], np.random.default_rng(1).random(200) < 0.2)
    assert paired_gains(better, 0).p_value(5) < 0.01
    none = paired_gains(values, 0)
    assert none.p_value(int(none.gains.argmax())) > 0.1


def test_more_settings_to_pick_from_never_make_a_gain_more_significant() -> None:
    values = answers(100, seed=2)
    together = paired_gains(values, 0)
    for setting in range(1, 8):
        alone = paired_gains(values[[0, setting]], 0)
        assert together.p_value(setting) >= alone.p_value(1)


def test_what_all_settings_share_cancels() -> None:
    """Resampling is joint: an item that is easy for every setting says nothing about any."""
    values = answers(60)
    shift = np.random.default_rng(5).normal(scale=10, size=60)
    plain, shifted = paired_gains(values, 2), paired_gains(values + shift, 2)
    for name in ("gains", "low", "high"):
        np.testing.assert_allclose(getattr(plain, name), getattr(shifted, name), atol=1e-12)
    assert [plain.p_value(s) for s in range(8)] == [shifted.p_value(s) for s in range(8)]


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_without_an_effect_the_best_of_eight_is_rarely_significant(kind: str) -> None:
    """At 5 %, of 250 data sets, up to 22 are within three standard errors."""
    rng = np.random.default_rng(11)
    found = 0
    for trial in range(250):
        values = answers(60, seed=trial) if kind == "binary" else rng.normal(size=60) + rng.standard_t(5, size=(8, 60))
        gains = paired_gains(values, 0, resamples=199, seed=trial)
        found += gains.p_value(int(gains.gains.argmax())) <= 0.05
    assert 1 <= found <= 22


def test_the_mean_as_a_metric_of_its_own_changes_nothing() -> None:
    values = answers(40).tolist()
    mean, own = paired_gains(values, 0), paired_gains(values, 0, lambda items: sum(items) / len(items))
    for name in ("scores", "gains", "low", "high"):
        np.testing.assert_allclose(getattr(mean, name), getattr(own, name), atol=1e-12)
    assert [mean.p_value(s) for s in range(8)] == [own.p_value(s) for s in range(8)]


def test_a_metric_that_is_no_mean_is_close_to_resampling_it() -> None:
    rng = np.random.default_rng(7)
    gold = rng.integers(2, size=150)
    settings = [[(int(g), int(g if rng.random() < share else 1 - g)) for g in gold] for share in (0.6, 0.65, 0.8)]
    gains = paired_gains(settings, 0, f1)
    assert gains.scores == pytest.approx([f1(items) for items in settings])
    drawn = []
    for _ in range(2000):
        pick = rng.integers(150, size=150)
        scores = [f1([items[i] for i in pick]) for items in settings]
        drawn.append([score - scores[0] for score in scores])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    np.testing.assert_allclose(gains.low, low, atol=0.02)
    np.testing.assert_allclose(gains.high, high, atol=0.02)
    # Swapping the answers themselves, and the metric computed anew.
    one, other = settings[0], settings[1]
    swapped = []
    for _ in range(2000):
        swap = rng.random(150) < 0.5
        left = [b if s else a for a, b, s in zip(one, other, swap, strict=True)]
        right = [a if s else b for a, b, s in zip(one, other, swap, strict=True)]
        swapped.append(f1(right) - f1(left))
    alone = paired_gains(settings[:2], 0, f1)
    assert alone.p_value(1) == pytest.approx(np.mean(np.array(swapped) >= f1(other) - f1(one)), abs=0.04)
    assert gains.p_value(2) < 0.01


def test_one_item_of_any_metric() -> None:
    gains = paired_gains([[(1, 0)], [(1, 1)]], 0, f1)
    assert gains.gains.tolist() == [0, 1]
    assert 0.45 < gains.p_value(1) < 0.55


def test_the_seed_decides() -> None:
    values = answers(200)
    worst = int(values.mean(axis=1).argmin())
    first, again, other = (paired_gains(values, worst, seed=seed) for seed in (1, 1, 2))
    assert first.low.tolist() == again.low.tolist()
    assert [first.p_value(s) for s in range(8)] == [again.p_value(s) for s in range(8)]
    assert [first.p_value(s) for s in range(8)] != [other.p_value(s) for s in range(8)]


@pytest.mark.parametrize(("differing", "alike"), [(14, True), (15, False)])
def test_no_seed_decides_where_every_flip_is_tried(differing: int, alike: bool) -> None:
    values = np.zeros((2, 60))
    values[1, :differing] = np.random.default_rng(5).normal(0.4, 1, size=differing)
    p_values = {paired_gains(values, 0, seed=seed).p_value(1) for seed in range(4)}
    assert (len(p_values) == 1) == alike


def test_a_study_takes_well_under_a_second() -> None:
    """A guard against a loop over items, with ten times the room; the figure itself is for benchmarks."""
    values = np.random.default_rng(0).random((30, 1000))
    started = time.perf_counter()
    paired_gains(values, 0)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "at least one setting"),
        ([[], []], "at least one setting and one item"),
        ([[1, 2], [1]], "2, 1 items"),
        ([[1, 2], [1, float("nan")]], "under setting 1 item 1"),
        ([[float("-inf"), 2], [1, 2]], "under setting 0 item 0"),
        ([[(1, 1)], [(1, 0)]], "aggregate"),
        ([["right"], ["wrong"]], "aggregate"),
    ],
)
def test_bad_scores_are_refused(values: list[list[object]], message: str) -> None:
    with pytest.raises(ClasError, match=message):
        paired_gains(values, 0)


def test_bad_metrics_and_options_are_refused() -> None:
    with pytest.raises(ClasError, match="under setting 0"):
        paired_gains([[1, 2], [3, 4]], 0, lambda items: float("nan"))
    with pytest.raises(ClasError, match="under setting 0"):
        paired_gains([[1, 2], [3, 4]], 0, lambda items: float("inf") if len(items) == 1 else 0.0)
    for baseline in (-1, 2):
        with pytest.raises(ClasError, match="baseline"):
            paired_gains([[1, 2], [3, 4]], baseline)
    for options in ({"resamples": 0}, {"level": 1.0}, {"level": 0.0}):
        with pytest.raises(ClasError, match="resamples must be"):
            paired_gains([[1, 2], [3, 4]], 0, **options)  # type: ignore[arg-type]
