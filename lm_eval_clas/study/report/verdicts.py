"""What a comparison says of its judged method, in plain words: in which languages did it help, and what do controls do?

Nothing is estimated here. Sentences repeat what the comparison holds, and count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval_clas.comparing.rows import Comparison, LanguageCell, Row
from lm_eval_clas.comparing.task_families import language_of
from lm_eval_clas.evidence.paired_tests import SIGNIFICANT
from lm_eval_clas.steering.methods.method_table import controls_for
from lm_eval_clas.steering.results_entry import left_alone
from lm_eval_clas.study.report.wording import counted, interval, listed, named, number_text, signed
from lm_eval_clas.texts.metrics import preferred_metric

# What a control has as its method has it. (`tuned` has strengths by task and language, beside the word `tuned` as alpha.)
_STRENGTH = ("masks_hash", "alpha", "beta", "gamma", "layers", "tuned")


def method_of(row: Row) -> str:
    """The steering method of a row: what its results file says, else the first word of its label."""
    method = row.steering.get("method")
    return method if isinstance(method, str) else row.label.replace("_", "-").split("-")[0].casefold()


def baseline_of(comparison: Comparison) -> Row | None:
    """The row that the others are compared with, if it is there."""
    named = [row for row in comparison.rows if row.label == comparison.baseline]
    return next((row for row in named if row.kind == "baseline"), next(iter(named), None))


def primary_of(comparison: Comparison) -> Row | None:
    """The row that the report judges: the one labelled `clas`, else the first whose method is `clas`, else any method's."""
    methods = [row for row in comparison.rows if row.kind == "method"]
    clas = [row for row in methods if method_of(row) == "clas"]
    return next((row for row in clas if row.label == "clas"), next(iter(clas + methods), None))


def controls_of(comparison: Comparison) -> list[Row]:
    """The controls, in the order of rows."""
    return [row for row in comparison.rows if row.kind == "control"]


def own_controls(comparison: Comparison, row: Row) -> list[Row]:
    """Those of the controls that a row must beat to mean anything: of its method, and as strong as it is."""
    needed = controls_for(method_of(row))
    return [one for one in controls_of(comparison) if method_of(one) in needed and _as_strong(one.steering, row.steering)]


def _as_strong(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows were steered from the same masks with the same strengths, as far as both say so."""
    return all(one[name] == other[name] for name in _STRENGTH if name in one and name in other)


def steered_languages(comparison: Comparison, row: Row | None = None) -> list[str]:
    """The languages that a row, or else the judged method, steered: not the anchor, nor those that it says it left alone.

    Tuned to a strength of 0, a language was left alone.
    """
    row = row or primary_of(comparison)
    told = {} if row is None else row.steering
    return [
        column
        for column in comparison.languages
        if (code := language_of(column)) != comparison.anchor and not left_alone(told, code, comparison.family)
    ]


def by_task(comparisons: Iterable[Comparison]) -> list[list[Comparison]]:
    """Those of one family over one baseline together, the one by the metric that counts if nobody says first."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for one in comparisons:
        groups.setdefault((one.family, one.baseline), []).append(one)
    for group in groups.values():
        names = [one.metric.partition(",")[0] for one in group]
        group.insert(0, group.pop(names.index(preferred_metric(names))))
    return list(groups.values())


def significant(cell: LanguageCell | None) -> bool:
    """Whether a cell's gain or loss is significant after Holm."""
    return cell is not None and cell.p_holm is not None and cell.p_holm < SIGNIFICANT


def advantage(comparison: Comparison, difference: float) -> float:
    """A difference of scores with the sign that says better: not its own, if lower is better."""
    return difference if comparison.higher_is_better else -difference


def answers_changed(
    comparison: Comparison, row: Row, codes: Iterable[str], sign: int, only_significant: bool = False
) -> list[str]:
    """The languages that do better (sign 1) or worse (-1) in a row."""
    found = []
    for code in codes:
        cell = row.cells.get(code)
        if cell is None or cell.gain is None or (only_significant and not significant(cell)):
            continue
        if sign * advantage(comparison, cell.gain) > 0:
            found.append(code)
    return found


def distinguishable(row: Row) -> int | None:
    """1 or -1 if the interval of the average's gain lies above or below 0, 0 if it holds 0, None if there is none."""
    if row.low is None or row.high is None:
        return None
    return 1 if row.low > 0 else -1 if row.high < 0 else 0


def told_by_language(comparison: Comparison, row: Row) -> str:
    """One sentence: how many languages gain and lose, and how many of them significantly."""
    codes = steered_languages(comparison)
    if not codes:
        return f"{named(row.label)} steered no language."
    compared = [code for code in codes if code in row.cells and row.cells[code].gain is not None]
    up, down = answers_changed(comparison, row, codes, 1), answers_changed(comparison, row, codes, -1)
    sentence = (
        f"Of {counted(len(compared), 'steered language')}, {len(up)} did better than {named(comparison.baseline)}, "
        f"{len(down)} worse and {len(compared) - len(up) - len(down)} the same"
    )
    if not any(row.cells[code].p_holm is not None for code in compared):
        return f"{sentence}; the languages were not tested one by one."
    wins, losses = answers_changed(comparison, row, codes, 1, True), answers_changed(comparison, row, codes, -1, True)
    return f"{sentence}; significant after Holm\u2019s correction: {len(wins)} better, {len(losses)} worse ({comparison.test})."


def tests_against(comparison: Comparison, against: Iterable[Comparison], row: Row | None) -> dict[str, Comparison]:
    """The comparisons that test a row against its controls, by the control's label."""
    if row is None:
        return {}
    alike = [one for one in against if (one.family, one.metric) == (comparison.family, comparison.metric)]
    found = {one.baseline: one for one in alike if same_run(one, row)}
    return {control.label: found[control.label] for control in own_controls(comparison, row) if control.label in found}


def same_run(comparison: Comparison, row: Row) -> Row | None:
    """Another comparison's row, in this one; None if it has no gain here."""
    return next((one for one in comparison.rows if one.label == row.label and one.gain is not None), None)


def against_controls(comparison: Comparison, against: Iterable[Comparison] = ()) -> list[str]:
    """Sentences: what each control gains, whether the method is ahead of it, and which control is missing.

    Args:
        comparison: against the baseline.
        against: comparisons with a control as baseline, of any family. They say whether being ahead is more than chance.
    """
    row = primary_of(comparison)
    if row is None:
        return []
    controls = own_controls(comparison, row)
    method, baseline = named(row.label), named(comparison.baseline)
    tests = tests_against(comparison, against, row)
    sentences, ahead = [], []
    for control in controls:
        if row.gain is None or control.gain is None:
            sentences.append(f"The control {named(control.label)} has no average gain to compare with.")
            continue
        gain = signed(control.gain, comparison.digits)
        told = interval(control.low, control.high, comparison.digits)
        sentence = f"Control {named(control.label)}: {gain} over {baseline} (95\u00a0% interval {told}); "
        if control.label in tests:
            words, side = _tested(tests[control.label], row)
        else:
            lead = advantage(comparison, row.gain - control.gain)
            side = (lead > 0) - (lead < 0)
            by = f" by {number_text(abs(lead), comparison.digits)}" if lead else ""
            words = f"{method} is {('level with', 'ahead of', 'behind')[side]} it{by}, which was not tested."
        ahead.append(side > 0)
        sentences.append(sentence + words)
    present = {method_of(control) for control in controls}
    needed = controls_for(method_of(row))
    if missing := [words for name, words in needed.items() if name not in present]:
        owes = "its direction" if "random-direction" in needed else "its masks"
        sentences.append(f"No control with {listed(missing)} was compared, so what {method} owes to {owes} stays open.")
    elif ahead and not all(ahead):
        sentences.append(
            f"{method} is not shown to be ahead of every control, so nothing shows that what it knows of neurons and languages "
            "matters to the average."
        )
    return sentences


def _tested(comparison: Comparison, method: Row) -> tuple[str, int]:
    """How the method does against the control that is the baseline here, in words; 1, -1, or 0 where it cannot be told."""
    row = same_run(comparison, method) or method
    side = distinguishable(row) or 0
    lead = advantage(comparison, row.gain or 0)
    place = "level with" if not lead else "ahead of" if lead > 0 else "behind"
    by = f" by {number_text(abs(lead), comparison.digits)}" if lead else ""
    ends = [None if end is None else advantage(comparison, end) for end in (row.low, row.high)]
    low, high = ends if comparison.higher_is_better else reversed(ends)
    told = f"interval of the lead {interval(low, high, comparison.digits)}"
    surely = "" if side else ", which may be chance" if lead else ""
    codes = [code for code in steered_languages(comparison) if code in row.cells]
    words = f"{named(row.label)} is {place} it{by}{surely} ({told})"
    if any(row.cells[code].p_holm is not None for code in codes):
        wins, losses = (answers_changed(comparison, row, codes, sign, True) for sign in (1, -1))
        words += (
            f", significantly better in {_some(wins)} and worse in {_some(losses)} of {counted(len(codes), 'language')}"
            f" ({comparison.test}, Holm)"
        )
    return f"{words}.", side * (1 if comparison.higher_is_better else -1)


def _some(codes: Sequence[str]) -> str:
    return f"{len(codes)} ({', '.join(codes)})" if codes else "none"


def verdict(comparison: Comparison, code: str) -> str:
    """Did the method beat alpha 0 and the controls in this language? In a few words."""
    row, baseline = primary_of(comparison), baseline_of(comparison)
    cell = row.cells.get(code) if row is not None else None
    if code == comparison.anchor:
        return "anchor, never steered"
    if row is None or cell is None:
        return "not compared"
    if why := left_alone(row.steering, language_of(code), comparison.family):
        return f"not steered ({why})"
    mark = " (significantly)" if significant(cell) else ""
    rivals = [(named(comparison.baseline) + mark, baseline.cells.get(code) if baseline is not None else None)]
    rivals += [(named(control.label), control.cells.get(code)) for control in own_controls(comparison, row)]
    better = [label for label, other in rivals if other is not None and advantage(comparison, cell.score - other.score) > 0]
    equal = [label for label, other in rivals if other is not None and cell.score == other.score]
    worse = [label for label, other in rivals if other is not None and advantage(comparison, cell.score - other.score) < 0]
    every = "all: " if len(better) > 1 and not equal and not worse else ""
    found = (f"beats {every}", better), ("equals ", equal), ("behind ", worse)
    parts = [words + listed(labels) for words, labels in found if labels]
    return "; ".join(parts) or "nothing to compare with"


def beaten(comparison: Comparison) -> str:
    """One sentence: in which languages the method beats alpha 0 and every control."""
    row, baseline = primary_of(comparison), baseline_of(comparison)
    codes = steered_languages(comparison)
    controls = own_controls(comparison, row) if row is not None else []
    if row is None or baseline is None or not controls:
        return ""

    def beats(code: str, others: Sequence[Row]) -> bool:
        cell = row.cells.get(code)
        return cell is not None and all(
            code in one.cells and advantage(comparison, cell.score - one.cells[code].score) > 0 for one in others
        )

    method, against = named(row.label), named(comparison.baseline)
    everywhere = [code for code in codes if beats(code, [baseline, *controls])]
    names = listed([against, *(named(control.label) for control in controls)])
    count = f"{method} does better than {names} at once in {len(everywhere)} of {counted(len(codes), 'steered language')}"
    solid = [code for code in everywhere if significant(row.cells[code])]
    codes_listed = f" ({', '.join(everywhere)})" if everywhere else ""
    return f"{count}{codes_listed}; in {len(solid)} of these the gain over {against} is significant after Holm."
