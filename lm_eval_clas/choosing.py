"""Choosing a strength: from the scores of every item under every setting to what `alpha=tuned` uses, with the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_eval_clas.statistics import Gains, paired_gains
from lm_eval_clas.tuned import Measured, Setting, Tuned, TunedStrength

# A gain is told from none at the usual level, adjusted for the choice among settings.
_LEVEL = 0.05


@dataclass(frozen=True)
class Unit:
    """One task family in one language: what a strength is chosen for.

    Attributes:
        values: values[s][i], of item i under setting s, as the metric gives them; setting 0 is alpha 0.
        aggregate: the metric's aggregation of items; None for the mean.
        higher_is_better: of the metric.
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


def choose(
    units: Sequence[Unit], settings: Sequence[Setting], *, shared: bool = False, guard: bool = False, seed: int = 0
) -> Tuned:
    """Chooses a setting for each unit, or one for all.

    Args:
        units: what was measured.
        settings: the first one is alpha 0.
        shared: one setting for all units, that with the highest mean gain.
        guard: keeps alpha 0 in each unit where the chosen one's gain cannot be told from 0 on the tuning items: where its
            p-value, adjusted for the choice among all settings, is 0.05 or more.
        seed: of the resampling.

    Raises:
        ClasError: a score is not a finite number.
    """
    gains = [_gains(unit, seed) for unit in units]
    # Ties go to the weaker strength, and so first of all to alpha 0.
    order = sorted(range(len(settings)), key=lambda s: (abs(settings[s].alpha), s))
    mean = np.mean([one.gains for one in gains], axis=0)
    tuned: dict[str, dict[str, TunedStrength]] = {}
    for unit, gain in zip(units, gains, strict=True):
        best = max(order, key=lambda s: (mean if shared else gain.gains)[s])
        kept = guard and gain.p_value(best) >= _LEVEL
        sign = 1 if unit.higher_is_better else -1
        measured = [
            Measured(
                alpha=setting.alpha,
                beta=setting.beta,
                gamma=setting.gamma,
                layers=list(setting.layers),
                score=sign * float(gain.scores[s]),
                gain=float(gain.gains[s]),
                low=float(gain.low[s]),
                high=float(gain.high[s]),
            )
            for s, setting in enumerate(settings)
        ]
        tuned.setdefault(unit.family, {})[unit.language] = TunedStrength(
            chosen=measured[0 if kept else best],
            best=measured[best],
            p_value=gain.p_value(best),
            objective=unit.objective,
            metric=unit.metric,
            guarded=guard,
            shared=shared,
            tasks=list(unit.tasks),
            items=gain.items,
            items_sha256=unit.items_sha256,
            measured=measured,
        )
    return tuned


def _gains(unit: Unit, seed: int) -> Gains:
    if unit.higher_is_better:
        return paired_gains(unit.values, 0, unit.aggregate, seed=seed)
    if unit.aggregate is None:
        return paired_gains([[-value for value in row] for row in unit.values], 0, seed=seed)
    aggregate = unit.aggregate
    return paired_gains(unit.values, 0, lambda items: -aggregate(items), seed=seed)


def table_rows(tuned: Mapping[str, Mapping[str, TunedStrength]]) -> list[dict[str, Any]]:
    """One row for each task family, language and setting: what was measured and what was chosen."""
    return [
        {
            "task": family,
            "language": language,
            **measured.model_dump(exclude={"layers"}),
            "layers": " ".join(map(str, measured.layers)),
            "items": strength.items,
            "chosen": measured == strength.chosen,
        }
        for family, by_language in tuned.items()
        for language, strength in by_language.items()
        for measured in strength.measured
    ]
