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

from lm_eval_clas.comparing.compare_runs import compare
from lm_eval_clas.comparing.results_files import read_runs
from lm_eval_clas.comparing.rows import Comparison
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


@pytest.mark.parametrize("languages", [None, "rows", "columns"])
def test_latex_compiles(wide: Comparison, languages: Any, tmp_path: Path) -> None:
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed")
    packages = "".join(f"\\usepackage{{{one}}}" for one in ("booktabs", "graphicx"))
    (tmp_path / "table.tex").write_text(latex(wide, languages))
    document = f"\\documentclass{{article}}{packages}\\begin{{document}}\\input{{table}}\\end{{document}}\n"
    (tmp_path / "paper.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Overfull" not in done.stdout, done.stdout[-3000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000


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
        assert "hf" in text
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
