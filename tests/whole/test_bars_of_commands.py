"""Commands in processes of their own: one bar, and nothing of what libraries print; in a terminal, in a file, and quiet.

In the terminal, the process also imports the libraries.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from killing import printed
from terminals import in_terminal, plain

from lm_eval_clas import MaskSet

pytestmark = pytest.mark.slow


def words(name: str, checkpoint: Path, masks: MaskSet, folder: Path) -> list[str]:
    options = {
        "profile": ["--corpus", "mini", "--languages", "en,hi,de", "--batch-size", "1"],
        "tune": ["--masks", str(masks.save(folder / "masks")), "--tasks", "clas_mini_nli_hi,clas_mini_qa_de", "--alphas=-2,2"],
    }
    more = ["--limit", "4"] if name == "tune" else []
    return [name, "--model", str(checkpoint), *options[name], *more, "--device", "cpu", "--out", str(folder / "out")]


def nothing_of_libraries(text: str) -> bool:
    return not any(word in text for word in ("it/s", "?it", "Warning", "Loading", "Building contexts", "INFO"))


@pytest.mark.parametrize("name", ["profile", "tune"])
def test_in_a_terminal(name: str, checkpoint: Path, masks: MaskSet, tmp_path: Path) -> None:
    code, written = in_terminal([sys.executable, "-m", "lm_eval_clas", *words(name, checkpoint, masks, tmp_path)], 80)
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
    out, err = printed(tmp_path / "here", *command)
    assert nothing_of_libraries(err + out), err
    assert "\r" not in err + out
    assert "Next" in out
    out, err = printed(tmp_path / "here", *command, "--quiet")
    assert err == ""
    assert "Next" not in out
    assert ("Strength by task" in out) == (name == "tune")
