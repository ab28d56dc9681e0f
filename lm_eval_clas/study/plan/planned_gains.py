"""The smallest gains that the items of a plan can show, in words, with what is assumed for it."""

from __future__ import annotations

from typing import NamedTuple

from lm_eval_clas.evidence.cluster_fields import OWN_FIELD, SWITCHED_OFF, no_field
from lm_eval_clas.evidence.clusters import Clusters
from lm_eval_clas.evidence.smallest_gain import planned_error, smallest_gain
from lm_eval_clas.languages.task_names import task_family
from lm_eval_clas.study.plan.known_sizes import KnownFamily, KnownTask, known_sizes
from lm_eval_clas.study.recipe import StudyRecipe
from lm_eval_clas.texts.metric_units import POINTS, MetricUnit, unit_of

# Gains were measured to correlate by 0.11 to 0.23 within passages (Gemma 3 270M, log-likelihood of XQuAD's gold answers). That
# one choice in ten changes, and that the F1 of an answer moves by a fifth of the scale, is assumed, and said where it is used;
# so is by how much log-likelihoods and ranks move.
CORRELATION = 0.2
CHANGED = 0.1
GRADED_SPREAD = 0.2
# Standard deviations of an item's gain, by metric; the first is near what alpha 1 and -1 did to Gemma 3 270M.
_SPREADS = {"nats_per_byte": 0.05, "gold_rank": 0.5}


class _Planned(NamedTuple):
    """Items of one task in clusters, by a field or each by itself; `guessed`: nobody looked whether they hang together."""

    clusters: Clusters
    field: str | None
    guessed: bool


def planned_gains(recipe: StudyRecipe, anchor: str | None) -> list[str]:
    """What families of tasks on file can show that have a language besides the anchor, a sentence for those that show the same.

    Args:
        anchor: the language that is never steered: it counts in averages, and gains nothing.

    Raises:
        ClasError: documents lack the field of the recipe's `cluster`.
    """
    shown: dict[str, list[str]] = {}
    for part in recipe.parts.values():
        families: dict[str, list[tuple[KnownFamily, str, KnownTask, int]]] = {}
        for one in known_sizes().find_limited(part.limited())[0]:
            families.setdefault(task_family(one[1], ()), []).append(one)
        for called, members in families.items():
            if members[0][0].grouped:
                shown.setdefault("unknown, as tables are by subject, and items by subject are not on file.", []).append(called)
                continue
            planned = {name: _clusters(family, name, task, items, recipe.cluster) for family, name, task, items in members}
            steered = [planned[name] for _, name, task, _ in members if task.language != anchor]
            if steered:
                shown.setdefault(_sentence(members[0][0], steered, len(members)), []).append(called)
    return [f"{', '.join(names)}: {sentence}" for sentence, names in shown.items()]


def _clusters(family: KnownFamily, name: str, task: KnownTask, items: int, field: str | None) -> _Planned:
    """So many items of a task, as the data on file hang together."""
    if field not in (None, SWITCHED_OFF, OWN_FIELD) and family.fields is not None and field not in family.fields:
        raise no_field(task.items, task.items, name, field, family.fields)
    if field == SWITCHED_OFF or family.clusters is None or field not in (None, OWN_FIELD):
        return _Planned(Clusters.single(items), None, field != SWITCHED_OFF and family.fields is None)
    sizes = [size for size, count in family.clusters for _ in range(count)]
    numbers = [number for number, size in enumerate(sizes) for _ in range(size)]
    return _Planned(Clusters.of(numbers[:items]), OWN_FIELD, False)


class _Assumed(NamedTuple):
    """Of the gain of an item of a family: its unit, its standard deviation, and the same in words."""

    unit: MetricUnit
    spread: float
    told: str

    @classmethod
    def of(cls, family: KnownFamily) -> _Assumed:
        metric = family.metric or ("f1" if family.generates else "acc")
        unit = unit_of(metric, ())
        if metric == "in_language" or (not family.generates and metric not in _SPREADS):
            return cls(unit, CHANGED**0.5, f"{100 * CHANGED:.0f} % of answers change")
        unit = POINTS if unit.name == metric else unit  # of a unit that nobody knows, as of a share
        spread = _SPREADS.get(metric, GRADED_SPREAD)
        return cls(unit, spread, f"the gain of an item has a standard deviation of {unit.scale * spread:g} {unit.name}")


def _sentence(family: KnownFamily, languages: list[_Planned], averaged: int) -> str:
    """Of the steered languages; averages are over so many, and those besides gain nothing."""
    assumed = _Assumed.of(family)
    unit, digits = assumed.unit, assumed.unit.digits - 1
    together = [found for found in languages if found.field is not None]
    smallest = []
    for found in languages:
        of_one = smallest_gain(planned_error(found.clusters, CORRELATION, assumed.spread), found.clusters)
        if of_one is None:
            kind = "items" if found.clusters.alone else "clusters of items"
            return f"{found.clusters.count} {kind} are too few to show any gain; plan more."
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
    if any(found.guessed for found in languages):
        correlated += ", and no items hang together, which was not looked at"
    return (
        f"{items} items a language{grouped} show a gain of {_range(smallest, digits)} {unit.name} in a language in "
        f"80 % of cases (p < 0.05, before Holm){average}, assuming that {assumed.told}{correlated}."
    )


def _span(numbers: list[int]) -> str:
    return f"{min(numbers):,}" if min(numbers) == max(numbers) else f"{min(numbers):,} to {max(numbers):,}"


def _range(numbers: list[float], digits: int) -> str:
    low, high = f"{min(numbers):.{digits}f}", f"{max(numbers):.{digits}f}"
    return low if low == high else f"{low} to {high}"
