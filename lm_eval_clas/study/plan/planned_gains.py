"""The smallest gains that the items of a plan can show, in words, with what is assumed for it."""

from __future__ import annotations

from typing import NamedTuple

from lm_eval_clas.evidence.cluster_fields import OWN_FIELD, SWITCHED_OFF, no_field
from lm_eval_clas.evidence.clusters import Clusters
from lm_eval_clas.evidence.smallest_gain import planned_error, smallest_gain
from lm_eval_clas.languages.task_names import task_family
from lm_eval_clas.study.plan.known_sizes import KnownFamily, KnownTask, known_sizes
from lm_eval_clas.study.recipe import StudyRecipe

# Gains were measured to correlate by 0.11 to 0.23 within passages (Gemma 3 270M, log-likelihood of XQuAD's gold answers). That
# one choice in ten changes, and that the F1 of an answer moves by a fifth of the scale, is assumed, and said where it is used.
CORRELATION = 0.2
CHANGED = 0.1
GRADED_SPREAD = 0.2


class _Planned(NamedTuple):
    """Items of one task in clusters, by a field or each by itself; `guessed`: nobody looked whether they hang together."""

    clusters: Clusters
    field: str | None
    guessed: bool


def planned_gains(recipe: StudyRecipe, anchor: str | None) -> list[str]:
    """A sentence for each family of tasks on file that has a language besides the anchor.

    Args:
        anchor: the language that is never steered: it counts in averages, and gains nothing.

    Raises:
        ClasError: documents lack the field of the recipe's `cluster`.
    """
    sentences = []
    for part in recipe.parts.values():
        families: dict[str, list[tuple[KnownFamily, str, KnownTask]]] = {}
        for family, name, task in known_sizes().find(part.evaluate)[0]:
            families.setdefault(task_family(name, ()), []).append((family, name, task))
        for called, members in families.items():
            if members[0][0].grouped:
                sentences.append(f"{called}: unknown, as tables are by subject, and items by subject are not on file.")
                continue
            items = {name: _clusters(family, name, task, part.limit, recipe.cluster) for family, name, task in members}
            steered = [items[name] for _, name, task in members if task.language != anchor]
            if steered:
                sentences.append(_sentence(called, members[0][0], steered, len(members)))
    return sentences


def _clusters(family: KnownFamily, name: str, task: KnownTask, limit: int | None, field: str | None) -> _Planned:
    """The items of a task, as the data on file hang together."""
    items = min(task.items, limit or task.items)
    if field not in (None, SWITCHED_OFF, OWN_FIELD) and family.fields is not None and field not in family.fields:
        raise no_field(task.items, task.items, name, field, family.fields)
    if field == SWITCHED_OFF or family.clusters is None or field not in (None, OWN_FIELD):
        return _Planned(Clusters.single(items), None, field != SWITCHED_OFF and family.fields is None)
    sizes = [size for size, count in family.clusters for _ in range(count)]
    numbers = [number for number, size in enumerate(sizes) for _ in range(size)]
    return _Planned(Clusters.of(numbers[:items]), OWN_FIELD, False)


def _sentence(called: str, family: KnownFamily, languages: list[_Planned], averaged: int) -> str:
    """Of the steered languages; averages are over so many, and those besides gain nothing."""
    choices = not family.generates
    spread = CHANGED**0.5 if choices else GRADED_SPREAD
    together = [found for found in languages if found.field is not None]
    smallest = []
    for found in languages:
        of_one = smallest_gain(planned_error(found.clusters, CORRELATION, spread), found.clusters)
        if of_one is None:
            kind = "items" if found.clusters.alone else "clusters of items"
            return f"{called}: {found.clusters.count} {kind} are too few to show any gain; plan more."
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
    if any(found.guessed for found in languages):
        correlated += ", and no items hang together, which was not looked at"
    return (
        f"{called}: {items} items a language{grouped} show a gain of {_points(smallest)} points in a language in 80 % of "
        f"cases (p < 0.05, before Holm){average}, assuming that {assumed}{correlated}."
    )


def _span(numbers: list[int]) -> str:
    return f"{min(numbers):,}" if min(numbers) == max(numbers) else f"{min(numbers):,} to {max(numbers):,}"


def _points(numbers: list[float]) -> str:
    low, high = f"{min(numbers):.1f}", f"{max(numbers):.1f}"
    return low if low == high else f"{low} to {high}"
