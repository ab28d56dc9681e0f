"""The unit that a metric's scores and gains are told in: points for shares that papers print so, else what they are in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricUnit:
    """A unit, in words.

    Attributes:
        name: as it stands after `in`: `points`, `nats per byte`, or a metric's own name, of whose unit nothing is known.
        scale: what scores are multiplied by.
        digits: after the point, of averages and their gains.
    """

    name: str
    scale: float = 1.0
    digits: int = 3


POINTS = MetricUnit("points", 100.0, 2)
NATS = MetricUnit("nats")
_NATS_PER_BYTE = MetricUnit("nats per byte", digits=4)
_RANKS = MetricUnit("ranks")
_SHARES = MetricUnit("shares of 1")
_BY_METRIC = {"nats_per_byte": _NATS_PER_BYTE, "gold_rank": _RANKS, "in_language": _SHARES, "repetition": _SHARES}
_BY_NAME = {one.name: one for one in (POINTS, NATS, *_BY_METRIC.values())}
# Metrics that the harness gives in another unit than a share of 1, whatever their value in a run.
_OTHER_UNITS = ("bleu", "chrf", "ter", "perplexity", "bits_per_byte", "brier_score", "likelihood")


def unit_of(metric: str, scores: Iterable[float]) -> MetricUnit:
    """The unit of a metric: points for those that were not heard of here, as far as their scores are shares of 1.

    Args:
        metric: its name, without a filter.
        scores: all that are told together.
    """
    if metric in _BY_METRIC:
        return _BY_METRIC[metric]
    if any(part in metric for part in _OTHER_UNITS) or not all(-1 <= score <= 1 for score in scores):
        return MetricUnit(metric)
    return POINTS


def unit_of_objective(objective: str, metric: str, scores: Iterable[float]) -> MetricUnit:
    """The unit of what tuning makes as high as it can: that of the metric, or nats of log-likelihoods that are none.

    Args:
        objective: `metric` or `loglikelihood`.
        metric, scores: as `unit_of` takes them.
    """
    return unit_of(metric, scores) if objective == "metric" or metric in _BY_METRIC else NATS


def unit_named(name: str) -> MetricUnit:
    """The unit that is called so, as files keep it."""
    return _BY_NAME.get(name, MetricUnit(name))
