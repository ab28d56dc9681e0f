"""Completion in zsh and fish themselves: installed as a user does, and asked with the tabulator."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from terminals import plain

pytestmark = pytest.mark.slow
PATIENCE = 300.0  # seconds; every tabulator starts Python


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An empty home, and `clas` on the path."""
    command = tmp_path / "bin" / "clas"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lm_eval_clas "$@"\n')
    command.chmod(0o755)
    (tmp_path / "home").mkdir()
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "LANG", "TMPDIR", "LM_EVAL_CLAS_CACHE") if name in os.environ}
    return kept | {"HOME": str(tmp_path / "home"), "PATH": f"{command.parent}:{os.environ['PATH']}", "TERM": "xterm-256color"}


def installed(shell: str, environment: dict[str, str]) -> str:
    """The shell, after `clas --install-completion` in it."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    # `true`: a shell that has nothing more to do becomes its last command, and is then not there to be found.
    done = subprocess.run(
        [found, "-c", "clas --install-completion; true"], env=environment, capture_output=True, text=True, check=True
    )
    assert f"{shell} completion installed" in done.stdout, done.stdout + done.stderr
    return found


def test_fish(environment: dict[str, str]) -> None:
    fish = installed("fish", environment)

    def offered(line: str) -> list[str]:
        done = subprocess.run(
            [fish, "-c", f"complete -C '{line}'"], env=environment, capture_output=True, text=True, check=True
        )
        return [one.split("\t")[0] for one in done.stdout.splitlines()]

    assert offered("clas insp") == ["inspect"]
    assert offered("clas profile --fi") == ["--first-token"]
    assert offered("clas profile --site a") == ["attn"]


def test_zsh(environment: dict[str, str]) -> None:
    zsh = installed("zsh", environment)
    process, ours = pty.fork()
    if process == 0:
        os.execve(zsh, [zsh, "-i"], environment | {"PS1": "ready> "})
    try:
        seen(ours, "ready> ")
        os.write(ours, b"clas insp\t")
        seen(ours, "clas insp", "\a")  # typer's script: the first tabulator of a session loads it, and no more
        os.write(ours, b"\t")
        seen(ours, "ect")
        for typed, rest in (("clas profile --fi", "rst-token"), ("clas profile --site a", "ttn")):
            os.write(ours, f"\x15{typed}\t".encode())  # in the place of the line before
            seen(ours, typed, rest)
    finally:
        os.write(ours, b"\x15exit\r")
        os.close(ours)
        os.waitpid(process, 0)


def seen(terminal: int, *wanted: str) -> None:
    """Waits until a terminal has shown some texts, one after the other."""
    written, end = b"", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            written += os.read(terminal, 65536)
        text, place = plain(written.decode(errors="replace")), 0
        for one in wanted:
            place = text.find(one, place)
            if place < 0:
                break
            place += len(one)
        else:
            return
    raise AssertionError(f"{wanted} did not come: {written!r}")
