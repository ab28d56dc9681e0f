"""What stands below the headline on a report's first screen: a sentence for each task, and how fine and how sure all of it is.

Every sentence repeats what a comparison holds: nothing is estimated here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lm_eval_clas.comparing.printed.written_names import spoken, written_family, written_metric
from lm_eval_clas.comparing.rows import Comparison, Row
from lm_eval_clas.comparing.task_families import language_of
from lm_eval_clas.evidence.smallest_gain import smallest_of_interval
from lm_eval_clas.steering.results_entry import left_alone
from lm_eval_clas.study.report.statements import RUNS, Lead, leads_of, over_controls, steered_share, steers_nothing, untested
from lm_eval_clas.study.report.verdicts import (
    answers_changed,
    baseline_of,
    by_task,
    controls_of,
    primary_of,
    steered_languages,
)
from lm_eval_clas.study.report.wording import amount, interval, listed, number_text, signed


def below_the_headline(comparisons: Sequence[Comparison], against: Sequence[Comparison]) -> list[str]:
    """The sentences: one a task, the smallest gain that could have been seen, and what each interval is worth."""
    tasks = by_task(comparisons)
    points = [task_sentence(first, against, further) for first, *further in tasks]
    points.append(smallest_seen([first for first, *_ in tasks]))
    intervals = sum(len(leads_of(one, RUNS)) for _, *further in tasks for one in further)
    intervals += sum(1 + len(over_controls(one, row, against)) for one, *_ in tasks for row, _ in leads_of(one))
    if intervals > 1:
        points.append(
            f"Each of these intervals stands by itself: {intervals} were looked at, and where nothing differs, one in twenty "
            "lies on one side of 0 by chance."
        )
    return [one for one in points if one]


def task_sentence(comparison: Comparison, against: Sequence[Comparison], further: Sequence[Comparison] = ()) -> str:
    """One sentence: which methods help or hurt on a task, whether what is judged, CLAS, does more than its controls, and
    what the task's `further` metrics show.
    """
    on = f"On {written_family(comparison.family)} ({written_metric(comparison.metric, comparison.family)})"
    main = primary_of(comparison)
    rows = [row for row in comparison.rows if row.kind == "method"]
    if not rows or main is None:
        return f"{on}, no steered run was compared."
    leads = {row.label: lead for row, lead in leads_of(comparison)}
    clear = [(row, lead) for row, lead in leads_of(comparison) if lead.side]
    told = {row.label for row, _ in clear}
    parts = []
    for row, lead in clear:
        verb = "gains" if lead.side > 0 else "loses"
        name, extent = spoken(comparison, row), _extent(comparison, row, lead.side)
        parts.append(f"{name} {verb} {lead.told(extent)}{_beside(comparison, row, lead.side, against)}")
    if main.label not in told:
        parts.append(_unclear(comparison, main, leads.get(main.label), against))
    rest = [row for row in rows if row is not main and row.label not in told]
    idle = [row for row in rest if steers_nothing(comparison, row)]
    alike = _alike(comparison, {row.label: _extent(comparison, row, 0) for row in rest if row not in idle})
    if others := [
        f"{listed(names)} ({'each ' if len(names) > 1 else ''}{extent})" if extent else listed(names)
        for extent, names in alike.items()
    ]:
        parts.append(f"no gain or loss is shown for {listed(others)}")
    for reason, names in _alike(comparison, {row.label: _kept(comparison, row) for row in idle}).items():
        parts.append(f"{listed(names)} {'were' if len(names) > 1 else 'was'} {reason}")
    lower = "" if comparison.higher_is_better else " (lower is better)"
    return f"{on}{lower}, {'; '.join([*parts, *_by_other_metrics(further)])}."


def _extent(comparison: Comparison, row: Row, side: int) -> str:
    """`5 of 11 languages steered, 2 significantly better`: those on the average's side in any case, others if there are."""
    codes = steered_languages(comparison, row)
    parts = [share] if (share := steered_share(comparison, row)) else []
    if any(code in row.cells and row.cells[code].p_holm is not None for code in codes):
        for sign, words in sorted({1: "better", -1: "worse"}.items(), key=lambda pair: pair[0] != side):
            count = len(answers_changed(comparison, row, codes, sign, only_significant=True))
            if count or sign == side:
                parts.append(f"{count or 'none'} significantly {words}")
    return ", ".join(parts)


def _alike(comparison: Comparison, told: Mapping[str, str]) -> dict[str, list[str]]:
    """The rows, as they are called in a sentence, by what is told of each label: what is said of several is said once."""
    found: dict[str, list[str]] = {}
    for row in comparison.rows:
        if row.label in told:
            found.setdefault(told[row.label], []).append(spoken(comparison, row))
    return found


def _kept(comparison: Comparison, row: Row) -> str:
    """In words, of a row that steers nothing: where its record says it was kept."""
    codes = [language_of(one) for one in comparison.languages if language_of(one) != comparison.anchor]
    why = sorted({left_alone(row.steering, code, comparison.family) for code in codes})
    if why == ["tuned to 0"]:
        return "kept at strength 0 in every language"
    return f"kept out of every language{f' ({listed(why)})' if why else ''}"


def _unclear(comparison: Comparison, row: Row, lead: Lead | None, against: Sequence[Comparison]) -> str:
    """Of a method whose interval holds 0, or which has none."""
    name = spoken(comparison, row)
    if steers_nothing(comparison, row):
        return f"{name} was {_kept(comparison, row)}"
    if lead is None:
        return f"{name} has no interval of its average gain"
    if lead.low == lead.high == 0 and not any(cell.gain for cell in row.cells.values()):
        baseline, share = baseline_of(comparison), steered_share(comparison, row)
        same = spoken(comparison, baseline) if baseline is not None else comparison.baseline
        with_share = f" ({share})" if share else ""
        return f"{name}{with_share} has the score of {same} in every language, which does not say that the answers are the same"
    digits = comparison.digits
    ends = interval(row.low, row.high, digits)
    told = "; ".join(filter(None, (f"{signed(row.gain, digits)} {comparison.unit}, {ends}", _extent(comparison, row, 0))))
    return f"{name} is not shown to help or to hurt ({told}){_beside(comparison, row, 0, against)}"


def _beside(comparison: Comparison, row: Row, side: int, against: Sequence[Comparison]) -> str:
    """How a method that gains (side 1), loses (-1), or neither, does beside its controls."""
    tests = over_controls(comparison, row, against)
    controls = [one for one in controls_of(comparison) if one.label in tests]
    if not controls:
        return f", and {untested(comparison, row)}"
    behind = [one for one in controls if tests[one.label].side < 0]
    if behind:
        return ", and is behind " + listed([f"{spoken(comparison, one)} by {tests[one.label]}" for one in behind])
    level = listed([spoken(comparison, one) for one in controls if not tests[one.label].side])
    every = listed([spoken(comparison, one) for one in controls])
    if side < 0 and not level:
        return f", less than {every} {'do' if len(controls) > 1 else 'does'}"
    if side < 0:
        return f", and is not told apart from {level}"
    if level:
        return f", and shows nothing beyond {level}"
    return f", beyond {every}" if side > 0 else f", and is ahead of {every}"


def _by_other_metrics(further: Sequence[Comparison]) -> list[str]:
    """What a task's other metrics show of methods and controls: who is better or worse, and by which of them nobody is."""
    parts, nobody = [], []
    for one in further:
        leads = leads_of(one, RUNS)
        by = written_metric(one.metric, one.family)
        if clear := [(row, lead) for row, lead in leads if lead.side]:
            told = [f"{spoken(one, row)} is {'better' if lead.side > 0 else 'worse'} by {lead}" for row, lead in clear]
            parts.append(f"by {by}, {listed(told)}")
        elif leads:
            nobody.append(by)
    return [*parts, *([f"by {listed(nobody)}, no gain or loss is shown"] if nobody else [])]


def smallest_seen(comparisons: Sequence[Comparison]) -> str:
    """The smallest average gain that each task could have shown; empty where nothing tells it.

    It depends on how much a method changes, and in how many languages: from the method that was seen most finely to the one
    that was least so.
    """
    told, part = [], False
    for one in comparisons:
        found: list[tuple[float, Row]] = []
        for row, lead in leads_of(one):
            smallest = row.smallest if row.smallest is not None else smallest_of_interval(lead.low, lead.high)
            if smallest is not None:
                found.append((smallest, row))
                alone = [code for code in one.languages if language_of(code) != one.anchor]
                part = part or len(steered_languages(one, row)) < len(alone)
        found.sort(key=lambda pair: pair[0])
        ends = [f"{number_text(value, one.digits)} ({_named_share(one, row)})" for value, row in found]
        if found:
            last = f"{amount(one, found[-1][0])} ({_named_share(one, found[-1][1])})"
            told.append(f"on {written_family(one.family)} {f'{ends[0]} to ' if len(ends) > 1 else ''}{last}")
    if not told:
        return ""
    few = " A language left alone varies by nothing, so what steers few of them is seen more finely." if part else ""
    return f"Smallest average gain that is found in 80\u00a0% of cases, of gains that vary as these do: {'; '.join(told)}.{few}"


def _named_share(comparison: Comparison, row: Row) -> str:
    return ", ".join(filter(None, (spoken(comparison, row), steered_share(comparison, row))))
