"""Commands in processes of their own: one bar, and nothing of what libraries print; in a terminal, in a file, and quiet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from terminals import in_terminal, plain

from lm_eval_clas import MaskSet

pytestmark = pytest.mark.slow


def words(name: str, checkpoint: Path, masks: MaskSet, folder: Path) -> list[str]:
    options = {
        "profile": ["--corpus", "mini", "--languages", "en,hi,de", "--batch-size", "1"],
        "tune": ["--masks", str(masks.save(folder / "masks")), "--tasks", "clas_mini_nli_hi,clas_mini_qa_de", "--alphas=-2,2"],
    }
    more = ["--limit", "4"] if name == "tune" else []
    start = [sys.executable, "-m", "lm_eval_clas", name, "--model", str(checkpoint)]
    return [*start, *options[name], *more, "--device", "cpu", "--out", str(folder / "out")]


def nothing_of_libraries(text: str) -> bool:
    return not any(word in text for word in ("it/s", "?it", "Warning", "Loading", "Building contexts", "INFO"))


@pytest.mark.parametrize("name", ["profile", "tune"])
def test_in_a_terminal(name: str, checkpoint: Path, masks: MaskSet, tmp_path: Path) -> None:
    code, written = in_terminal(words(name, checkpoint, masks, tmp_path), 80)
    assert code == 0, written
    assert nothing_of_libraries(written), written
    pieces = [piece for line in written.split("\n") for piece in plain(line).split("\r")]
    bars = [piece for piece in pieces if "%" in piece and "━" in piece]
    assert bars
    assert max(map(len, bars)) <= 80
    assert any("loading the model" in bar for bar in bars)


@pytest.mark.parametrize("name", ["profile", "tune"])
def test_in_a_file_and_quiet(name: str, checkpoint: Path, masks: MaskSet, tmp_path: Path) -> None:
    command = words(name, checkpoint, masks, tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert nothing_of_libraries(done.stderr + done.stdout), done.stderr
    assert "\r" not in done.stderr + done.stdout
    assert "Next" in done.stdout
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Next" not in done.stdout
    assert ("Strength by task" in done.stdout) == (name == "tune")
