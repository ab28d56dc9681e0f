"""The page of results over models and methods says what the committed tables say, and takes a new folder by itself."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from synthetic_study import make_comparison, make_masks, rebased

from lm_eval_clas import ClasError

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("leaderboard", DOCS / "mkdocs" / "leaderboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for what annotations name
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(script: ModuleType) -> None:
    page = (DOCS / "results" / "index.md").read_text(encoding="utf-8")
    assert page == script.leaderboard(DOCS / "results"), "run python docs/mkdocs/leaderboard.py"


def test_a_new_folder_is_on_the_page(script: ModuleType, tmp_path: Path) -> None:
    codes = ["en", "hi", "de"]
    masks = make_masks(codes, 8, np.random.default_rng(0))
    made = make_comparison("clas_xquad", codes, masks, 3.0, np.random.default_rng(1))
    for name in ("a-model", "b-model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clas_xquad.json").write_text(made.model_dump_json(indent=2))
    (tmp_path / "b-model" / "index.md").write_text("# B")
    (tmp_path / "b-model" / "stability.json").write_text("{}")  # no table
    (tmp_path / "index.md").write_text("# the page itself")
    (tmp_path / "a-model" / "clas_xquad-against-uniform.json").write_text(rebased(made, "uniform").model_dump_json())
    rows = [line for line in script.leaderboard(tmp_path).splitlines() if line.startswith(("| a-", "| [b-"))]
    assert len(rows) == 2 * 4
    gains = [float(row.split("|")[4].strip(" *").split("*")[0].split(" ")[0].replace("\u2212", "-")) for row in rows]
    assert gains == sorted(gains, reverse=True)
    of_clas = [row for row in rows if "| CLAS |" in row]
    row = next(one for one in made.rows if one.label == "clas")
    assert row.gain is not None
    assert f"**+{row.gain:.2f}** (+{row.low:.2f} to +{row.high:.2f})" in of_clas[0]
    assert "| yes | 2 steered; " in of_clas[0]
    assert of_clas[1].startswith("| [b-model](b-model/index.md) | CLAS |")
    assert "| not tested |" in of_clas[1]
    assert sum("| *uniform gain* |" in row for row in rows) == 2


def test_what_steered_nothing_is_last_and_not_judged(script: ModuleType, tmp_path: Path) -> None:
    codes = ["en", "hi", "de"]
    made = make_comparison("clas_xquad", codes, make_masks(codes, 8, np.random.default_rng(0)), 3.0, np.random.default_rng(1))
    idle = next(row for row in made.rows if row.label == "clas")
    idle.steering["left_alone"] = dict.fromkeys(("hi", "de"), "tuned to 0")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "clas_xquad.json").write_text(made.model_dump_json())
    (tmp_path / "a" / "clas_xquad-against-uniform.json").write_text(rebased(made, "uniform").model_dump_json())
    rows = [line for line in script.leaderboard(tmp_path).splitlines() if line.startswith("| a ")]
    assert "| CLAS |" in rows[-1]
    assert "| steered nothing |" in rows[-1]


def test_a_metric_has_a_table_of_its_own_and_a_method_without_controls_is_not_called_untested(
    script: ModuleType, tmp_path: Path
) -> None:
    codes = ["en", "hi", "de"]
    made = make_comparison("clas_xquad", codes, make_masks(codes, 8, np.random.default_rng(0)), 3.0, np.random.default_rng(1))
    other = made.model_copy(update={"metric": "f1"})
    (tmp_path / "a").mkdir()
    for name, one in (
        ("clas_xquad", made), ("clas_xquad-against-uniform", rebased(made, "uniform")), ("clas_xquad-f1", other),
    ):  # fmt: skip
        (tmp_path / "a" / f"{name}.json").write_text(one.model_dump_json())
    page = script.leaderboard(tmp_path)
    tables = {part.partition("\n")[0]: part for part in page.split("\n## ")[2:]}
    assert list(tables) == ["XQuAD: SQuAD F1", "XQuAD: F1"]
    told = {
        title: {row.split(" | ")[1]: row.split(" | ")[4] for row in part.splitlines() if row.startswith("| a |")}
        for title, part in tables.items()
    }
    assert (told["XQuAD: F1"]["CLAS"], told["XQuAD: F1"]["Int-mu"]) == ("yes", "no such control")
    assert (told["XQuAD: SQuAD F1"]["CLAS"], told["XQuAD: SQuAD F1"]["Int-mu"]) == ("not tested", "no such control")


def test_a_damaged_table_is_named(script: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(DOCS / "results" / "gemma-3-270m", tmp_path / "x")
    path = tmp_path / "x" / "clas_xnli.json"
    path.write_text(path.read_text()[:-50])
    with pytest.raises(ClasError, match=r"clas_xnli\.json"):
        script.leaderboard(tmp_path)
