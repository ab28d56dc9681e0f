"""The page of results over models and methods, from the tables that are committed in docs/results/*/.

    python docs/mkdocs/leaderboard.py            # writes docs/results/index.md
    python docs/mkdocs/leaderboard.py --check    # exit 1 if the page is not what the files say

A folder with results of your own is on the page by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.escaping import markdown_text
from lm_eval_clas.comparing.printed.written_names import written_family, written_label, written_metric
from lm_eval_clas.comparing.rows import Comparison, Row
from lm_eval_clas.disk.checked_json import read_as
from lm_eval_clas.study.report.statements import Lead, over_controls, steers_nothing
from lm_eval_clas.study.report.verdicts import advantage, baseline_of, own_controls, steered_languages
from lm_eval_clas.study.report.wording import interval, number_text, signed

RESULTS = Path(__file__).resolve().parents[1] / "results"
INTRODUCTION = """# Results over models and methods

Made by `python docs/mkdocs/leaderboard.py` from the tables in the folders beside this page. One table for each task and
metric, the largest average gain first; controls are in italics. A method means something only if it beats its controls.

- **gain**: average over languages minus that of the unsteered model on the same items; in brackets its 95 % interval.
  Bold: the interval lies on the better side of 0.
- **over controls**: *yes*: so does the interval of the lead over every control; *no*, and which control is not beaten;
  *not tested*: there is no table against them; *no such control*: none of its strength was run; *steered nothing*: it was
  tuned to 0 in every language, and such rows are last.
- **languages**: those that were steered (one tuned to strength 0 was not); how many of them are significantly better and
  worse after Holm's adjustment.

Intervals are of each row alone: among many rows, one in twenty is beyond its interval by chance. Scores of two studies are
comparable only if tasks, items and prompts are the same; gains are within a study. More:
[what the numbers say](../comparing.md#what-the-numbers-say).

## Add a line

1. Run a study: `clas paper RECIPE --out STUDY` ([the study](../study.md)).
2. Copy `STUDY/tables/*.json` and `STUDY/recipe.yaml` into `docs/results/NAME/` of a checkout. NAME is the model's, with what
   tells two studies of one model apart, such as `duel-gemma-3-270m`. An `index.md` in the folder is linked from this page.
3. `python docs/mkdocs/leaderboard.py`, and open a pull request with the folder and this page. Its checks make the page again
   and compare.

Tables hold scores and no texts, so the licences of data sets allow them.
"""


@dataclass(frozen=True)
class Line:
    """One row of one study's table."""

    folder: Path
    comparison: Comparison
    row: Row
    against: list[Comparison]


def main() -> int:
    """Writes the page, or checks it."""
    page = RESULTS / "index.md"
    try:
        text = leaderboard(RESULTS)
    except ClasError as error:
        print(error, file=sys.stderr)
        return 1
    if "--check" in sys.argv[1:]:
        current = page.is_file() and page.read_text(encoding="utf-8") == text
        if not current:
            print("docs/results/index.md is not what the files say: python docs/mkdocs/leaderboard.py", file=sys.stderr)
        return int(not current)
    page.write_text(text, encoding="utf-8")
    return 0


def leaderboard(results: Path) -> str:
    """The page, from the folders in `results`.

    Raises:
        ClasError: a table is damaged.
    """
    tables: dict[tuple[str, str, str], list[Line]] = {}
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        for line in _lines(folder):
            of = line.comparison
            tables.setdefault((of.family, of.metric, of.unit), []).append(line)
    parts = [INTRODUCTION]
    for (family, metric, unit), lines in sorted(tables.items()):
        lower = "" if lines[0].comparison.higher_is_better else ", lower is better"
        name = written_metric(metric, family)
        about = f"`{family}`, {name} in {unit}{lower}."
        parts.append(f"## {markdown_text(written_family(family))}: {name}\n\n{about}\n\n{_table(lines)}\n")
    return "\n".join(parts)


def _lines(folder: Path) -> Iterator[Line]:
    remedy = "copy it again from the study's folder tables/."
    tables: dict[str, Comparison] = {}
    for path in sorted(folder.glob("*.json")):
        if '"average_languages"' in path.read_text(encoding="utf-8", errors="replace"):
            tables[path.stem] = read_as(Comparison, path, remedy)
    against = [one for name, one in tables.items() if "-against-" in name]
    for name, one in tables.items():
        if "-against-" not in name:
            for row in one.rows:
                if row.kind in ("method", "control") and row.gain is not None:
                    yield Line(folder, one, row, against)


def _table(lines: list[Line]) -> str:
    lines = sorted(lines, key=_place)
    head = "| study | method | unsteered | gain | over controls | languages | items |"
    return "\n".join([head, "| --- | --- | ---: | ---: | --- | --- | ---: |", *map(_row, lines)])


def _place(line: Line) -> tuple[bool, float, str, str]:
    """The largest gain first; what steered nothing last."""
    idle = steers_nothing(line.comparison, line.row)
    return idle, -advantage(line.comparison, line.row.gain or 0), line.folder.name, line.row.label


def _row(line: Line) -> str:
    of, row, digits = line.comparison, line.row, line.comparison.digits
    study = markdown_text(line.folder.name)
    if (line.folder / "index.md").is_file():
        study = f"[{study}]({line.folder.name}/index.md)"
    method = markdown_text(written_label(row))
    before = baseline_of(of)
    lead = Lead.of(of, row)
    shown = lead is not None and lead.side > 0
    gain = f"**{signed(row.gain, digits)}**" if shown else signed(row.gain, digits)
    items = sorted({cell.items for cell in row.cells.values() if cell.items is not None})
    counts = "" if not items else str(items[0]) if len(items) == 1 else f"{items[0]} to {items[-1]}"
    cells = [
        study,
        f"*{method}*" if row.kind == "control" else method,
        number_text(before.average, digits) if before is not None else "",
        f"{gain} ({interval(row.low, row.high, digits)})",
        "" if row.kind == "control" else _over_controls(line),
        _languages(of, row),
        counts,
    ]
    return f"| {' | '.join(cells)} |"


def _over_controls(line: Line) -> str:
    if steers_nothing(line.comparison, line.row):
        return "steered nothing"
    leads = over_controls(line.comparison, line.row, line.against)
    rows = {row.label: row for row in line.comparison.rows}
    level = [markdown_text(written_label(rows[label])) for label, lead in leads.items() if lead.side <= 0]
    if not leads:
        return "not tested" if own_controls(line.comparison, line.row) else "no such control"
    return f"no ({'; '.join(level)})" if level else "yes"


def _languages(comparison: Comparison, row: Row) -> str:
    steered = steered_languages(comparison, row)
    better, worse = row.significant_gains, row.significant_losses
    told = f"{len(steered)} steered"
    return told if better is None or worse is None else f"{told}; {better} better, {worse} worse"


if __name__ == "__main__":
    sys.exit(main())
