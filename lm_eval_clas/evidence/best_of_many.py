"""Is a setting better than the baseline, or was it lucky? Paired resampling of items. Pure functions of numbers.

All settings answer the same items, so whatever is resampled is an item with its scores under every setting. That keeps
the correlation between settings, on which both the intervals and the adjustment for picking the best depend. Items of one
cluster, such as the questions of one passage, are drawn and flipped together.

The choices below were settled by simulation: data without any effect, the best of 8 settings, 50 and 200 items, 600 to
1500 data sets each, and the share of them with p <= 0.05.

- The p-value flips signs. With binary, graded, normal and heavy-tailed scores that gave 0.002 to 0.059. A bootstrap
  max-T went up to 0.076, and bootstrap-t, where few answers change, to 0.114.
- Sign flips take a gain to be as likely as a loss of the same size. Where rare large losses balance many small gains
  (1 - an exponential variable) they gave 0.18 at 50 items and 0.12 at 200; with the reverse, 0.02. So a small p-value
  of an unbounded score, such as a log-likelihood, deserves a look at the differences.
- Jackknife values stand for the items of a metric that is no mean. On F1 and Matthews correlation they gave 0.017 to
  0.062, and intervals whose coverage was within 0.025 of those from resampling the metric itself. They call the metric
  once for each item, not once for each resample: for 200 items, a tenth of what would take a minute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.evidence.clusters import FEWEST, Clusters
from lm_eval_clas.evidence.paired_tests import TIE, student_tail

_FLIPS_ALL_TRIED = 14  # clusters: of up to 16,384 flips


@dataclass(frozen=True)
class Gains:
    """What every setting gains over the baseline, in the units of the scores.

    Attributes:
        scores: float64 [settings].
        gains: float64 [settings]: score minus the baseline's score; 0 for the baseline.
        low: float64 [settings], high: the same: the interval of each gain, pointwise (not adjusted for picking the best);
            NaN where fewer than 6 clusters leave nothing that could be told.
        items: how many items were measured; `clusters`: in how many clusters.
    """

    scores: NDArray[np.float64]
    gains: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    items: int
    clusters: int
    _p_values: NDArray[np.float64]

    def p_value(self, setting: int) -> float:
        """One-sided p that this setting's gain is above 0, adjusted for its having been picked as the best of all.

        Never below 1 / 2**clusters, nor, where flips are drawn by chance, below 1 / (1 + resamples). 1 if the gain is 0 or
        less.
        """
        return float(self._p_values[setting])


def paired_gains(
    values: Sequence[Sequence[Any]],
    baseline: int,
    aggregate: Callable[[Sequence[Any]], float] | None = None,
    clusters: Clusters | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Gains:
    """Compares settings that were measured on the same items. Higher is better.

    The interval is the percentile bootstrap's over clusters of items (Efron & Tibshirani 1993, An Introduction to the
    Bootstrap, chapter 13), with the percentiles of Student's t, as `average_interval` has them. The p-value is a single-step
    max-T (Westfall & Young 1993, Resampling-Based Multiple Testing, chapter 2): the null distribution swaps setting and
    baseline in a random half of the clusters, the same for all settings, which flips the signs of their differences
    (Fisher's paired randomisation test); the statistic is the largest of the gains, each divided by its standard deviation
    under the flips. Scores that are exchangeable with the baseline's make it exact. Where 14 clusters or fewer differ at all,
    every flip is tried, and no seed decides.

    Args:
        values: values[s][i], the score of item i under setting s: a number, or whatever `aggregate` takes.
        baseline: the index of the setting that the others are compared with.
        aggregate: a metric's own aggregation of a list of items, such as corpus F1 or Matthews correlation; None is the
            mean. It is called settings * (1 + items) times, and must be smooth in the items: a median is not, and gets
            wrong intervals (Efron & Tibshirani, chapter 11).
        clusters: of the items; None takes every item by itself.
        resamples: of the bootstrap and of the flips, each.
        seed: of both.
        level: of the interval.

    Raises:
        ClasError: no settings or items, settings with different numbers of items, no such baseline, a score that is not a
            finite number, or `resamples` or `level` out of range.
    """
    if len({len(row) for row in values}) > 1:
        counts = ", ".join(str(len(row)) for row in values)
        raise ClasError(f"Gains need the same items under every setting, but the settings have {counts} items.")
    if not len(values) or not len(values[0]):
        raise ClasError("Gains need at least one setting and one item; nothing was measured.")
    if not 0 <= baseline < len(values):
        raise ClasError(f"The baseline is setting {baseline}, but there are only {len(values)} settings, from 0 on.")
    shares = item_shares(values, aggregate)
    if len(strange := np.argwhere(~np.isfinite(shares))):
        setting, item = strange[0]
        raise ClasError(
            f"Gains need finite scores, but under setting {setting} item {item} has none; leave that setting out, or use "
            "another metric."
        )
    return gains_of(shares, baseline, clusters, resamples=resamples, seed=seed, level=level)


def item_shares(
    values: Sequence[Sequence[Any]], aggregate: Callable[[Sequence[Any]], float] | None = None
) -> NDArray[np.float64]:
    """Each item's share in the score of each setting, whose mean over items is the score.

    Args:
        values, aggregate: as `paired_gains` takes them; None among the values is no score.

    Returns:
        float64 [settings, items]; not finite where there is no score, and in a whole row whose metric is not.

    Raises:
        ClasError: a score is neither a number nor None, and there is no aggregate to take it.
    """
    if aggregate is None:
        return _numbers(values)
    missing = [[value is None for value in row] for row in values]
    shares = np.full((len(values), len(values[0])), np.nan)
    for position, row in enumerate(values):
        if not any(missing[position]):
            shares[position] = _jackknife(row, aggregate)
    shares[np.array([any(row) for row in missing])] = 0.0
    shares[np.array(missing)] = np.nan
    return shares


def gains_of(
    shares: NDArray[np.float64],
    baseline: int = 0,
    clusters: Clusters | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Gains:
    """As `paired_gains`, of finite `item_shares`.

    Raises:
        ClasError: `resamples` or `level` are out of range.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ClasError(f"resamples must be 1 or more and level between 0 and 1, not {resamples} and {level}.")
    scores = shares.mean(axis=1)
    clusters = clusters or Clusters.single(shares.shape[1])
    differences = shares - shares[baseline]
    sums, sizes, count = clusters.sums(differences), clusters.sizes, clusters.count

    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, len(shares)))
    for resample in range(resamples):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        drawn[resample] = sums @ times / (sizes @ times)
    flipped = _flipped(sums, resamples, rng)
    if count < FEWEST:
        low = high = np.full(len(shares), np.nan)
    else:
        tail = student_tail((1 - level) / 2, count)
        low, high = np.quantile(drawn, (tail, 1 - tail), axis=0)

    # Around 0, where the flips are centred: it is 0 only for a setting that equals the baseline on every item.
    spread = np.sqrt(np.mean(flipped**2, axis=0))
    statistic = flipped / np.where(spread > 0, spread, 1)
    # The baseline's statistic is 0 throughout. Being one of those to pick from, it makes p = 1 for gains of 0 or less.
    best = statistic.max(axis=1)
    p_values = np.mean(best[:, None] >= statistic[0] - TIE, axis=0)
    return Gains(scores, differences.mean(axis=1), low, high, clusters.items, count, p_values)


def _flipped(sums: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Sums of the differences with the signs of some clusters turned round: all flips where they are few, or random ones.

    Args:
        sums: [settings, clusters].

    Returns:
        [flips, settings]; the first is what was measured, which counts among them.
    """
    sums = sums[:, np.abs(sums).max(axis=0) > TIE]  # flipping a difference of 0 changes nothing
    count = sums.shape[1]
    if count <= _FLIPS_ALL_TRIED:
        signs = 1.0 - 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        signs = 1.0 - 2.0 * rng.integers(2, size=(resamples + 1, count))
        signs[0] = 1.0
    flipped: NDArray[np.float64] = signs @ sums.T
    return flipped


def _numbers(values: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
    """The items' scores as float64 [settings, items]."""
    try:
        return np.array([[math.nan if value is None else float(value) for value in row] for row in values])
    except (TypeError, ValueError) as error:
        raise ClasError("A score of an item is not a number; such items need the metric's own aggregate.") from error


def _jackknife(row: Sequence[Any], aggregate: Callable[[Sequence[Any]], float]) -> NDArray[np.float64]:
    """Each item's share in the metric under one setting: float64 [items], whose mean over items is the metric itself.

    They are the jackknife's pseudo-values (Efron & Tibshirani 1993, chapter 11), without its correction of bias.
    For a metric that is a mean they are the items' own scores. All are NaN where the metric, or the metric without one of the
    items, is no finite number.
    """
    items = len(row)
    try:
        score = float(aggregate(row))
        without = [float(aggregate([*row[:item], *row[item + 1 :]])) for item in range(items)] if items > 1 else [score]
    except ArithmeticError:  # an exponential that overflows, a division by nothing
        return np.full(items, np.nan)
    left_out = np.array(without)
    if not np.isfinite([score, *without]).all():
        return np.full(items, np.nan)
    shares: NDArray[np.float64] = score + (items - 1) * (left_out.mean() - left_out)
    return shares
