"""What a reader gets in the first minute: the clearest statement of a study, one sentence a task, and what could not be seen.

Nothing is estimated here but how clear a difference is, which its interval tells. Statements are about averages over
languages; whatever points against steering counts as much as what points for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lm_eval_clas.comparing.printed.written_names import spoken, written_family, written_metric
from lm_eval_clas.comparing.rows import Comparison, Row
from lm_eval_clas.evidence.paired_tests import SIGNIFICANT
from lm_eval_clas.evidence.smallest_gain import chance_of_interval, smallest_of_interval
from lm_eval_clas.study.report.verdicts import (
    advantage,
    baseline_of,
    controls_of,
    primary_of,
    same_run,
    tests_against,
)
from lm_eval_clas.study.report.wording import amount, interval, listed, number_text, probability, signed


@dataclass(frozen=True)
class Lead:
    """How far one run is ahead of another on a task, on average over languages; behind, if the numbers are negative.

    Attributes:
        by: in the unit of the comparison, with the sign that says better.
        low, high: of the 95 % interval, turned the same way.
    """

    comparison: Comparison
    by: float
    low: float
    high: float

    @classmethod
    def of(cls, comparison: Comparison, row: Row) -> Lead | None:
        """Of a row over its comparison's baseline; None where it has no interval."""
        if row.gain is None or row.low is None or row.high is None:
            return None
        ends = sorted(advantage(comparison, end) for end in (row.low, row.high))
        return cls(comparison, advantage(comparison, row.gain), ends[0], ends[1])

    @property
    def side(self) -> int:
        """1 or -1 if the interval lies above or below 0, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    @property
    def chance(self) -> float:
        """The p-value that the interval tells, for no other comparison having been looked at."""
        return chance_of_interval(self.by, self.low, self.high)

    def __str__(self) -> str:
        """`0.84 points (0.18 to 1.52)`, without a sign where it is said in words which way it goes."""
        turn = -1 if self.side < 0 else 1
        low, high = sorted((turn * self.low, turn * self.high))
        digits = self.comparison.digits
        return f"{amount(self.comparison, abs(self.by))} ({number_text(low, digits)} to {number_text(high, digits)})"


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
    for one in comparisons.values():
        told, count = _statements(one, against)
        found, looked_at = [*found, *told], looked_at + count
    first = next(iter(comparisons.values()), None)
    if not looked_at:
        nothing = "No run has an interval of its average gain, so nothing can be said about whether steering helps"
        return f"{nothing}.", "", first
    if not found:
        return "No method is shown to help or to hurt: the 95\u00a0% interval of every average gain holds 0.", "", first

    def sure(one: Statement) -> bool:
        return one.chance * looked_at < SIGNIFICANT

    best = min(found, key=lambda one: (not sure(one), one.after, one.chance))
    adjusted = min(1.0, best.chance * looked_at)
    surely = "" if sure(best) else ", so it may be chance"
    p = probability(adjusted)
    p = p if "<" in p else f"=\u00a0{p}"
    among = f"This was picked from {looked_at} comparisons of averages; adjusted for that many, p\u00a0{p}{surely}."
    return f"{best.text[0].upper()}{best.text[1:]}.", among if looked_at > 1 else "", best.comparison


def _statements(comparison: Comparison, against: Sequence[Comparison]) -> tuple[list[Statement], int]:
    """What is supported on one task, and how many comparisons of averages that was picked from."""
    found: list[Statement] = []
    on, baseline = f"on {written_family(comparison.family)}", baseline_of(comparison)
    over = f" over {spoken(comparison, baseline)}" if baseline is not None else ""
    beaten_by: dict[str, list[tuple[Row, Lead]]] = {}
    looked_at = 0
    for row in comparison.rows:
        lead = Lead.of(comparison, row) if row.kind in ("method", "control") else None
        if lead is None:
            continue
        name = spoken(comparison, row)
        tests = over_controls(comparison, row, against) if row.kind == "method" else {}
        looked_at += 1 + len(tests)
        for label, test in tests.items():
            if test.side < 0:
                beaten_by.setdefault(label, []).append((row, test))
        if lead.side < 0:
            after = 2 if row.kind == "control" else 0
            found.append(Statement(f"{name} lost {lead} {on}{over}", comparison, lead.chance, after))
        elif lead.side > 0:
            controls = [one for one in controls_of(comparison) if one.label in tests]
            behind = [one for one in controls if tests[one.label].side <= 0]
            names = listed([spoken(comparison, one) for one in behind or controls])
            if row.kind == "control":
                found.append(Statement(f"{name} gained {lead} {on}{over}", comparison, lead.chance, 2))
            elif controls and not behind:
                chance = max(lead.chance, *(test.chance for test in tests.values()))
                found.append(Statement(f"{name} gained {lead} {on}{over}, and beat {names}", comparison, chance))
            else:
                but = f", but is not shown to beat {names}" if behind else ", and was tested against no control"
                found.append(Statement(f"{name} gained {lead} {on}{over}{but}", comparison, lead.chance, 1))
    main = primary_of(comparison)
    for label, beaten in beaten_by.items():
        control = next(one for one in controls_of(comparison) if one.label == label)
        beaten.sort(key=lambda pair: (pair[0] is not main, pair[1].chance))
        told = listed([f"{spoken(comparison, row)} by {test}" for row, test in beaten])
        chance = max(test.chance for _, test in beaten)  # it is said of all of them
        found.append(Statement(f"{spoken(comparison, control)} beat {told} {on}", comparison, chance))
    return found, looked_at


def task_sentence(comparison: Comparison, against: Sequence[Comparison]) -> str:
    """One sentence: which methods help or hurt on a task, and whether what is judged, CLAS, does more than its controls."""
    on = f"On {written_family(comparison.family)} ({written_metric(comparison.metric)})"
    main = primary_of(comparison)
    rows = [row for row in comparison.rows if row.kind == "method"]
    if not rows or main is None:
        return f"{on}, no steered run was compared."
    leads = {row.label: Lead.of(comparison, row) for row in rows}
    clear = [(row, lead) for row in rows if (lead := leads[row.label]) is not None and lead.side]
    clear.sort(key=lambda pair: pair[1].chance)
    parts = []
    for row, lead in clear:
        verb = "gains" if lead.side > 0 else "loses"
        parts.append(f"{spoken(comparison, row)} {verb} {lead}{_beside(comparison, row, against)}")
    if not any(row is main for row, _ in clear):
        parts.append(_unclear(comparison, main, leads[main.label], against))
    rest = [row for row in rows if row is not main and not any(row is one for one, _ in clear)]
    if rest:
        parts.append(f"no gain or loss is shown for {listed([spoken(comparison, row) for row in rest])}")
    lower = "" if comparison.higher_is_better else " (lower is better)"
    return f"{on}{lower}, {'; '.join(parts)}."


def _unclear(comparison: Comparison, row: Row, lead: Lead | None, against: Sequence[Comparison]) -> str:
    """Of a method whose interval holds 0, or which has none."""
    name = spoken(comparison, row)
    if lead is None:
        return f"{name} has no interval of its average gain"
    if lead.low == lead.high == 0:
        return f"{name} changes nothing"
    digits = comparison.digits
    told = f"{signed(row.gain, digits)} {comparison.unit}, {interval(row.low, row.high, digits)}"
    return f"{name} is not shown to help or to hurt ({told}){_beside(comparison, row, against)}"


def _beside(comparison: Comparison, row: Row, against: Sequence[Comparison]) -> str:
    """How a method does against its controls: beats all of them, is behind some, or is not told apart."""
    tests = over_controls(comparison, row, against)
    controls = [one for one in controls_of(comparison) if one.label in tests]
    if not controls:
        return ", tested against no control"
    behind = [one for one in controls if tests[one.label].side < 0]
    if behind:
        return ", and is behind " + listed([f"{spoken(comparison, one)} by {tests[one.label]}" for one in behind])
    level = [spoken(comparison, one) for one in controls if not tests[one.label].side]
    if level:
        return f", and shows nothing beyond {listed(level)}"
    return f", beyond {listed([spoken(comparison, one) for one in controls])}"


def over_controls(comparison: Comparison, row: Row, against: Iterable[Comparison]) -> dict[str, Lead]:
    """How far a row is ahead of each control that it was tested against, by the control's label."""
    found = {}
    for label, tested in tests_against(comparison, against, row).items():
        its = same_run(tested, row)
        if its is not None and (lead := Lead.of(tested, its)) is not None:
            found[label] = lead
    return found


def smallest_seen(comparisons: Iterable[Comparison]) -> str:
    """The smallest average gain that each task could have shown; empty where nothing tells it."""
    told = []
    for one in comparisons:
        row = primary_of(one)
        if row is None or row.low is None or row.high is None:
            continue
        smallest = row.smallest if row.smallest is not None else smallest_of_interval(row.low, row.high)
        if smallest is not None:
            told.append(f"{amount(one, smallest)} on {written_family(one.family)}")
    return f"The smallest average gain that this study would have found in 80\u00a0% of cases: {listed(told)}." if told else ""
