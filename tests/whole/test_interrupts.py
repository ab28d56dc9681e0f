"""Ctrl-C at any moment of a long command: one line that says what is kept and how to go on, exit code 130, no traceback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from killing import run, start
from small_models import Run

from lm_eval_clas import MaskSet

CORPUS = ("--corpus", "mini", "--languages", "en,hi,de,zh", "--device", "cpu")
SEEN = {
    "profile": "profile/en.safetensors",
    "tune": "run/scores/*.json",
    "geometry": "geometry/*",
    "paper": "study/profile/*/*",
}


def interrupt(folder: Path, command: tuple[object, ...], seen: str, wait: float = 0.0) -> str | None:
    """What a command says that gets Ctrl-C once a file of its is there, or after some seconds; None if it ended before."""
    log = folder.parent / "log"
    log.unlink(missing_ok=True)
    process = start(folder, *command, drawn=True)  # which leaves time between a picture's file and the end
    while not log.exists():
        time.sleep(0.01)
    began = time.monotonic()
    while process.is_alive() and not list(folder.glob(seen)) and time.monotonic() - began < (wait or 300):
        time.sleep(0.01)
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGINT)
    process.join(60)
    told = log.read_text()
    if process.exitcode == 0:
        return None
    assert process.exitcode == 130, told[-3000:]
    assert "Traceback" not in told
    return told


@pytest.fixture
def given(tmp_path: Path, masks: MaskSet, checkpoint: Path, small_study: dict[str, Any]) -> Path:
    """A folder with masks and a recipe."""
    masks.save(tmp_path / "given" / "masks")
    study = small_study | {"model": str(checkpoint), "analyse": {"geometry_samples": None}}
    (tmp_path / "given" / "recipe.yaml").write_text(yaml.safe_dump(study))
    return tmp_path / "given"


def commands(checkpoint: Path) -> dict[str, tuple[object, ...]]:
    model = ("--model", checkpoint)
    tasks = ("--tasks", "clas_mini_nli_hi,clas_mini_qa_de", "--alphas=-2,0,2", "--limit", 8, "--device", "cpu")
    return {
        "profile": ("profile", *model, *CORPUS, "--batch-size", 1, "--out", "profile"),
        "tune": ("tune", *model, "--masks", "masks", *tasks, "--out", "run"),
        "geometry": ("geometry", *model, *CORPUS, "--masks", "masks", "--batch-size", 1, "--out", "geometry"),
        "paper": ("paper", "recipe.yaml", "--out", "study"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEN)
def test_a_long_command_says_what_is_kept_and_goes_on(name: str, given: Path, checkpoint: Path) -> None:
    command = commands(checkpoint)[name]
    for wait in (0.3, 1.0):  # at its start: while libraries are imported, or the model is loaded
        if early := interrupt(given, command, "no such file", wait):
            assert early.splitlines()[-1].startswith("Interrupted.")
    told = ""
    for _ in range(5):  # a command that is quick may end between its file and Ctrl-C
        for other in {path.name for path in given.iterdir()} - {"masks", "recipe.yaml"}:
            shutil.rmtree(given / other)
        if late := interrupt(given, command, SEEN[name]):
            told = late.splitlines()[-1]
            break
    assert told.startswith("Interrupted")
    assert "the same command" in told.lower()
    if name == "profile":
        assert "Finished: en" in told
    run(given, *command)


@pytest.mark.slow
def test_the_demo_does_too(tmp_path: Path, checkpoint: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "cache" / "gemma-3-270m")
    environment = os.environ | {"LM_EVAL_CLAS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "lm_eval_clas", "demo", "--out", str(tmp_path / "demo")]
    # A shell that starts something in the background may have turned Ctrl-C off for it.
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while process.poll() is None and not (tmp_path / "demo" / "masks").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.splitlines()[-1].startswith("Interrupted. The converted model, finished languages and finished results are")
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("command", "place", "told"),
    [
        (("route", "clas_xquad"), "lm_eval_clas.languages.task_index.read_index", "Files are written whole or not at all; the"),
        (("inspect", "gemma-3-270m"), "lm_eval_clas.masks.mask_set.MaskSet.load", "Files are written whole or not at all; the"),
        (
            ("eval", "--tasks", "x"),
            "lm_eval_clas.harness.plugin.register",
            "lm_eval keeps nothing of a run that did not end, but",
        ),
        (("push", "gemma-3-270m", "a/b"), "lm_eval_clas.masks.mask_set.MaskSet.load", "A commit is made whole or not at all"),
        (("demo-model",), "lm_eval_clas.demo.demo_model.gemma", "A model that was not converted to its end is not kept"),
    ],
)
def test_every_command_ends_so(
    clas: Run, command: tuple[str, ...], place: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, _interrupted)
    code, out, error = clas(*command)
    assert (code, out) == (130, "")
    assert error.splitlines()[-1].startswith(f"Interrupted. {told}")
    assert "Traceback" not in error


def test_a_quiet_command_says_it_too(clas: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval_clas.masks.mask_set.MaskSet.load", _interrupted)
    code, _, error = clas("inspect", "gemma-3-270m", "--quiet")
    assert (code, error.count("Interrupted.")) == (130, 1)


def test_nothing_is_begun_while_options_are_read(clas: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval_clas.commands.application.no_bars_of_libraries", _interrupted)
    assert clas("tasks") == (130, "", "Interrupted. Nothing was begun.\n")


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
