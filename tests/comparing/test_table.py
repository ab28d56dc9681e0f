"""A comparison in every format: it renders, compiles, and holds every number."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import STEERED, compare_made, draw, write_run
from markdown_it import MarkdownIt
from small_models import Run

from lm_eval_clas.comparing.compare_runs import compare
from lm_eval_clas.comparing.layouts import caption, legend
from lm_eval_clas.comparing.results_files import read_runs
from lm_eval_clas.comparing.rows import Comparison, LanguageCell, Row
from lm_eval_clas.comparing.tables import csv, frame, latex, markdown_table, write_tables


@pytest.fixture
def wide(tmp_path: Path) -> Comparison:
    """Fifteen languages, with a name that every format must escape, and something significant."""
    languages = ["ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"]
    theirs, ours = draw(1, 40, tasks=languages), draw(2, 40, tasks=languages)
    theirs["xnli_hi"], ours["xnli_hi"] = [1.0] * 40, [0.0] * 40
    found = compare_made(tmp_path / "runs", theirs, ours, cited=True)
    rows = [
        *found.rows[:1],
        found.rows[1].model_copy(update={"label": "50% | a_b & #1 {x} ~ ^ \\ <b> *c* `d`"}),
        *found.rows[2:],
    ]
    return found.model_copy(update={"rows": rows})


@pytest.mark.parametrize("languages", ["rows", "columns"])
def test_markdown_renders(wide: Comparison, languages: Any) -> None:
    html = MarkdownIt("commonmark").enable("table").render(markdown_table(wide, languages))
    assert html.count("<table>") == 1
    assert "50% | a_b &amp; #1 {x} ~ ^ \\ &lt;b&gt; *c* `d`" in html
    assert "<em>" not in html
    rows = re.findall("<tr>(.*?)</tr>", html, re.DOTALL)
    assert {len(re.findall("<t[hd]", row)) for row in rows} == {20 if languages == "columns" else 6}
    assert "-100.0*" in html
    assert "(1*)" in html
    assert "+1.93" in html
    assert "a third-party summary of arXiv 2601.16390" in html


@pytest.mark.parametrize("siunitx", [False, True])
@pytest.mark.parametrize("languages", [None, "rows", "columns"])
def test_latex_compiles(wide: Comparison, languages: Any, siunitx: bool, tmp_path: Path) -> None:
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed")
    if siunitx and subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True).returncode:
        pytest.skip("siunitx is not installed (Debian: texlive-science)")
    packages = "".join(f"\\usepackage{{{one}}}" for one in ("booktabs", "graphicx", *(["siunitx"] if siunitx else [])))
    (tmp_path / "table.tex").write_text(latex(wide, languages, siunitx))
    document = f"\\documentclass{{article}}{packages}\\begin{{document}}\\input{{table}}\\end{{document}}\n"
    (tmp_path / "paper.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Overfull" not in done.stdout, done.stdout[-3000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000


def two_languages(**more: Any) -> Comparison:
    """CLAS is best and significant in Hindi, and worst in German; all are alike in English."""

    def row(label: str, kind: Any, method: str, hi: float, de: float) -> Row:
        gains: dict[str, float | None] = {"hi": hi - 30, "de": de - 40, "en": 0.0} if kind != "baseline" else {}
        cells = {
            code: LanguageCell(score=score, items=200, gain=gains.get(code), p_holm=0.01 if gains and code == "hi" else None)
            for code, score in (("en", 50.0), ("hi", hi), ("de", de))
        }
        gain = None if kind == "baseline" else (hi + de - 70) / 3
        steering = {"method": method}
        return Row(label=label, kind=kind, cells=cells, average=(50 + hi + de) / 3, gain=gain, losses=1, steering=steering)

    rows = [
        *(row("hf", "baseline", "off", 30, 40), row("random, 2 seeds", "control", "random", 31, 40)),
        *(row("clas", "method", "clas", 33, 39), row("My-Own_run", "method", "later", 29, 39)),
    ]
    found = Comparison(
        family="clas_xquad", tasks={}, metric="f1_lang", unit="points", test="permutation", baseline="hf", anchor="en",
        languages=["en", "hi", "de"], average_languages=["en", "hi", "de"], rows=rows, notes=["Left alone by 'clas': de."],
    )  # fmt: skip
    return found.model_copy(update=more)


def latex_of(**more: Any) -> str:
    return latex(two_languages(**more))


def test_latex_has_a_short_caption_and_names_as_people_write_them() -> None:
    text = latex_of()
    assert r"\caption{F1 (points) on XQuAD in 3 languages, and gains over the unsteered model.}" in text
    table, note = text.split(r"\end{tabular}")
    for name in ("unsteered (baseline)", "random masks, 2 seeds (control)", "CLAS &", r"My-Own\_run &"):
        assert name in table
    assert r"\texttt{f1\_lang} of \texttt{clas\_xquad} in points, 200 items per language" in note.partition(r"\footnotesize")[2]
    assert "two-sided paired permutation test on the same items" in note
    assert "Left alone by \u2018CLAS\u2019: de." in note
    assert not re.search(r"\bclas\b", table.partition(r"\begin{tabular}")[2])


def test_latex_marks_the_best_and_the_significant() -> None:
    lines = {line.split(" & ")[0]: line for line in latex_of().splitlines() if " & " in line and not line.startswith("gain")}
    assert re.findall(r"textbf\{(.*?)\}", lines["CLAS"]) == ["33.0", "40.67"]
    assert re.findall(r"textbf\{(.*?)\}", lines["unsteered (baseline)"]) == ["40.0"]  # what all share is nobody's best
    assert latex_of().count(r"\rlap{$^{\dagger}$}") == 3
    lower = {line.split(" & ")[0]: line for line in latex_of(higher_is_better=False).splitlines() if " & " in line}
    assert re.findall(r"textbf\{(.*?)\}", lower["CLAS"]) == ["39.0"]


def test_few_items_are_warned_of(tmp_path: Path, clas: Callable[..., tuple[int, str, str]]) -> None:
    for name, steering in (("hf", None), ("clas", STEERED)):
        write_run(tmp_path / name, draw(1, 49, tasks=("hi",)) | draw(1, 50, tasks=("de",)), steering)
    found = compare(read_runs([tmp_path]), "xnli")
    warning = "Only 49 items in hi: below 50, chance alone moves a score by several points."
    assert warning in found.notes
    assert warning in " ".join(clas("table", tmp_path, "--format", "latex")[2].split())
    assert warning in " ".join(clas("table", tmp_path)[1].split())


def test_the_legend_speaks_of_what_the_table_has(wide: Comparison) -> None:
    assert "%: that gain relative to the average of" in legend(wide)
    bare = [row.model_copy(update={"low": None, "high": None}) for row in wide.rows]
    assert "%: the average gain relative to the average of" in legend(wide.model_copy(update={"rows": bare}))
    one = [
        row.model_copy(update={"cells": {name: cell.model_copy(update={"clusters": 1}) for name, cell in row.cells.items()}})
        for row in wide.rows
    ]
    assert caption(wide.model_copy(update={"rows": one, "cluster_fields": {"hi": "cluster"}}))[2].count(" in 1 cluster;") == 1


def test_csv_and_json_hold_every_number(wide: Comparison, tmp_path: Path) -> None:
    paths = write_tables(wide, tmp_path / "tables")
    assert [path.name for path in paths] == ["xnli.md", "xnli.tex", "xnli.csv", "xnli.json"]
    assert Comparison.model_validate_json(paths[3].read_text()) == wide
    table = pd.read_csv(paths[2])
    assert len(table) == 15 + 1 + 15 + 1 + 2
    for row in wide.rows[:2]:
        for language, cell in row.cells.items():
            (line,) = table[(table["run"] == row.label) & (table["language"] == language)].to_dict("records")
            for name, value in cell.model_dump().items():
                assert line[name] == pytest.approx(value) if value is not None else np.isnan(line[name])
    (line,) = table[(table["kind"] == "method") & table["language"].isna()].to_dict("records")
    assert (line["gain"], line["low"], line["losses"]) == pytest.approx(
        (wide.rows[1].gain, wide.rows[1].low, wide.rows[1].losses)
    )


def test_a_baseline_alone_is_a_table_of_scores(tmp_path: Path) -> None:
    write_run(tmp_path, draw(1))
    found = compare(read_runs([tmp_path]), "xnli")
    assert len(found.rows) == 1
    for text in (markdown_table(found), latex(found), csv([found])):
        assert "hf" in text or "unsteered" in text  # as the harness has it, or as people write it
        assert "bootstrap" not in text
    assert len(frame(found)) == 4


def test_the_command(tmp_path: Path, clas: Callable[..., tuple[int, str, str]]) -> None:
    study, tables = tmp_path / "study", tmp_path / "tables"
    for seed, steering in enumerate([None, STEERED, {**STEERED, "method": "uniform"}]):
        write_run(study / str(seed), draw(seed) | draw(seed, tasks=("hi",), graded=True), steering)
    code, text, error = clas("table", study, "--cited", "--out", tables)
    assert code == 0, error
    assert "xnli: acc in points, 60 items per language; gains are over hf" in text
    assert "uniform alpha 1 (control)" in text
    assert max(map(len, text.splitlines())) <= 80
    assert sorted(path.name for path in tables.iterdir()) == [
        "clas_files.sha256",
        *(f"{family}.{ending}" for family in ("xnli", "xquad") for ending in ("csv", "json", "md", "tex")),
    ]
    assert "Wrote" in error
    code, text, _ = clas("table", study, "--tasks", "xquad", "--format", "json", "--metric", "acc")
    assert code == 0
    assert Comparison.model_validate_json(text).family == "xquad"
    assert clas("table", study, "--format", "csv")[1].count("family,metric") == 1
    assert len(json.loads(clas("table", study, "--format", "json")[1])) == 2
    assert clas("table", study, "--format", "latex")[1].count(r"\begin{table}") == 2
    assert clas("table", study, "--format", "md", "--languages", "rows")[1].count("| average") == 2
    code, _, error = clas("table", study, "--baseline", "nobody")
    assert code == 2
    assert "no run is called 'nobody'" in " ".join(error.split())


def test_many_languages_are_rows_on_a_narrow_terminal(
    wide: Comparison, tmp_path: Path, clas: Callable[..., tuple[int, str, str]]
) -> None:
    code, text, _ = clas("table", tmp_path / "runs")
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80
    assert "average (15)" in text
    many = [f"{number}={tmp_path / 'runs' / 'clas'}" for number in range(5)]
    text = clas("table", tmp_path / "runs" / "hf", *many, "--cited")[1]
    assert max(map(len, text.splitlines())) <= 80
    assert (text.count("average (15)"), text.count("(cited): average gain")) == (2, 2)
    assert "average (15)" not in clas("table", tmp_path / "runs", "--languages", "columns")[1]


def test_siunitx_gets_numbers_alone_in_columns_as_wide_as_they_are() -> None:
    plain, aligned = latex(two_languages()), latex(two_languages(), siunitx=True)
    assert "siunitx" not in plain
    assert aligned.startswith(
        r"% Needs \usepackage{booktabs} and \usepackage{graphicx} and \usepackage{siunitx}, version 3 or later."
    )
    columns = ["2.1", "-2.1", "-2.1", "-2.2"]
    assert f"{{tabular}}{{l{''.join(f'S[table-format={one}]' for one in columns)}rrS[table-format=1]}}" in aligned
    lines = [[cell.strip() for cell in line.removesuffix(r"\\").split("&")] for line in aligned.splitlines() if "&" in line]
    assert lines[0] == ["", *(f"{{{one}}}" for one in ("en", "hi", "de", "average", r"95 \% interval", r"\%", "lose"))]
    place = next(number for number, line in enumerate(lines) if line[0] == "CLAS")
    assert lines[place] == ["CLAS", "50.0", r"\bfseries 33.0", "39.0", r"\bfseries 40.67", "", "", ""]
    assert lines[place + 1] == ["gain", "0.0", r"+3.0{\rlap{$^{\dagger}$}}", "-1.0", "+0.67", "", "", "1"]


def test_scores_below_0_have_a_minus_and_no_hyphen() -> None:
    made = two_languages()
    for row in made.rows:
        for cell in row.cells.values():
            cell.score = -cell.score
    assert r"\textbf{$-$39.0}" in latex(made)
    assert r"\bfseries -39.0" in latex(made, siunitx=True)


def test_siunitx_leaves_texts_among_numbers_in_braces() -> None:
    aligned = latex(two_languages(), "rows", siunitx=True)
    columns = ["2.2", "2.2", "-1.2", "2.2", "-1.2", "2.2", "-1.2"]
    assert f"{{tabular}}{{l{''.join(f'S[table-format={one}]' for one in columns)}}}" in aligned
    assert aligned.count("{score}") == 4
    assert aligned.count("{gain}") == 3
    assert r"\multicolumn{2}{c}{" in aligned


def test_siunitx_is_for_latex(clas: Run) -> None:
    for more in ((), ("--format", "csv")):
        code, _, error = clas("table", "nothing-here", "--siunitx", *more)
        assert code == 2
        assert "--siunitx changes LaTeX tables and nothing else; give it together with --format latex or --out." in error
