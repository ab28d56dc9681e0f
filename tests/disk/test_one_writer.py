"""Two writers of one folder: the second waits, or is refused with a sentence, and nothing of either is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lm_eval_clas import ClasError
from lm_eval_clas.disk import files, one_writer
from lm_eval_clas.disk.files import cache_dir, write_text
from lm_eval_clas.disk.one_writer import LOCK, only_writer
from lm_eval_clas.disk.written import claimed, foreign

HOLDING = """
import sys, time
from pathlib import Path
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.disk.written import claimed
with claimed(sys.argv[1]):
    write_text(Path(sys.argv[1]) / "theirs", "theirs")
    print("holding", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes to a folder until it is told to end."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def test_a_second_writer_is_refused_with_the_folder_and_who_writes(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_writer, "_PATIENCE", 0.3)
    message = rf"^Another process writes to '{tmp_path}/out' \(process {holder.pid} on .+\); wait until it has ended, or give"
    with pytest.raises(ClasError, match=message), claimed(tmp_path / "out"):
        raise AssertionError
    with pytest.raises(ClasError, match="Another process"), claimed(tmp_path / "out", ["mine"]):
        raise AssertionError
    with claimed(tmp_path / "another"):
        write_text(tmp_path / "another" / "mine", "mine")


def test_it_waits_for_one_that_ends_soon_and_nothing_is_lost(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    assert holder.stdin is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    with claimed(tmp_path / "out"):
        write_text(tmp_path / "out" / "mine", "mine")
    assert foreign(tmp_path / "out" / "theirs") is foreign(tmp_path / "out" / "mine") is None
    assert not (tmp_path / "out" / LOCK).exists()


def test_a_killed_writer_locks_nobody_out(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK).exists()  # nobody could tidy up
    began = time.monotonic()
    with claimed(tmp_path / "out"):
        write_text(tmp_path / "out" / "mine", "mine")
    assert time.monotonic() - began < one_writer._PATIENCE
    assert not (tmp_path / "out" / LOCK).exists()


def test_nothing_is_left_where_nothing_was_written(tmp_path: Path) -> None:
    with only_writer(tmp_path / "a"):
        assert (tmp_path / "a" / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    with claimed(tmp_path / "b" / "c"):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a"]


def test_a_folder_that_takes_no_file_is_told_by_whoever_writes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with only_writer(tmp_path / "file"):
        pass


def test_the_cache_of_before_stays_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LM_EVAL_CLAS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "before"))
    monkeypatch.setattr(files.platformdirs, "user_cache_path", lambda *_, **__: tmp_path / "now")
    assert cache_dir() == tmp_path / "now"
    (tmp_path / "before" / "lm-eval-clas").mkdir(parents=True)
    assert cache_dir() == tmp_path / "before" / "lm-eval-clas"
    monkeypatch.setenv("LM_EVAL_CLAS_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"
