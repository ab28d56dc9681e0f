"""The smallest gains that the items of a plan can show, in words, with what is assumed for it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from lm_eval_clas.evidence.cluster_fields import Clustered, clustered_alike
from lm_eval_clas.evidence.smallest_gain import planned_error, smallest_gain
from lm_eval_clas.languages.task_names import from_task_name, task_family

# Gains were measured to correlate by 0.11 to 0.23 within passages (Gemma 3 270M, log-likelihood of XQuAD's gold answers). That
# one choice in ten changes, and that the F1 of an answer moves by a fifth of the scale, is assumed, and said where it is used.
CORRELATION = 0.2
CHANGED = 0.1
GRADED_SPREAD = 0.2


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
            choices = all(task.OUTPUT_TYPE == "multiple_choice" for task in members.values())
            sentences.append(_sentence(family, steered, len(members), choices))
    return sentences


def _sentence(family: str, languages: list[Clustered], averaged: int, choices: bool) -> str:
    """Of the steered languages; averages are over so many, and those besides gain nothing."""
    spread = CHANGED**0.5 if choices else GRADED_SPREAD
    together = [found for found in languages if found.field is not None]
    smallest = []
    for found in languages:
        of_one = smallest_gain(planned_error(found.clusters, CORRELATION, spread), found.clusters)
        if of_one is None:
            kind = "items" if found.clusters.alone else "clusters of items"
            return f"{family}: {found.clusters.count} {kind} are too few to show any gain; plan more."
        smallest.append(100 * of_one)
    counts = [found.clusters for found in languages]
    items = _span([one.items for one in counts])
    grouped = f" in {_span([one.count for one in counts])} clusters (by '{together[0].field}')" if together else ""
    average = ""
    if averaged > 1:
        # Independent languages, and ones that gain on the same items by the same. The anchor's gain is 0 and does not vary.
        lowest = sum(one**2 for one in smallest) ** 0.5 / averaged
        among = ", the anchor among them," if averaged > len(smallest) else ""
        average = (
            f", and one of the average of {averaged} languages{among} of {lowest:.1f} (if languages gain independently) to "
            f"{sum(smallest) / averaged:.1f}"
        )
    varies = f"the gain of an item has a standard deviation of {100 * GRADED_SPREAD:.0f} points"
    assumed = f"{100 * CHANGED:.0f} % of answers change" if choices else varies
    correlated = f", and gains correlate by {CORRELATION:g} within clusters" if together else ""
    return (
        f"{family}: {items} items a language{grouped} show a gain of {_points(smallest)} points in a language in 80 % of "
        f"cases (p < 0.05, before Holm){average}, assuming that {assumed}{correlated}."
    )


def _span(numbers: list[int]) -> str:
    return f"{min(numbers):,}" if min(numbers) == max(numbers) else f"{min(numbers):,} to {max(numbers):,}"


def _points(numbers: list[float]) -> str:
    low, high = f"{min(numbers):.1f}", f"{max(numbers):.1f}"
    return low if low == high else f"{low} to {high}"
