"""How far two sets or two labellings agree, and how far they would by chance. Pure functions of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def jaccard(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float | None:
    """The members of both sets among those of either; None of two empty sets. Both are bool [neurons]."""
    either = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / either) if either else None


def jaccard_by_chance(a: int, b: int, total: int) -> float | None:
    """The Jaccard index that is expected of random sets of `a` and `b` out of `total` neurons; None of two empty sets.

    The size of their intersection is hypergeometric, so that this is exact. (scipy's `hypergeom.pmf` is too: it takes seconds
    for the sizes of a layer, and there are hundreds to compare.)
    """
    from scipy.special import gammaln

    if not a + b:
        return None
    both = np.arange(max(0, a + b - total), min(a, b) + 1)

    def log_choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
        return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)  # type: ignore[no-any-return]

    weights = log_choose(a, both) + log_choose(total - a, b - both)
    weights = np.exp(weights - weights.max())
    return float(np.sum(weights * both / (a + b - both)) / weights.sum())


def kappa(a: NDArray[np.generic], b: NDArray[np.generic]) -> float | None:
    """Cohen's (1960) kappa of two labellings; None where chance alone agrees fully, as one label is all there is."""
    from sklearn.metrics import cohen_kappa_score

    if len(np.union1d(a, b)) < 2:
        return None
    return float(cohen_kappa_score(a, b))
