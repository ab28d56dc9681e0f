"""Choosing a strength: from the scores of every item under every setting to what `alpha=tuned` uses, with the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.evidence.best_of_many import Gains, gains_of, item_shares
from lm_eval_clas.evidence.clusters import Clusters, within_correlation
from lm_eval_clas.evidence.paired_tests import SIGNIFICANT
from lm_eval_clas.masks.strengths import Conditions, Dropped, Setting, TriedSetting, Tuned, TunedStrength, short_hashes
from lm_eval_clas.neurons.bridge import layers_text
from lm_eval_clas.texts.metric_units import MetricUnit, unit_of_objective


@dataclass(frozen=True)
class Unit:
    """One task family in one language: what a strength is chosen for.

    Attributes:
        values: values[s][i], of item i under setting s, as the metric gives them, or None; setting 0 is alpha 0.
        aggregate: the metric's aggregation of items; None for the mean.
        higher_is_better: of the metric.
        documents: task, number and hash of each item.
        conditions: under which it was measured.
        clusters: of the items; None takes each by itself.
        cluster_fields: of the documents, by which they hang together.
    """

    family: str
    language: str
    tasks: tuple[str, ...]
    objective: str
    metric: str
    items_sha256: str
    values: Sequence[Sequence[Any]]
    aggregate: Callable[[Sequence[Any]], float] | None = None
    higher_is_better: bool = True
    documents: Sequence[tuple[str, int, str]] = ()
    conditions: Conditions = field(default_factory=Conditions)
    clusters: Clusters | None = None
    cluster_fields: Sequence[str] = ()


@dataclass(frozen=True)
class _WithGains:
    """A unit's gains: of setting s, those in row `rows[s]`; and why the others have none.

    Attributes:
        shares: float64 [rows, items], whose means the scores are.
    """

    unit: Unit
    gains: Gains
    shares: NDArray[np.float64]
    rows: dict[int, int]
    dropped: dict[int, str]


def choose(
    units: Sequence[Unit],
    settings: Sequence[Setting],
    *,
    shared: bool = False,
    guard: bool = False,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Chooses a setting for each unit, or one for all.

    A setting under which a unit has no finite score is left out there, and a unit without one at alpha 0 altogether.

    Args:
        units: what was measured.
        settings: the first one is alpha 0.
        shared: one setting for all units, that with the highest mean gain among those that have scores in all of them; only
            gains in one unit of measurement have a mean.
        guard: keeps alpha 0 in each unit where the chosen one's gain cannot be told from 0 on the tuning items: where its
            p-value, adjusted for the choice among all settings, is 0.05 or more.
        seed: of the resampling.
        report: told of what is left out, a sentence each.

    Returns:
        nothing for units that were left out.

    Raises:
        ClasError: a score is not a number, or `shared` gains are in several units of measurement.
    """
    compared = [found for unit in units if (found := _compare(unit, settings, seed, report)) is not None]
    if shared:
        require_one_unit(_told_in(compared))
    # Ties go to the weaker strength, and so first of all to alpha 0.
    order = sorted(range(len(settings)), key=lambda s: (abs(settings[s].alpha), s))
    everywhere = [s for s in order if all(s in one.rows for one in compared)]
    mean = {s: np.mean([one.gains.gains[one.rows[s]] for one in compared]) for s in everywhere} if compared else {}
    tuned: dict[str, dict[str, TunedStrength]] = {}
    for one in compared:
        unit, gains, rows = one.unit, one.gains, one.rows
        own = {s: gains.gains[rows[s]] for s in order if s in rows}
        best = max(mean if shared else own, key=(mean if shared else own).__getitem__)
        p_value = gains.p_value(rows[best])
        kept = guard and p_value >= SIGNIFICANT
        sign = 1 if unit.higher_is_better else -1
        measured = {
            s: TriedSetting(
                **_named(settings[s]),
                score=sign * float(gains.scores[row]),
                gain=float(gains.gains[row]),
                low=_end(gains.low[row]),
                high=_end(gains.high[row]),
            )
            for s, row in rows.items()
        }
        tuned.setdefault(unit.family, {})[unit.language] = TunedStrength(
            chosen=measured[0 if kept else best],
            best=measured[best],
            p_value=p_value,
            objective=unit.objective,
            metric=unit.metric,
            guarded=guard,
            shared=shared,
            tasks=list(unit.tasks),
            items=gains.items,
            items_sha256=unit.items_sha256,
            clusters=gains.clusters,
            cluster_fields=list(unit.cluster_fields),
            correlation=_correlation(one, rows[best]),
            documents=short_hashes(digest for _, _, digest in unit.documents),
            conditions=unit.conditions,
            measured=list(measured.values()),
            dropped=[Dropped(**_named(settings[s]), why=why) for s, why in one.dropped.items()],
        )
    return tuned


def require_one_unit(told_in: Iterable[tuple[str, MetricUnit]]) -> None:
    """Refuses tasks whose gains have no mean, of which those with the larger numbers would decide alone.

    Args:
        told_in: tasks, or their families, and the unit of measurement of each.

    Raises:
        ClasError: there are several.
    """
    by_name: dict[str, dict[str, None]] = {}
    for task, unit in told_in:
        by_name.setdefault(unit.name, {})[task] = None
    if len(by_name) > 1:
        told = "; ".join(f"{', '.join(tasks)} in {name}" for name, tasks in by_name.items())
        raise ClasError(
            f"One strength for all tasks (--shared) goes by the mean of their gains, and these gains have none ({told}); tune "
            "tasks of one unit together, or each for itself without --shared."
        )


def _told_in(compared: Sequence[_WithGains]) -> list[tuple[str, MetricUnit]]:
    """The unit of measurement of each family; of a metric, the same in all of them."""
    scores: dict[tuple[str, str], list[float]] = {}
    for one in compared:
        scores.setdefault((one.unit.objective, one.unit.metric), []).extend(one.gains.scores.tolist())
    units = {metric: unit_of_objective(*metric, found) for metric, found in scores.items()}
    return [(one.unit.family, units[one.unit.objective, one.unit.metric]) for one in compared]


def _end(end: float) -> float | None:
    """An end of an interval; None where there is none."""
    return None if np.isnan(end) else float(end)


def _named(setting: Setting) -> dict[str, Any]:
    return {**setting.options(), "layers": list(setting.layers)}


def _compare(unit: Unit, settings: Sequence[Setting], seed: int, report: Callable[[str], None]) -> _WithGains | None:
    shares = item_shares(unit.values, unit.aggregate) * (1 if unit.higher_is_better else -1)
    dropped = {s: _why(unit, s, row) for s, row in enumerate(shares) if not np.isfinite(row).all()}
    where = f"{unit.family} in {unit.language}"
    if 0 in dropped:
        report(f"{where} is not tuned: {dropped[0]} at alpha 0.")
        return None
    for s, why in dropped.items():
        report(f"{where}: {_called(s, settings)} is left out: {why} there.")
    kept = [s for s in range(len(settings)) if s not in dropped]
    gains = gains_of(shares[kept], clusters=unit.clusters, seed=seed)
    return _WithGains(unit, gains, shares[kept], {s: row for row, s in enumerate(kept)}, dropped)


def _correlation(measured: _WithGains, row: int) -> float | None:
    """Of the gains of one setting within clusters."""
    clusters = measured.unit.clusters
    return None if clusters is None else within_correlation(measured.shares[row] - measured.shares[0], clusters)


def _why(unit: Unit, setting: int, shares: Sequence[float]) -> str:
    missing = [item for item, share in enumerate(shares) if not np.isfinite(share)]
    if unit.aggregate is None or None in unit.values[setting]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        task, number, _ = unit.documents[missing[0]] if unit.documents else (unit.tasks[0], missing[0], "")
        return f"{unit.metric} of item {number} of {task}{more} is not a finite number"
    return f"{unit.metric} over all items, or without one of them, is not a finite number"


def _called(setting: int, settings: Sequence[Setting]) -> str:
    """A setting's alpha, and whatever else tells it from the others."""
    one = settings[setting]
    if sum(other.alpha == one.alpha for other in settings) == 1:
        return f"alpha {one.alpha:g}"
    return f"alpha {one.alpha:g}, beta {one.beta:g}, gamma {one.gamma:g}, layers {layers_text(one.layers)}"


def table_rows(tuned: Mapping[str, Mapping[str, TunedStrength]]) -> list[dict[str, Any]]:
    """One row for each task family, language and setting: what was measured and what was chosen."""
    return [
        {
            "task": family,
            "language": language,
            **{name: getattr(tried, name, None) for name in ("alpha", "beta", "gamma", "score", "gain", "low", "high")},
            "layers": " ".join(map(str, tried.layers)),
            "items": strength.items,
            "chosen": tried == strength.chosen,
        }
        for family, by_language in tuned.items()
        for language, strength in by_language.items()
        for tried in (*strength.measured, *strength.dropped)
    ]
