"""The smallest gains that the items of a plan can show, in words, with what is assumed for it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from lm_eval_clas.evidence.cluster_fields import Clustered, clustered
from lm_eval_clas.evidence.smallest_gain import planned_error, smallest_gain
from lm_eval_clas.languages.task_names import task_family

# Gains were measured to correlate by 0.11 to 0.23 within passages (Gemma 3 270M, log-likelihood of XQuAD's gold answers). That
# one choice in ten changes, and that the F1 of an answer moves by a fifth of the scale, is assumed, and said where it is used.
CORRELATION = 0.2
CHANGED = 0.1
GRADED_SPREAD = 0.2


def planned_gains(tasks: Mapping[str, Any], limit: int | None, cluster: str | None) -> list[str]:
    """A sentence for each family of tasks.

    Args:
        tasks: the harness's task objects by name.
        limit: items of each task.
        cluster: the field by which documents hang together, as `clustered` takes it.

    Raises:
        ClasError: documents lack the field.
    """
    families: dict[str, list[tuple[Any, Clustered]]] = {}
    for name, task in tasks.items():
        found = clustered(list(islice(task.eval_docs, limit)), cluster, name)
        families.setdefault(task_family(name, ()), []).append((task, found))
    return [sentence for family, members in families.items() if (sentence := _sentence(family, members))]


def _sentence(family: str, members: list[tuple[Any, Clustered]]) -> str:
    choices = all(task.OUTPUT_TYPE == "multiple_choice" for task, _ in members)
    spread = CHANGED**0.5 if choices else GRADED_SPREAD
    together = [found for _, found in members if found.field is not None]
    smallest = []
    for _, found in members:
        of_one = smallest_gain(planned_error(found.clusters, CORRELATION, spread), found.clusters)
        if of_one is None:
            kind = "items" if found.clusters.alone else "clusters of items"
            return f"{family}: {found.clusters.count} {kind} are too few to show any gain; plan more."
        smallest.append(100 * of_one)
    counts = [found.clusters for _, found in members]
    items = _span([one.items for one in counts])
    grouped = f" in {_span([one.count for one in counts])} clusters (by '{together[0].field}')" if together else ""
    average = ""
    if len(smallest) > 1:
        # Independent languages, and ones that gain on the same items by the same.
        lowest = sum(one**2 for one in smallest) ** 0.5 / len(smallest)
        average = (
            f", and one of the average of {len(smallest)} languages of {lowest:.1f} (if languages gain independently) to "
            f"{sum(smallest) / len(smallest):.1f}"
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
