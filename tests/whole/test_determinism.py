"""The whole small pipeline, run twice with one seed and one date, in two interpreters: the same files, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from killing import MOMENT, Command, contents, differing, run
from small_models import Run

pytestmark = pytest.mark.slow

SMALL = ("--corpus", "mini", "--languages", "en,hi,de", "--samples", 4, "--device", "cpu")
STABILITY = ("stability", "profile", "half", "--bridge", "2-4", "--out", "stability.json")


def pipeline(model: Path) -> list[Command]:
    """Every command that writes files, in the order of the work."""
    profile = ("profile", "--model", model, *SMALL, "--level", "instance")
    masks = ("masks", "profile", "--level", "instance", "--bridge", "2-4", "--keep-means")
    export = ("export", "masks", "--model", model, "--language", "all", "--alpha", -2)
    tune = ("tune", "--model", model, "--masks", "masks", "--tasks", "clas_mini_nli_hi,clas_mini_nli_de", "--limit", 6)
    geometry = ("geometry", "--model", model, "--masks", "masks", "--corpus", "mini", "--samples", 4, "--device", "cpu")
    return [
        (*profile, "--out", "profile"),
        ("profile", "--model", model, *SMALL, "--half", "first", "--out", "half"),
        ("profile", "--model", model, *SMALL, "--site", "attn", "--out", "attention"),
        (*masks, "--out", "masks"),
        ("masks", "profile", "--bridge", "2-4", "--threshold", 0.005, "--specific", "lape", "--out", "lape"),
        ("masks", "attention", "--by", "head", "--bridge", "2-4", "--out", "heads"),
        *(("inspect", "masks", "--plot", f"categories.{ending}") for ending in ("png", "pdf", "svg")),
        (*tune, "--alphas=-2,-1,1,2", "--device", "cpu", "--out", "run"),
        (*export, "--format", "ia3", "--out", "adapters"),
        (*export, "--format", "merged", "--out", "checkpoints"),
        STABILITY,
        (*geometry, "--method", "random", "--out", "geometry"),
        ("paper", "recipe.yaml", "--out", "study"),
        ("table", "hf=study/results/hf", "clas=study/results/clas", "--baseline", "hf", "--out", "tables"),
        ("report", "study", "--out", "report.html"),
    ]


def test_two_runs_write_the_same_bytes(
    checkpoint: Path, small_study: dict[str, Any], clas: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "recipe.yaml").write_text(yaml.safe_dump(small_study | {"model": str(checkpoint)}))
    for command in pipeline(checkpoint):
        run(there, *command, drawn=True)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", MOMENT)
    monkeypatch.chdir(here)
    for command in pipeline(checkpoint):
        code, _, error = clas(*command)
        assert code == 0, (command, error)
    written = contents(here)
    print(f"{len(written)} files, {sum(map(len, written.values())):,} bytes")
    assert len(written) > 50
    assert not (different := differing(here, there)), different


def test_the_clock_is_fixed_by_a_number_only(clas: Run, monkeypatch: pytest.MonkeyPatch, profile_folder: Path) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    code, _, error = clas("masks", profile_folder, "--out", profile_folder.with_name("masks"))
    assert code == 2
    assert "SOURCE_DATE_EPOCH must be a number of seconds" in error
    assert not profile_folder.with_name("masks").exists()
