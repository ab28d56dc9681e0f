"""What `clas verify` makes of answers that were computed again: right ones, unsteered ones, and those that could be either."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from lm_eval_clas.verifying.judging import TOLERANCES, ScoredAgain, Verified, WrittenAgain

HALF = (torch.float16, torch.bfloat16)


def judged(dtype: torch.dtype, scored: Sequence[ScoredAgain] = (), written: Sequence[WrittenAgain] = ()) -> Verified:
    verified = Verified("hi")
    verified.judge(scored, written, TOLERANCES[dtype])
    return verified


def texts(runs: str, changed: int, count: int = 16) -> list[WrittenAgain]:
    """`count` texts of which steering changes `changed`; the run has those of `runs`."""
    made = [
        WrittenAgain("", f"steered {i}" if i < changed else f"same {i}", f"plain {i}" if i < changed else f"same {i}")
        for i in range(count)
    ]
    return [WrittenAgain(getattr(one, runs), one.steered, one.plain) for one in made]


def numbers(nats: float, moved: float, off: float, noise: float, seed: int) -> list[ScoredAgain]:
    """16 log-likelihoods of -`nats` that steering moves by `moved`; the run's are off by `off`, and by random noise."""
    errors = off + noise * np.random.default_rng(seed).normal(size=16)
    return [ScoredAgain(-nats + float(error), -nats, -nats - moved) for error in errors]


@pytest.mark.parametrize("dtype", HALF)
def test_texts_of_no_steering_do_not_stand_though_most_are_equal(dtype: torch.dtype) -> None:
    found = judged(dtype, written=texts("plain", changed=6))
    assert (found.texts, found.equal, found.equal_unsteered) == (16, 10, 16)
    assert found.why == "16 of 16 texts are those of the model without steering"
    right = judged(dtype, written=texts("steered", changed=6))
    assert (right.equal, right.equal_unsteered, right.why, right.note) == (16, 10, "", "")


@pytest.mark.parametrize("runs", ["plain", "steered"])
def test_a_text_more_or_less_says_nothing_in_half_precision(runs: str) -> None:
    """Rounding can turn one text into the other."""
    for changed in (0, 1):
        for dtype in HALF:
            found = judged(dtype, written=texts(runs, changed))
            assert (found.why, "these texts are about as near" in found.note) == ("", True)
    assert judged(torch.float32, written=texts("steered", 1)).note == ""
    assert judged(torch.float32, written=texts("plain", 1)).why == (
        "1 of 16 texts are others; 16 of 16 texts are those of the model without steering"
    )
    assert "cannot be told from unsteered ones" in judged(torch.float32, written=texts("plain", 0)).note


@pytest.mark.parametrize("nats", [0.3, 4, 15, 60, 250, 1000])
def test_rounding_stands_in_continuations_of_any_length(nats: float) -> None:
    """0.07 times the root of the log-likelihood, the most that was measured in bfloat16, for 20 runs."""
    for seed in range(20):
        found = judged(torch.bfloat16, numbers(nats, moved=-nats / 2 - 1, off=0, noise=0.07 * nats**0.5, seed=seed))
        assert (found.why, found.note) == ("", "")


@pytest.mark.parametrize("nats", [0.3, 4, 15, 60, 250, 1000])
def test_numbers_of_no_steering_do_not_stand_at_any_length(nats: float) -> None:
    moved = -nats / 2 - 1
    found = judged(torch.bfloat16, numbers(nats, moved, off=-moved, noise=0.07 * nats**0.5, seed=0))
    assert "log-likelihoods differ by up to" in found.why
    assert "the numbers are nearer to those of the model without steering" in found.why


def test_long_continuations_that_steering_hardly_moves_are_not_told_as_unsteered() -> None:
    """Rounding moves each of them by more than steering, now to one side and now to the other."""
    for seed in range(200):
        found = judged(torch.bfloat16, numbers(250, moved=0.5, off=0, noise=1.1, seed=seed))
        assert (found.why, "these numbers are about as near" in found.note) == ("", True)


def test_numbers_between_both_are_told_as_such() -> None:
    """Within the tolerance, but no nearer to the steered model than to the other."""
    scored = [ScoredAgain(-5.0 - 0.1, -5.0, -5.2)] * 8
    found = judged(torch.bfloat16, scored)
    assert (found.why, "these numbers are about as near" in found.note) == ("", True)
    nearer = [ScoredAgain(-5.0 - 0.19, -5.0, -5.2)] * 8
    assert judged(torch.bfloat16, nearer).why == "the numbers are nearer to those of the model without steering"


def test_numbers_that_are_none_do_not_stand() -> None:
    assert "differ by up to nan nats" in judged(torch.float16, [ScoredAgain(float("nan"), -1.0, -2.0)]).why
