"""The headline of a report: the clearest statement of a study about averages over languages, whichever way it points.

Nothing is estimated here but how clear a difference is, which its interval tells. It is picked from each task's first metric,
which was chosen before anything was measured; what the task's further ones say against it goes with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lm_eval_clas.comparing.printed.written_names import spoken, written_family, written_metric
from lm_eval_clas.comparing.rows import Comparison, Row, RowKind
from lm_eval_clas.comparing.task_families import language_of
from lm_eval_clas.evidence.paired_tests import SIGNIFICANT
from lm_eval_clas.evidence.smallest_gain import chance_of_interval
from lm_eval_clas.study.report.verdicts import (
    advantage,
    baseline_of,
    by_task,
    controls_of,
    own_controls,
    primary_of,
    same_run,
    steered_languages,
    tests_against,
)
from lm_eval_clas.study.report.wording import amount, counted, listed, number_text, probability

_METHODS: tuple[RowKind, ...] = ("method",)
RUNS: tuple[RowKind, ...] = ("method", "control")  # what is steered


@dataclass(frozen=True)
class Lead:
    """How far one run is ahead of another on a task, on average over languages; behind, if the numbers are negative.

    Attributes:
        by: in the unit of the comparison, with the sign that says better.
        low, high: of the 95 % interval, turned the same way.
        clusters: the fewest that a language of the average has; None where the files do not tell.
    """

    comparison: Comparison
    by: float
    low: float
    high: float
    clusters: int | None

    @classmethod
    def of(cls, comparison: Comparison, row: Row) -> Lead | None:
        """Of a row over its comparison's baseline; None where it has no interval."""
        if row.gain is None or row.low is None or row.high is None:
            return None
        ends = sorted(advantage(comparison, end) for end in (row.low, row.high))
        counts = [cell.clusters for code in comparison.average_languages if (cell := row.cells.get(code)) and cell.clusters]
        return cls(comparison, advantage(comparison, row.gain), ends[0], ends[1], min(counts, default=None))

    @property
    def side(self) -> int:
        """1 or -1 if the interval lies above or below 0, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    @property
    def chance(self) -> float:
        """The p-value that the interval tells, for no other comparison having been looked at."""
        return chance_of_interval(self.by, self.low, self.high, self.clusters)

    def __str__(self) -> str:
        """`0.84 points (0.18 to 1.52)`, without a sign where it is said in words which way it goes."""
        return self.told()

    def told(self, more: str = "") -> str:
        """The same with what else stands in the brackets."""
        turn = -1 if self.side < 0 else 1
        low, high = sorted((turn * self.low, turn * self.high))
        digits = self.comparison.digits
        ends = f"{number_text(low, digits)} to {number_text(high, digits)}"
        return f"{amount(self.comparison, abs(self.by))} ({'; '.join(filter(None, (ends, more)))})"


@dataclass(frozen=True)
class Statement:
    """A sentence without its full stop, about one task, and how clear it is: the p-value of its clearest part."""

    text: str
    comparison: Comparison
    chance: float
    after: int = 0  # those of a lower number come first, however clear


def first_minute(comparisons: Mapping[str, Comparison], against: Sequence[Comparison]) -> tuple[str, str, Comparison | None]:
    """The headline, what it was picked from, and the comparison that it is about.

    Args:
        comparisons: against the baseline, by name.
        against: comparisons with a control as baseline.
    """
    found: list[Statement] = []
    looked_at = 0
    groups = by_task(comparisons.values())
    for one, *further in groups:
        told, count = _statements(one, against, further)
        found, looked_at = [*found, *told], looked_at + count
    first = groups[0][0] if groups else None
    if not looked_at:
        nothing = "No run has an interval of its average gain, so nothing can be said about whether steering helps"
        return f"{nothing}.", "", first
    if not found:
        nothing = "o method is shown to help or to hurt: the 95\u00a0% interval of every average gain holds 0"
        if any(lead.side for _, *further in groups for one in further for _, lead in leads_of(one, RUNS)):
            return f"By the first metric of each task, n{nothing}; by others, some do not.", "", first
        return f"N{nothing}.", "", first

    def sure(one: Statement) -> bool:
        return one.chance * looked_at < SIGNIFICANT

    best = min(found, key=lambda one: (not sure(one), one.after, one.chance))
    adjusted = min(1.0, best.chance * looked_at)
    surely = "" if sure(best) else ", so it may be chance"
    p = probability(adjusted)
    p = p if "<" in p else f"=\u00a0{p}"
    among = f"This was picked from {looked_at} comparisons of averages; adjusted for that many, p\u00a0{p}{surely}."
    return f"{best.text[0].upper()}{best.text[1:]}.", among if looked_at > 1 else "", best.comparison


def _statements(
    comparison: Comparison, against: Sequence[Comparison], further: Sequence[Comparison]
) -> tuple[list[Statement], int]:
    """What is supported on one task, and how many comparisons of averages that was picked from; `further` are other metrics."""
    found: list[Statement] = []
    on, baseline = f"on {written_family(comparison.family)}", baseline_of(comparison)
    if comparison.unit.startswith("shares"):  # of what, no such unit says
        on = f"{on} ({written_metric(comparison.metric, comparison.family)})"
    over = f" over {spoken(comparison, baseline)}" if baseline is not None else ""
    beaten_by: dict[str, list[tuple[Row, Lead]]] = {}
    looked_at = 0
    for row in comparison.rows:
        lead = Lead.of(comparison, row) if row.kind in RUNS else None
        if lead is None or steers_nothing(comparison, row):
            continue
        name = spoken(comparison, row)
        told = lead.told(steered_share(comparison, row))
        tests = over_controls(comparison, row, against) if row.kind == "method" else {}
        looked_at += 1 + len(tests)
        for label, test in tests.items():
            if test.side < 0:
                beaten_by.setdefault(label, []).append((row, test))
        if lead.side < 0:
            after = 2 if row.kind == "control" else 0
            found.append(Statement(f"{name} lost {told} {on}{over}", comparison, lead.chance, after))
        elif lead.side > 0:
            controls = [one for one in controls_of(comparison) if one.label in tests]
            behind = [one for one in controls if tests[one.label].side <= 0]
            names = listed([spoken(comparison, one) for one in behind or controls])
            worse = _worse_elsewhere(row, further) if row.kind == "method" else ""
            if row.kind == "control":
                found.append(Statement(f"{name} gained {told} {on}{over}", comparison, lead.chance, 2))
            elif controls and not behind:
                chance = max(lead.chance, *(test.chance for test in tests.values()))
                text = f"{name} gained {told} {on}{over}, and beat {names}{worse}"
                found.append(Statement(text, comparison, chance, int(bool(worse))))
            else:
                but = f", but is not shown to beat {names}" if behind else f", and {untested(comparison, row)}"
                found.append(Statement(f"{name} gained {told} {on}{over}{but}{worse}", comparison, lead.chance, 1))
    main = primary_of(comparison)
    for label, beaten in beaten_by.items():
        control = next(one for one in controls_of(comparison) if one.label == label)
        beaten.sort(key=lambda pair: (pair[0] is not main, pair[1].chance))
        behind_it = listed([f"{spoken(comparison, row)} by {test}" for row, test in beaten])
        chance = max(test.chance for _, test in beaten)  # it is said of all of them
        found.append(Statement(f"{spoken(comparison, control)} beat {behind_it} {on}", comparison, chance))
    return found, looked_at


def leads_of(comparison: Comparison, kinds: Collection[RowKind] = _METHODS) -> list[tuple[Row, Lead]]:
    """The rows of these kinds that steer a language and have an interval, with their leads, the clearest first."""
    rows = [row for row in comparison.rows if row.kind in kinds and not steers_nothing(comparison, row)]
    found = [(row, lead) for row in rows if (lead := Lead.of(comparison, row)) is not None]
    return sorted(found, key=lambda pair: pair[1].chance)


def _worse_elsewhere(row: Row, further: Sequence[Comparison]) -> str:
    """By which other metrics of a task a row is worse; empty where none shows it."""
    told = [
        f"by {written_metric(one.metric, one.family)} it is worse by {lead}"
        for one in further
        if (its := same_run(one, row)) is not None and (lead := Lead.of(one, its)) is not None and lead.side < 0
    ]
    return f", but {listed(told)}" if told else ""


def steered_share(comparison: Comparison, row: Row) -> str:
    """`5 of 11 languages steered`; empty for a run whose file does not tell, such as that of another model."""
    if not row.steering:
        return ""
    columns = [code for code in comparison.languages if language_of(code) != comparison.anchor]
    return f"{len(steered_languages(comparison, row))} of {counted(len(columns), 'language')} steered"


def steers_nothing(comparison: Comparison, row: Row) -> bool:
    """Whether a run's file says that no language was steered: it has the baseline's answers, and nothing was compared."""
    return bool(row.steering) and not steered_languages(comparison, row)


def untested(comparison: Comparison, row: Row) -> str:
    """Why nothing says how a method does beside controls."""
    return "was tested against no control" if own_controls(comparison, row) else "no control of its strength was run"


def over_controls(comparison: Comparison, row: Row, against: Iterable[Comparison]) -> dict[str, Lead]:
    """How far a row is ahead of each control that it was tested against, by the control's label."""
    found = {}
    for label, tested in tests_against(comparison, against, row).items():
        its = same_run(tested, row)
        if its is not None and (lead := Lead.of(tested, its)) is not None:
            found[label] = lead
    return found
