"""Processes killed with SIGKILL at random moments and started again end with the files of an undisturbed run, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from killing import killed_again_and_again

from lm_eval_clas import MaskSet

pytestmark = pytest.mark.slow
KILLS = 12  # of a study, which also profiles and tunes
OF_A_STAGE = 8


@pytest.fixture
def given(tmp_path: Path, masks: MaskSet) -> Path:
    """A folder with masks and a recipe."""
    masks.save(tmp_path / "given" / "masks")
    return tmp_path / "given"


def test_profile(given: Path, checkpoint: Path) -> None:
    corpus = ["--corpus", "mini", "--languages", "en,hi,de,zh", "--samples", 8, "--batch-size", 2]
    command = ["profile", "--model", checkpoint, *corpus, "--out", "profile", "--level", "instance", "--device", "cpu"]
    moments = killed_again_and_again(given, command, OF_A_STAGE, seed=1)
    print(f"killed {len(moments)} times, {min(moments):.2f} to {max(moments):.2f} s after the start")


def test_tune(given: Path, checkpoint: Path) -> None:
    tasks = "clas_mini_nli_hi,clas_mini_qa_de"
    options = ["--alphas=-2,0,2", "--batch-size", 2, "--limit", 4, "--guard", "--device", "cpu"]
    command = ["tune", "--model", checkpoint, "--masks", "masks", "--tasks", tasks, *options, "--out", "run"]
    moments = killed_again_and_again(given, command, OF_A_STAGE, seed=2)
    print(f"killed {len(moments)} times, {min(moments):.2f} to {max(moments):.2f} s after the start")


def test_paper(given: Path, checkpoint: Path, small_study: dict[str, Any]) -> None:
    # One part, and no geometry, whose pictures would take half of the time.
    less = {"parts": {"qa": small_study["parts"]["qa"]}, "analyse": {"geometry_samples": None}}
    (given / "recipe.yaml").write_text(yaml.safe_dump(small_study | {"model": str(checkpoint)} | less))
    moments = killed_again_and_again(given, ["paper", "recipe.yaml", "--out", "study"], KILLS, seed=3)
    print(f"killed {len(moments)} times, {min(moments):.2f} to {max(moments):.2f} s after the start")
