"""Tests by language and the average's interval: against loops, scipy, and data whose truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import permutation_test

from lm_eval_clas import ClasError
from lm_eval_clas.evidence.paired_tests import average_interval, holm, mcnemar, sign_flips


def enumerated(differences: np.ndarray) -> float:
    """The sign-flip test in a loop over all flips."""
    measured = abs(differences.sum()) - 1e-12
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    return sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= measured for signs in flips) / len(flips)


@pytest.mark.parametrize("seed", range(6))
def test_mcnemar_is_the_sign_flip_test_of_right_and_wrong(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = rng.integers(2, size=(2, 11))
    assert mcnemar(ours, theirs) == pytest.approx(enumerated((ours - theirs).astype(float)))
    assert sign_flips(ours, theirs) == pytest.approx(mcnemar(ours, theirs))
    assert mcnemar(theirs, ours) == mcnemar(ours, theirs)
    more = np.ones(50)  # what nobody changes says nothing
    assert mcnemar([*ours, *more], [*theirs, *more]) == mcnemar(ours, theirs)


@pytest.mark.parametrize(("won", "lost"), [(0, 5), (9, 1), (30, 12), (200, 240)])
def test_mcnemar_equals_the_binomial_by_hand(won: int, lost: int) -> None:
    ours, theirs = [1] * won + [0] * lost, [0] * won + [1] * lost
    n = won + lost
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1)) / 2**n
    assert mcnemar(ours, theirs) == pytest.approx(min(1, 2 * tail))


def test_few_items_are_enumerated() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.random((2, 10)).round(1)
    assert sign_flips(ours, theirs) == pytest.approx(enumerated(ours - theirs))
    assert sign_flips(ours, theirs, seed=5) == sign_flips(ours, theirs)
    assert sign_flips(ours, ours) == 1 == mcnemar([0, 1], [0, 1])


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.12])
def test_many_items_equal_scipy_up_to_resampling(shift: float) -> None:
    rng = np.random.default_rng(2)
    theirs = rng.choice([0, 0.25, 0.4, 0.5, 2 / 3, 1], size=120)
    ours = np.where(rng.random(120) < 0.5, theirs, np.clip(theirs + rng.normal(shift, 0.3, size=120), 0, 1))
    known = permutation_test(
        (ours - theirs,), np.sum, permutation_type="samples", n_resamples=9999, vectorized=True, rng=np.random.default_rng(3)
    )
    assert sign_flips(ours, theirs) == pytest.approx(known.pvalue, abs=0.02)
    assert sign_flips(ours * 100, theirs * 100) == sign_flips(ours, theirs)


def test_a_p_value_is_never_0() -> None:
    assert sign_flips(np.ones(80), np.zeros(80), resamples=999) == 1 / 1000
    assert sign_flips(np.full(3, 0.5), np.zeros(3)) == 1 / 4


@pytest.mark.parametrize("graded", [False, True])
def test_without_an_effect_few_are_significant(graded: bool) -> None:
    """Of 400 data sets, 5 % are 20; 34 are three standard errors more. Exact tests of few changes stay below."""
    rng = np.random.default_rng(4)
    found = 0
    for trial in range(400):
        ours, theirs = rng.random((2, 60)) if graded else rng.integers(2, size=(2, 60))
        p = sign_flips(ours, theirs, resamples=499, seed=trial) if graded else mcnemar(ours, theirs)
        found += p <= 0.05
    assert 4 <= found <= 34


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_its_own_definition(seed: int) -> None:
    """An adjusted p is the smallest level at which Holm's procedure, done step by step, rejects."""
    p = np.random.default_rng(seed).random(7) ** 3
    adjusted = holm(p)

    def rejects(level: float) -> set[int]:
        found: set[int] = set()
        for step, index in enumerate(np.argsort(p)):
            if p[index] > level / (len(p) - step):
                break
            found.add(int(index))
        return found

    for index, value in enumerate(adjusted):
        assert index in rejects(min(1.0, value) + 1e-9) or value == 1
        assert index not in rejects(value - 1e-9)
        assert p[index] <= value <= min(1, 7 * p[index]) + 1e-12
    assert holm([]) == []
    assert holm([0.03]) == [0.03]
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_the_interval_equals_a_loop() -> None:
    rng = np.random.default_rng(5)
    rows = [rng.integers(-1, 2, size=n) for n in (30, 50, 80)]
    drawn = [np.mean([row[rng.integers(len(row), size=len(row))].mean() for row in rows]) for _ in range(4000)]
    low, high = average_interval(rows, level=0.9)
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, (0.05, 0.95))), abs=0.012)
    assert average_interval(rows, seed=1) == average_interval(rows, seed=1)
    assert average_interval([[0.25] * 9, [0.75] * 6]) == (0.5, 0.5)


def test_translations_of_one_question_are_drawn_together() -> None:
    """If all languages gain on the same items, there is as much evidence as in one language, and not as in eight."""
    rng = np.random.default_rng(6)
    item = rng.normal(size=100)
    same = [item] * 8
    one = average_interval([item])
    assert average_interval(same, parallel=[0] * 8) == pytest.approx(one)
    width = np.diff(average_interval(same))[0]
    assert width == pytest.approx(np.diff(one)[0] / math.sqrt(8), rel=0.1)
    unrelated = list(rng.normal(size=(8, 100)))
    together, apart = (np.diff(average_interval(unrelated, parallel=p))[0] for p in ([0] * 8, None))
    assert together == pytest.approx(apart, rel=0.2)


@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_the_interval_covers_the_truth(shared: float) -> None:
    """Whether items gain together in all languages or not. Of 300 data sets, 95 % are 285; percentiles are a bit short."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        rows = 0.3 + math.sqrt(shared) * rng.normal(size=60) + math.sqrt(1 - shared) * rng.normal(size=(4, 60))
        low, high = average_interval(list(rows), parallel=[0] * 4, resamples=500)
        covered += low <= 0.3 <= high
    assert covered >= 270


def test_bad_scores_are_one_sentence() -> None:
    with pytest.raises(ClasError, match="0 and 1"):
        mcnemar([0.5], [1])
    for test in (mcnemar, sign_flips):
        with pytest.raises(ClasError, match="3 and 2"):
            test([1, 0, 1], [1, 0])
        with pytest.raises(ClasError, match="finite"):
            test([1, float("nan")], [1, 0])
    for rows, message in [([], "at least one"), ([[]], "at least one"), ([[1.0, math.inf]], "finite")]:
        with pytest.raises(ClasError, match=message):
            average_interval(rows)
    with pytest.raises(ClasError, match="not parallel"):
        average_interval([[1.0], [1.0, 2.0]], parallel=[0, 0])
