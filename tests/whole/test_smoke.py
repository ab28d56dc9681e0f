"""What an installed package must do, whatever it was installed from: CI runs this file against the wheel and the sdist, too."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from small_models import Run

import lm_eval_clas


def test_it_knows_its_version() -> None:
    assert version("lm-eval-clas") == lm_eval_clas.__version__


def test_what_ships_is_found(clas: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, _ = clas("tasks")
    assert code == 0
    assert Path(printed.strip(), "mini", "clas_mini.yaml").is_file()
    code, printed, error = clas("inspect", "gemma-3-270m", "--json")
    assert code == 0, error
    assert json.loads(printed)
    assert len(lm_eval_clas.ParallelInputBuilder("mini").build().languages) == 16


def test_from_texts_to_a_steered_score_through_the_harness(
    clas: Run, profile_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """In a process of its own, so that the harness learns the name as it does for users: from the hook, or the entry point."""
    code, _, error = clas("masks", profile_folder, "--bridge", "2-4", "--threshold", 0.005, "--out", tmp_path / "masks")
    assert code == 0, error
    _, tasks, _ = clas("tasks")
    command = ["run", "--model", "hf-clas", "--model_args", f"pretrained={checkpoint},masks={tmp_path / 'masks'},alpha=2"]
    options = ["--include_path", tasks.strip(), "--tasks", "clas_mini_nli_hi", "--limit", "2", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *command, *options, "--output_path", tmp_path / "out"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert 0 <= found["results"]["clas_mini_nli_hi"]["acc,none"] <= 1
    assert found["config"]["clas"]["alpha"] == 2
