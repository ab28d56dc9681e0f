"""What a table of a comparison looks like, before it becomes Markdown, LaTeX or a screen. No computation."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lm_eval_clas.base.escaping import markdown_text
from lm_eval_clas.comparing.rows import Comparison, LanguageCell, Row
from lm_eval_clas.evidence.paired_tests import SIGNIFICANT
from lm_eval_clas.texts.metric_units import POINTS

Orientation = Literal["rows", "columns"]


@dataclass(frozen=True)
class Style:
    """How a format writes texts, the lines of a heading, numbers with a sign, the best score, and what marks significance.

    `hanging` puts the star behind a number, so that numbers with and without one stay in line.
    """

    text: Callable[[str], str] = str
    stacked: Callable[[list[str]], str] = " ".join
    signed: Callable[[str], str] = str
    negative: Callable[[str], str] = str  # of a score, which may be bold
    best: Callable[[str], str] = str
    star: str = "*"
    hanging: Callable[[str], str] = str


PLAIN = Style()
MARKDOWN = Style(text=markdown_text)


@dataclass(frozen=True)
class Layout:
    """A table before it becomes text in some format.

    Attributes:
        frame: a DataFrame of strings, as they are printed. Its columns are pairs: a heading, and one below it.
        rules: the rows above which a line is drawn.
    """

    frame: Any
    rules: tuple[int, ...]

    @property
    def headings(self) -> list[str]:
        """One for each column: a run's label over its first one, and `gain` over the next."""
        above = [pair[0] for pair in self.frame.columns]
        return [one[0] if one[0] not in above[:number] else one[1] for number, one in enumerate(self.frame.columns)]

    @property
    def widths(self) -> list[int]:
        """Of each column, in characters, with headings of several lines."""
        columns = zip(*self.frame.itertuples(index=False, name=None), strict=True)
        return [max(map(len, (*broken(name), *cells))) for name, cells in zip(self.headings, columns, strict=True)]


def broken(heading: str) -> list[str]:
    """A heading in lines that are not much wider than numbers are."""
    return textwrap.wrap(heading, 12, break_long_words=False, break_on_hyphens=False) or [""]


def layout(comparison: Comparison, languages: Orientation, style: Style = PLAIN) -> Layout:
    """The table with its languages as columns (a line of scores and one of gains for each run), or as rows."""
    return _with_columns(comparison, style) if languages == "columns" else _with_rows(comparison, style)


def _with_columns(comparison: Comparison, style: Style) -> Layout:
    import pandas as pd

    summary = ("average", "95 % interval", "%", "lose")
    lines: list[list[str]] = []
    kind = ""
    rules: list[int] = []
    for row in comparison.rows:
        if (lines and row.cells) or (row.kind == "cited") > (kind == "cited"):
            rules.append(len(lines))
        kind = row.kind
        scores = [_score(comparison, row, one, style) for one in comparison.languages]
        gains = [_gain(comparison, row.cells.get(one), style) for one in comparison.languages]
        name = style.text(title(row))
        if row.average is not None:
            lines.append([name, *scores, _average(comparison, row, style), "", "", ""])
        if row.gain is not None:
            name = style.text("gain") if row.average is not None else name
            lines.append([name, *gains, _average_gain(comparison, row, style), *_summary(comparison, row, style)])
    headings = [("", ""), *((style.text(one), "") for one in (*comparison.languages, *summary))]
    return Layout(pd.DataFrame(lines, columns=pd.MultiIndex.from_tuples(headings)), tuple(rules))


def _with_rows(comparison: Comparison, style: Style) -> Layout:
    import pandas as pd

    count = len(comparison.average_languages)
    names = [*comparison.languages, f"average ({count})", "95 % from", "95 % to", "gain in %", "lose"]
    headings, columns = [("", "")], [[style.text(name) for name in names]]
    for row in comparison.rows:
        cells = [row.cells.get(one) for one in comparison.languages]
        name = style.stacked([style.text(line) for line in broken(title(row))])
        if row.average is not None:
            headings.append((name, "score"))
            scores = [_score(comparison, row, one, style) for one in comparison.languages]
            columns.append([*scores, _average(comparison, row, style), "", "", "", ""])
        if row.gain is not None:
            headings.append((name, "gain"))
            gains = [_gain(comparison, cell, style) for cell in cells]
            bounds = ["" if bound is None else _signed(comparison, bound, style, 1) for bound in (row.low, row.high)]
            relative = _summary(comparison, row, style)[1:]
            columns.append([*gains, _average_gain(comparison, row, style), *bounds, *relative])
    frame = pd.DataFrame(list(map(list, zip(*columns, strict=True))), columns=pd.MultiIndex.from_tuples(headings))
    return Layout(frame, (len(comparison.languages),))


def title(row: Row) -> str:
    """A row's label, and what it is unless it is a method."""
    return row.label if row.kind == "method" or row.kind == row.label else f"{row.label} ({row.kind})"


def caption(comparison: Comparison) -> tuple[str, str, str]:
    """Of a table: the family, the metric, and the rest in words: unit, items, and what gains are over."""
    items = [cell.items for row in comparison.rows for cell in row.cells.values() if cell.items is not None]
    counted = f", {_span(items)} items per language" if items else ""
    together = [cell.clusters for row in comparison.rows for cell in row.cells.values() if cell.clusters is not None]
    counted += f" in {_span(together)} {_clusters(together)}" if together and comparison.cluster_fields else ""
    unit = "in its own unit" if comparison.unit == comparison.metric.partition(",")[0] else f"in {comparison.unit}"
    common = os.path.commonprefix(list(comparison.tasks.values())).rstrip("_")  # noqa: RUF071 - of names, not of paths
    split = f", tasks {common}" if common != comparison.family and len(comparison.tasks) > 1 else ""
    compared = f"; gains are over {comparison.baseline}" if len(comparison.rows) > 1 else ""
    return comparison.family, comparison.metric, f"{unit}{split}{counted}{compared}"


def legend(comparison: Comparison) -> str:
    """What the marks and columns mean, but for the star itself, which begins it where anything was tested."""
    parts = []
    if comparison.test != "none":
        test = {"exact McNemar": "exact McNemar test"}.get(comparison.test, f"paired {comparison.test} test")
        adjusted = _adjusted(comparison)
        parts.append(f"p < {SIGNIFICANT:g}, two-sided {test} on the same items{adjusted}")
    if told := any(row.low is not None for row in comparison.rows):
        drawn = "clusters of items" if comparison.cluster_fields else "items"
        parts.append(f"interval: 95 % bootstrap over {drawn}, of the average gain")
    if any(row.percent is not None for row in comparison.rows):
        parts.append(f"%: {'that' if told else 'the average'} gain relative to the average of {comparison.baseline}")
    if any(row.losses is not None for row in comparison.rows):
        star = " (significantly)" if comparison.test != "none" else ""
        parts.append(f"lose: languages worse than {comparison.baseline}{star}")
    return "; ".join(parts)


def _adjusted(comparison: Comparison) -> str:
    """Over how many languages p-values are adjusted: the same in every row, or from the fewest to the most."""
    cells = [[cell for cell in row.cells.values() if cell.p_value is not None] for row in comparison.rows]
    counts = sorted(sum(cell.p_holm is not None for cell in of_row) for of_row in cells if of_row)
    if not counts or counts[-1] < 2:
        return ""
    if all(cell.p_holm is not None for of_row in cells for cell in of_row):
        return f", Holm-adjusted over {_span(counts)} languages"
    steered_too = [row for row in comparison.rows if row.kind == "baseline" and row.steering.get("method", "off") != "off"]
    either = f" or {comparison.baseline}" if steered_too else ""
    return f", Holm-adjusted over the languages that the row{either} steered ({_span(counts)})"


def _clusters(counts: Sequence[int]) -> str:
    return "cluster" if max(counts) == 1 else "clusters"


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


def _number(comparison: Comparison, value: float, more: int = 0) -> str:
    """Points with a decimal, averages with two; other units with as many digits as gains in them need."""
    return f"{value:.{comparison.digits - 1 + more if comparison.unit == POINTS.name else comparison.digits}f}"


def _signed(comparison: Comparison, value: float, style: Style, more: int = 0) -> str:
    number = _number(comparison, abs(value), more)
    if not float(number):
        return number
    return style.signed(f"{'+' if value > 0 else '-'}{number}")


def _score(comparison: Comparison, row: Row, language: str, style: Style) -> str:
    """A language's score, marked if no other row has a better one as printed, and some have another."""
    scores = [one.cells[language].score for one in comparison.rows if language in one.cells]
    return _marked(comparison, row.cells[language].score, scores, style, 0) if language in row.cells else ""


def _average(comparison: Comparison, row: Row, style: Style) -> str:
    averages = [one.average for one in comparison.rows if one.average is not None]
    return "" if row.average is None else _marked(comparison, row.average, averages, style, 1)


def _marked(comparison: Comparison, value: float, among: Sequence[float], style: Style, more: int) -> str:
    best = _number(comparison, (max if comparison.higher_is_better else min)(among), more)
    number = _number(comparison, value, more)
    shown = style.negative(number) if number.startswith("-") else number
    return style.best(shown) if number == best and len({_number(comparison, one, more) for one in among}) > 1 else shown


def _gain(comparison: Comparison, cell: LanguageCell | None, style: Style) -> str:
    if cell is None or cell.gain is None:
        return ""
    star = style.hanging(style.star) if cell.p_holm is not None and cell.p_holm < SIGNIFICANT else ""
    return _signed(comparison, cell.gain, style) + star


def _average_gain(comparison: Comparison, row: Row, style: Style) -> str:
    return "" if row.gain is None else _signed(comparison, row.gain, style, 1)


def _summary(comparison: Comparison, row: Row, style: Style) -> list[str]:
    """The interval, the gain in per cent, and the losses."""
    interval = ""
    if row.low is not None and row.high is not None:
        interval = f"[{_signed(comparison, row.low, style, 1)}, {_signed(comparison, row.high, style, 1)}]"
    percent = ""
    if row.percent is not None:
        percent = style.signed(f"{row.percent:+.1f}") if f"{abs(row.percent):.1f}" != "0.0" else "0.0"
    losses = ""
    if row.losses is not None:
        losses = f"{row.losses} ({row.significant_losses}{style.star})" if row.significant_losses else str(row.losses)
    return [interval, percent, losses]
