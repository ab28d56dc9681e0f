"""Correlations over languages: which go together with a gain, and whether so few languages can tell. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.checked_json import Strict

Floats = NDArray[np.float64]

# With fewer languages than tell |r| = 0.5 from 0, a strong correlation is as likely as not to be missed.
_TELLING = 0.5


def correlate(
    x: Sequence[float], y: Sequence[float], cause: str, effect: str, seed: int = 0, *, resamples: int = 5000
) -> Correlation:
    """Pearson's and Spearman's correlation, each with a 95 % interval and a p-value.

    The intervals are the percentile bootstrap's over pairs (Efron & Tibshirani 1993, chapter 13), without resamples in which
    a correlation is not defined. In simulations (normal data, r of 0 and 0.6, 600 data sets each), 94 to 98 % of Spearman's
    held the true value, but of Pearson's 89 to 92 % with 6 or 11 pairs and 91 to 94 % with 15: those are somewhat narrow.

    The p-values are two-sided, from permuting one side (scipy's `permutation_test`): every order up to 7 pairs, 9999 random
    ones from 8 on. They are not adjusted for looking at several causes.

    Args:
        x: one number for each language.
        y: the same, in the same order.
        cause, effect: what `x` and `y` are, in words that a table can print.
        seed: of both resamplings.
        resamples: of the bootstrap.

    Returns:
        A correlation whose numbers are None where fewer than 3 pairs or no spread leave it undefined.

    Raises:
        ClasError: different lengths, or a number that is not finite.
    """
    left, right = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape:
        raise ClasError(f"A correlation of '{cause}' with '{effect}' needs as many numbers of one as of the other.")
    if not np.isfinite([left, right]).all():
        raise ClasError(f"A correlation of '{cause}' with '{effect}' needs finite numbers; leave the other languages out.")
    found = Correlation(cause=cause, effect=effect, n=len(left))
    if len(left) < 3:
        found.warnings = [f"Of {len(left)} {_languages(len(left))} no correlation can be told."]
        return found
    for name, numbers in ((cause, left), (effect, right)):
        if not _spread(numbers):
            found.warnings = [f"No correlation: {name} is the same in all {len(left)} languages."]
            return found
    smallest = smallest_telling(len(left))
    if smallest > _TELLING:
        found.warnings = [f"Few languages: of {len(left)}, only |r| of {smallest:.3f} or more can be told from 0 (at 5 %)."]

    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(left), size=(resamples, len(left)))
    for name, ranked in (("pearson", False), ("spearman", True)):
        one, other = (_ranks(left), _ranks(right)) if ranked else (left, right)
        r = float(_pearson(one, other))
        # Spearman's ranks are those within each resample.
        again = _pearson(_ranks(left[drawn]), _ranks(right[drawn])) if ranked else _pearson(left[drawn], right[drawn])
        low, high = np.nanquantile(again, (0.025, 0.975))
        for field, value in (("", r), ("_low", float(low)), ("_high", float(high)), ("_p", _p_value(one, other, rng))):
            setattr(found, name + field, value)
    return found


def smallest_telling(n: int) -> float:
    """The smallest |r| that n pairs can tell from 0: two-sided, at 5 %, by Student's t with n - 2 degrees of freedom.

    Raises:
        ClasError: fewer than 3 pairs, which tell nothing.
    """
    from scipy.stats import t

    if n < 3:
        raise ClasError(f"{n} pairs tell no correlation from 0; it needs 3 at least.")
    critical = float(t.ppf(0.975, n - 2))
    return float(critical / (n - 2 + critical**2) ** 0.5)


def correlate_all(
    causes: Mapping[str, Mapping[str, float]], gains: Mapping[str, float], effect: str = "gain", seed: int = 0
) -> list[Correlation]:
    """Each cause, given by language, with the gains, over the languages that have both."""
    found = []
    for cause, by_language in causes.items():
        both = [language for language in gains if language in by_language]
        found.append(correlate([by_language[one] for one in both], [gains[one] for one in both], cause, effect, seed))
    return found


def _pearson(x: Floats, y: Floats) -> Floats:
    """Pearson's r along the last axis; nan where a side has no spread."""
    flat = (np.ptp(x, axis=-1) == 0) | (np.ptp(y, axis=-1) == 0)
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    size = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    r: Floats = np.where(flat, np.nan, (x * y).sum(axis=-1) / np.where(flat, 1, size))
    return np.clip(r, -1, 1)


def _p_value(x: Floats, y: Floats, rng: np.random.Generator) -> float:
    from scipy.stats import permutation_test

    def statistic(side: Floats, axis: int) -> Floats:
        return _pearson(side, y)

    result = permutation_test((x,), statistic, permutation_type="pairings", vectorized=True, n_resamples=9999, rng=rng)
    return float(result.pvalue)


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1), dtype=np.float64)


def _spread(numbers: Floats) -> bool:
    """Whether numbers differ by more than rounding."""
    return bool(np.ptp(numbers) > 1e-12 * np.abs(numbers).max())


def _languages(n: int) -> str:
    return "language" if n == 1 else "languages"


class Correlation(Strict):
    """A correlation over languages, with 95 % bootstrap intervals; None where it is not defined (fewer than 3, no spread).

    Attributes:
        cause: what is compared with `effect`, in words that a table can print.
        n: how many languages.
        pearson_p, spearman_p: two-sided, from permutations; not adjusted for looking at several causes.
        warnings: what a reader must know, a sentence each: that so few languages tell little, or why there are no numbers.
    """

    cause: str
    effect: str
    n: int
    pearson: float | None = None
    pearson_low: float | None = None
    pearson_high: float | None = None
    pearson_p: float | None = None
    spearman: float | None = None
    spearman_low: float | None = None
    spearman_high: float | None = None
    spearman_p: float | None = None
    warnings: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, given: Any) -> Any:
        """Files of before have `warning`, all sentences in one text, or null."""
        if not isinstance(given, dict) or "warning" not in given or "warnings" in given:
            return given
        told = given["warning"]
        sentences = re.split(r"(?<=\.) (?=[A-Z])", told) if isinstance(told, str) else [] if told is None else told
        return {name: value for name, value in given.items() if name != "warning"} | {"warnings": sentences}
