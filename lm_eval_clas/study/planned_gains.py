"""The smallest gains that the items of a plan can show, in words, with what is assumed for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lm_eval_clas.evidence.cluster_fields import Clustered, clustered_alike
from lm_eval_clas.evidence.smallest_gain import planned_error, smallest_gain
from lm_eval_clas.languages.task_names import from_task_name, task_family
from lm_eval_clas.texts.metric_units import POINTS, MetricUnit, unit_of
from lm_eval_clas.texts.metrics import preferred_metric

# Gains were measured to correlate by 0.11 to 0.23 within passages (Gemma 3 270M, log-likelihood of XQuAD's gold answers). That
# one choice in ten changes, and that the F1 of an answer moves by a fifth of the scale, is assumed, and said where it is used;
# so is by how much log-likelihoods and ranks move.
CORRELATION = 0.2
CHANGED = 0.1
GRADED_SPREAD = 0.2
# Standard deviations of an item's gain, by metric; the first is near what alpha 1 and -1 did to Gemma 3 270M.
_SPREADS = {"nats_per_byte": 0.05, "gold_rank": 0.5}


def planned_gains(tasks: Mapping[str, Any], limit: int | None, cluster: str | None, anchor: str | None) -> list[str]:
    """A sentence for each family of tasks that has a language besides the anchor.

    Args:
        tasks: the harness's task objects by name.
        limit: items of each task.
        cluster: the field by which documents hang together, as `clustered_alike` takes it.
        anchor: the language that is never steered: it counts in averages, and gains nothing.

    Raises:
        ClasError: documents lack the field.
    """
    families: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        families.setdefault(task_family(name, ()), {})[name] = task
    sentences = []
    for family, members in families.items():
        together = clustered_alike(((name, list(islice(task.eval_docs, limit))) for name, task in members.items()), cluster)
        steered = [found for name, found in zip(members, together, strict=True) if from_task_name(name, ()) != anchor]
        if steered:
            sentences.append(_sentence(family, steered, len(members), _Assumed.of(members.values())))
    return sentences


@dataclass(frozen=True)
class _Assumed:
    """Of the gain of an item of a family: its unit, its standard deviation, and the same in words."""

    unit: MetricUnit
    spread: float
    told: str

    @classmethod
    def of(cls, tasks: Iterable[Any]) -> _Assumed:
        task = next(iter(tasks))  # those of a family have the same metrics
        known = list(task.aggregation())
        metric = preferred_metric(known) if known else ""
        unit = unit_of(metric, ())
        if metric == "in_language" or (task.OUTPUT_TYPE == "multiple_choice" and metric not in _SPREADS):
            return cls(unit, CHANGED**0.5, f"{100 * CHANGED:.0f} % of answers change")
        unit = POINTS if unit.name == metric else unit  # of a unit that nobody knows, as of a share
        spread = _SPREADS.get(metric, GRADED_SPREAD)
        told = f"the gain of an item has a standard deviation of {unit.scale * spread:g} {unit.name}"
        return cls(unit, spread, told)


def _sentence(family: str, languages: list[Clustered], averaged: int, assumed: _Assumed) -> str:
    """Of the steered languages; averages are over so many, and those besides gain nothing."""
    unit, digits = assumed.unit, assumed.unit.digits - 1
    together = [found for found in languages if found.field is not None]
    smallest = []
    for found in languages:
        of_one = smallest_gain(planned_error(found.clusters, CORRELATION, assumed.spread), found.clusters)
        if of_one is None:
            kind = "items" if found.clusters.alone else "clusters of items"
            return f"{family}: {found.clusters.count} {kind} are too few to show any gain; plan more."
        smallest.append(unit.scale * of_one)
    counts = [found.clusters for found in languages]
    items = _span([one.items for one in counts])
    grouped = f" in {_span([one.count for one in counts])} clusters (by '{together[0].field}')" if together else ""
    average = ""
    if averaged > 1:
        # Independent languages, and ones that gain on the same items by the same. The anchor's gain is 0 and does not vary.
        lowest = sum(one**2 for one in smallest) ** 0.5 / averaged
        among = ", the anchor among them," if averaged > len(smallest) else ""
        average = (
            f", and one of the average of {averaged} languages{among} of {lowest:.{digits}f} (if languages gain "
            f"independently) to {sum(smallest) / averaged:.{digits}f}"
        )
    correlated = f", and gains correlate by {CORRELATION:g} within clusters" if together else ""
    return (
        f"{family}: {items} items a language{grouped} show a gain of {_range(smallest, digits)} {unit.name} in a language in "
        f"80 % of cases (p < 0.05, before Holm){average}, assuming that {assumed.told}{correlated}."
    )


def _span(numbers: list[int]) -> str:
    return f"{min(numbers):,}" if min(numbers) == max(numbers) else f"{min(numbers):,} to {max(numbers):,}"


def _range(numbers: list[float], digits: int) -> str:
    low, high = f"{min(numbers):.{digits}f}", f"{max(numbers):.{digits}f}"
    return low if low == high else f"{low} to {high}"
