"""The sections about scores: results, controls, significance. They show what comparisons hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from lm_eval_clas.comparing.printed.written_names import spoken, written_family, written_metric
from lm_eval_clas.comparing.rows import Comparison, Row
from lm_eval_clas.comparing.rows import LanguageCell as Score
from lm_eval_clas.drawing.web_page import picture
from lm_eval_clas.study.report.plots import limits_of, plot_averages, plot_row
from lm_eval_clas.study.report.sources import Sources
from lm_eval_clas.study.report.verdicts import (
    advantage,
    against_controls,
    answers_changed,
    baseline_of,
    beaten,
    own_controls,
    primary_of,
    same_run,
    significant,
    tests_against,
    told_by_language,
    verdict,
)
from lm_eval_clas.study.report.view import Block, Bullets, Gallery, Heading, Picture, Section, Table, TableCell, Text, Tone
from lm_eval_clas.study.report.wording import (
    NONE,
    counted,
    drawable,
    interval,
    language_text,
    listed,
    named,
    number_text,
    probability,
    signed,
)

_MARK = "A star marks p < 0.05 after Holm\u2019s correction over the languages that were steered."


def title_of(comparison: Comparison, all_of_them: Mapping[str, Comparison]) -> str:
    """The family, with its metric and its baseline where several comparisons of this family differ by them."""
    alike = [other for other in all_of_them.values() if other.family == comparison.family]
    metric = f": {comparison.metric}" if len({other.metric for other in alike}) > 1 else ""
    alone = sum(other.metric == comparison.metric for other in alike) == 1
    return f"{comparison.family}{metric}{'' if alone else f' against {comparison.baseline}'}"


def gain_panels(comparison: Comparison, stem: str) -> Gallery | None:
    """The picture of a comparison: a panel for each method, controls beside; None where there is no gain."""
    rows = [row for kind in ("method", "control") for row in comparison.rows if row.kind == kind and row.gain is not None]
    codes = [code for code in comparison.languages if code != comparison.anchor and any(code in row.cells for row in rows)]
    if not codes:
        return None
    limits, panels = limits_of(rows, codes), []
    for order, row in enumerate(rows):
        told = [f"{language_text(code)} {signed(_gain(row, code), comparison.digits)}" for code in codes]
        alternative = f"{row.label}, gain in {comparison.unit}: mean {_told_gain(comparison, row)}; {', '.join(told)}."
        draw = partial(plot_row, comparison, row, codes, limits)
        panels.append(Picture(picture(draw, f"panel-{_id(stem)}-{order}", alternative)))
    over, metric = baseline_of(comparison), written_metric(comparison.metric, comparison.family)
    lower = "" if comparison.higher_is_better else ", lower is better"
    gains = [_gain(row, code) for row in rows for code in codes]
    beyond = any(gain is not None and not limits[0] <= gain <= limits[1] for gain in gains)
    arrows = " An arrow at the edge is a gain that lies beyond, with its number." if beyond else ""
    caption = (
        f"{written_family(comparison.family)}: gain in {comparison.unit} ({metric}{lower}) over "
        f"{spoken(comparison, over) if over is not None else comparison.baseline}, by language and on average (mean), with "
        "95\u00a0% intervals; methods in blue, controls in orange. Filled marks are significant (languages after Holm\u2019s "
        "correction); a cross marks a language that was left alone, such as one tuned to 0."
        f"{arrows}"
    )
    return Gallery(panels, small=True, caption=caption)


def results_section(sources: Sources, drawn: Comparison | None = None) -> Section:
    """The main tables: averages by run, scores by language, and what they say in words.

    Args:
        sources: the study's.
        drawn: the comparison whose picture stands elsewhere.
    """
    blocks: list[Block] = []
    comparisons = sources.comparisons
    for stem, comparison in comparisons.items():
        blocks.append(Heading(title_of(comparison, comparisons)))
        cells = [cell for row in comparison.rows for cell in row.cells.values() if cell.items is not None]
        items = sorted({cell.items or 0 for cell in cells})
        size = f"; {items[0]}" + (f" to {items[-1]}" if len(items) > 1 else "") + " items a language" if items else ""
        anchor = f", anchor {comparison.anchor}" if comparison.anchor else ""
        blocks.append(
            Text(
                f"{counted(len(comparison.languages), 'language')}{anchor}; metric {comparison.metric}, in {comparison.unit}"
                f"{size}. Averages are over {counted(len(comparison.average_languages), 'language')}, each counting once."
                + ("" if comparison.higher_is_better else " Lower is better.")
            )
        )
        if sentences := judged(comparison, sources):
            blocks.append(Bullets(sentences))
        shown = [row for row in comparison.rows if row.kind in ("method", "control") and row.gain is not None]
        if shown:
            blocks.append(Gallery([_averages(comparison, shown, stem)]))
        if comparison is not drawn and (panels := gain_panels(comparison, stem)) is not None:
            blocks.append(panels)
        blocks += [_runs(comparison), _scores(comparison)]
        if comparison.notes:
            blocks.append(Bullets(comparison.notes))
        cited = [f"{row.label}: cited from {row.source or 'a source that is not named'}." for row in comparison.rows]
        if any(row.kind == "cited" for row in comparison.rows):
            blocks.append(Bullets([text for text, row in zip(cited, comparison.rows, strict=True) if row.kind == "cited"]))
    return Section("results", "Results", blocks)


def _averages(comparison: Comparison, rows: list[Row], stem: str) -> Picture:
    told = [f"{row.label} {_told_gain(comparison, row)}" for row in rows]
    alternative = f"Average gain over {comparison.baseline} in {comparison.unit}, with 95\u00a0% intervals: {'; '.join(told)}."
    drawn = picture(partial(plot_averages, comparison, rows), f"averages-{_id(stem)}", alternative)
    return Picture(drawn, f"Average gain over {comparison.baseline}; methods in blue, controls in orange.")


def _runs(comparison: Comparison) -> Table:
    rows = [
        [
            TableCell(row.label),
            TableCell(row.kind),
            TableCell(number_text(row.average, comparison.digits)),
            TableCell(signed(row.gain, comparison.digits)),
            TableCell(interval(row.low, row.high, comparison.digits)),
            TableCell(NONE if row.percent is None else f"{signed(row.percent, 1)}\u00a0%"),
        ]
        for row in comparison.rows
    ]
    head = ["run", "kind", "average", "gain", "95\u00a0% interval", "relative"]
    return Table(f"Averages on {comparison.family}, in {comparison.unit}; gains over {comparison.baseline}.", head, rows)


def _scores(comparison: Comparison) -> Table:
    shown = [row for row in comparison.rows if row.cells]
    digits = comparison.digits
    average = [
        TableCell(number_text(row.average, digits), signed(row.gain, digits) if row.gain is not None else "") for row in shown
    ]
    rows = [[TableCell("average"), *average]]
    rows += [
        [
            TableCell(language_text(code), "anchor" if code == comparison.anchor else ""),
            *(_score(comparison, row.cells.get(code)) for row in shown),
        ]
        for code in comparison.languages
    ]
    caption = f"{comparison.metric} by language; below each score the gain over {comparison.baseline}. {_MARK}"
    return Table(caption, ["language", *(row.label for row in shown)], rows, emphasised=frozenset({0}))


def _score(comparison: Comparison, cell: Score | None) -> TableCell:
    if cell is None:
        return TableCell(NONE)
    if cell.gain is None:
        return TableCell(number_text(cell.score, comparison.digits))
    mark = "\u00a0*" if significant(cell) else ""
    gain = signed(cell.gain, comparison.digits) + mark
    return TableCell(number_text(cell.score, comparison.digits), gain, _tone(comparison, cell))


def _tone(comparison: Comparison, cell: Score | None) -> Tone:
    """The colour of a cell: only for what is significant."""
    if cell is None or cell.gain is None or not significant(cell):
        return ""
    return "up" if advantage(comparison, cell.gain) > 0 else "down"


def controls_section(sources: Sources) -> Section | None:
    """Did the method beat alpha 0 and the controls, language by language?"""
    blocks: list[Block] = []
    comparisons = sources.comparisons
    for comparison in comparisons.values():
        row = primary_of(comparison)
        rivals = own_controls(comparison, row) if row is not None else []
        if row is None or not rivals:
            continue
        blocks.append(Heading(title_of(comparison, comparisons)))
        if sentence := beaten(comparison):
            blocks.append(Text(sentence))
        blocks.append(Bullets(against_controls(comparison, sources.against)))
        runs = [one for one in (baseline_of(comparison), row, *rivals) if one is not None]
        codes = [code for code in comparison.languages if code in row.cells]
        heads = [f"{one.label} (alpha 0)" if one.label == comparison.baseline else one.label for one in runs]
        rows = [
            [
                TableCell(language_text(code)),
                *(TableCell(number_text(_value(one, code), comparison.digits)) for one in runs),
                TableCell(verdict(comparison, code)),
            ]
            for code in codes
        ]
        caption = f"Scores ({comparison.metric}), and what {row.label} beats, whether by chance or not."
        head = ["language", *heads, f"{row.label} against the others"]
        blocks.append(Table(caption, head, rows, prose=frozenset({len(heads) + 1})))
        if tested := tests_against(comparison, sources.against, row):
            blocks.append(_tested(comparison, row, tested))
    return Section("controls", "Alpha 0 and controls", blocks) if blocks else None


def _tested(comparison: Comparison, method: Row, tested: Mapping[str, Comparison]) -> Table:
    """The method against each control that it was tested against, language by language."""
    found = {label: (one, row) for label, one in tested.items() if (row := same_run(one, method)) is not None}
    average = [TableCell(signed(row.gain, one.digits), interval(row.low, row.high, one.digits)) for one, row in found.values()]
    rows = [[TableCell("average", "95\u00a0% interval"), *average]]
    for code in comparison.languages:
        if code == comparison.anchor:
            continue
        cells = [(one, row.cells.get(code)) for one, row in found.values()]
        rows.append([TableCell(language_text(code)), *(_lead(one, cell) for one, cell in cells)])
    tests = listed(list(dict.fromkeys(one.test for one, _ in found.values())))
    caption = (
        f"How far {named(method.label)} is above each control on the same items, in {comparison.unit}; below it the p-value "
        f"({tests}) after Holm\u2019s correction. {_MARK}"
    )
    return Table(caption, ["language", *(f"over {label}" for label in found)], rows, emphasised=frozenset({0}))


def _lead(comparison: Comparison, cell: Score | None) -> TableCell:
    if cell is None or cell.gain is None:
        return TableCell(NONE)
    mark = "\u00a0*" if significant(cell) else ""
    told = f"p\u00a0{probability(cell.p_holm)}" if cell.p_holm is not None else ""
    return TableCell(signed(cell.gain, comparison.digits) + mark, told, _tone(comparison, cell))


def _told_gain(comparison: Comparison, row: Row) -> str:
    """The average's gain with its interval."""
    return f"{signed(row.gain, comparison.digits)} ({interval(row.low, row.high, comparison.digits)})"


def _gain(row: Row, code: str) -> float | None:
    return row.cells[code].gain if code in row.cells else None


def _value(row: Row, code: str) -> float | None:
    return row.cells[code].score if code in row.cells else None


def significance_section(comparisons: Mapping[str, Comparison]) -> Section | None:
    """How many languages gain and lose significantly, and the p-values."""
    blocks: list[Block] = []
    for comparison in comparisons.values():
        tested = [row for row in comparison.rows if any(cell.p_holm is not None for cell in row.cells.values())]
        if not tested:
            continue
        blocks.append(Heading(title_of(comparison, comparisons)))
        blocks.append(
            Text(
                f"Paired tests against {comparison.baseline} on the same items ({comparison.test}, two-sided), adjusted by "
                "Holm\u2019s method over the languages that were steered; significant means adjusted p < 0.05."
            )
        )
        codes = comparison.languages
        rows = []
        for row in tested:
            wins, losses = answers_changed(comparison, row, codes, 1, True), answers_changed(comparison, row, codes, -1, True)
            counts = (len(wins) if row.significant_gains is None else row.significant_gains, row.significant_losses, row.losses)
            higher = len(answers_changed(comparison, row, codes, 1))
            lower = len(answers_changed(comparison, row, codes, -1)) if counts[2] is None else counts[2]
            rows.append(
                [
                    TableCell(row.label),
                    TableCell(str(higher)),
                    TableCell(str(lower)),
                    TableCell(str(counts[0]), ", ".join(wins)),
                    TableCell(str(len(losses) if counts[1] is None else counts[1]), ", ".join(losses)),
                ]
            )
        head = ["run", "better", "worse", "significantly better", "significantly worse"]
        blocks.append(Table(f"How many languages do better and worse than {comparison.baseline}.", head, rows))
        rows = [
            [TableCell(language_text(code)), *(_p(comparison, row.cells.get(code)) for row in tested)]
            for code in codes
            if code != comparison.anchor or any(_gain(row, code) for row in tested)
        ]
        caption = "Adjusted p-values by language; below each the unadjusted one."
        blocks.append(Table(caption, ["language", *(row.label for row in tested)], rows))
    return Section("significance", "Significance", blocks) if blocks else None


def _p(comparison: Comparison, cell: Score | None) -> TableCell:
    if cell is None or cell.p_holm is None:
        return TableCell(NONE)
    return TableCell(probability(cell.p_holm), probability(cell.p_value), _tone(comparison, cell))


def judged(comparison: Comparison, sources: Sources) -> list[str]:
    """What a comparison says of the judged method, in sentences."""
    row = primary_of(comparison)
    if row is None:
        return []
    sentences = [told_by_language(comparison, row), *against_controls(comparison, sources.against)]
    if sentence := beaten(comparison):
        sentences.append(sentence)
    others = [one for one in comparison.rows if one.kind == "method" and one is not row and one.gain is not None]
    if others:
        told = [f"{named(one.label)} {_told_gain(comparison, one)}" for one in others]
        sentences.append(f"Other methods over {comparison.baseline}: {listed(told)}.")
    return sentences


def _id(stem: str) -> str:
    """A name as an id can hold it; several may share one only if they differ in signs alone."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in drawable(stem, 60))
