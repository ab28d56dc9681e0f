"""How likely a model finds a gold answer: its log-likelihood by length, and its rank among choices."""

from __future__ import annotations

import math
from collections.abc import Sequence


def nats_per_byte(log_likelihood: float, answer: str) -> float:
    """A log-likelihood in nats, divided by the length of its text in UTF-8: at most 0, and the higher the better.

    Args:
        log_likelihood: of the answer as the continuation of its prompt.
        answer: without the space before it.

    Raises:
        ValueError: the answer is empty.
    """
    if not answer:
        raise ValueError("an empty answer has no length to divide by")
    return log_likelihood / len(answer.encode())


def gold_rank(scores: Sequence[float], gold: int) -> float:
    """The place of the gold answer among choices, from 1 for the best; the mean of the places that equal scores share.

    Args:
        scores: of all choices, the higher the better.
        gold: the position of the gold answer among them.

    Returns:
        1 to the number of choices; NaN if a score is.
    """
    if any(map(math.isnan, scores)):
        return math.nan
    equal = sum(score == scores[gold] for score in scores)  # the gold one itself among them
    return sum(score > scores[gold] for score in scores) + (1 + equal) / 2
