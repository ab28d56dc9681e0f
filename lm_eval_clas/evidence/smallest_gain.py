"""The smallest gain that so many items can show: what a test finds in 80 % of cases. Pure functions of numbers.

For a plan, the spread of gains and their correlation within clusters are assumed; for a run that is there, their error is
measured.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_clas.evidence.clusters import FEWEST, Clusters
from lm_eval_clas.evidence.paired_tests import SIGNIFICANT

POWER = 0.8  # share of cases in which a gain of that size is found


def planned_error(clusters: Clusters, correlation: float, spread: float) -> float:
    """The standard error of a mean gain, as clusters make it larger than that of independent items.

    Kish 1965, Survey Sampling, section 8.2, for clusters of unequal size: items count as if they were fewer by the factor
    1 + (m - 1) * correlation, with m the size of the cluster that an item is in, on average.

    Args:
        clusters: of the items.
        correlation: of gains within clusters.
        spread: standard deviation of a single item's gain.
    """
    sizes = clusters.sizes
    size = float(sizes @ sizes) / clusters.items
    return spread * math.sqrt((1 + (size - 1) * correlation) / clusters.items)


def measured_error(gains: ArrayLike, clusters: Clusters) -> float:
    """The standard error of the mean of gains [items], from the sums of clusters.

    Cochran 1977, Sampling Techniques, section 9.2.
    """
    values = np.asarray(gains, dtype=float)
    rest = clusters.sums(values - values.mean())
    return math.sqrt(float(rest @ rest) * clusters.count / max(1, clusters.count - 1)) / clusters.items


def mean_interval(gains: ArrayLike, clusters: Clusters) -> tuple[float, float] | None:
    """The 95 % interval of the mean of gains [items], by Student's t of the sums of clusters; None for too few of them."""
    from scipy.stats import t

    if clusters.count < FEWEST:
        return None
    half = float(t.ppf(1 - SIGNIFICANT / 2, clusters.count - 1)) * measured_error(gains, clusters)
    mean = float(np.asarray(gains, dtype=float).mean())
    return mean - half, mean + half


def smallest_gain(error: float, clusters: Clusters) -> float | None:
    """The mean gain that flips of clusters at 0.05, two-sided, find in 80 % of cases: by Student's t of their sums.

    Clusters of unequal size have unequal sums if every item gains, which is noise to that test: so the gain must be larger
    by what it adds to their variance itself.

    Args:
        error: standard error of the mean gain.
        clusters: of the items.

    Returns:
        None for too few clusters to show anything, and where nothing varies.
    """
    from scipy.special import stdtrit  # quantiles of Student's t; scipy.stats takes a second to import

    count, sizes = clusters.count, clusters.sizes
    if count < FEWEST or error <= 0:
        return None
    errors = float(stdtrit(count - 1, 1 - SIGNIFICANT / 2) + stdtrit(count - 1, POWER))
    left = 1 - errors**2 * float(sizes.var(ddof=1)) * count / clusters.items**2
    return errors * error / math.sqrt(left) if left > 0 else None


def smallest_of_interval(low: float, high: float) -> float | None:
    """The same of a mean whose 95 % interval is known; None where it has no width."""
    from scipy.special import ndtri

    edge = float(ndtri(1 - SIGNIFICANT / 2))
    return (high - low) / 2 * (edge + float(ndtri(POWER))) / edge if high > low else None


def chance_of_interval(value: float, low: float, high: float, clusters: int | None = None) -> float:
    """The two-sided p-value of a value, from its 95 % interval; of one without width, 0 unless it is 0 itself.

    Args:
        value, low, high: in one unit.
        clusters: the fewest that any of the averaged languages has, whose Student's t the interval is as wide as; of few, the
            tails beyond it are longer than those of a normal distribution, which is taken if None.
    """
    from scipy.special import ndtr, ndtri, stdtr, stdtrit

    if high <= low:
        return 0.0 if value else 1.0
    widths = abs(value) * 2 / (high - low)
    if clusters is None:
        return 2 * float(ndtr(-widths * ndtri(1 - SIGNIFICANT / 2)))
    return 2 * float(stdtr(clusters - 1, -widths * stdtrit(clusters - 1, 1 - SIGNIFICANT / 2)))
