"""One bar for a whole job: in a terminal of 80 columns, in a log file, and where another screen prints beside it."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from terminals import in_terminal, moves_up, plain, python

from lm_eval_clas.base.job_progress import JobProgress
from lm_eval_clas.base.screen import Screen

JOB = """
import time
from lm_eval_clas.base.job_progress import JobProgress
from lm_eval_clas.base.screen import Screen
results, messages = Screen(), Screen(stderr=True)
with JobProgress(messages, every={every}) as progress:
    progress.say("loading the model")
    time.sleep(0.6)
    tasks = [progress.add_task(f"profiling {{one}} " + "x" * {long}, total=10) for one in ("en", "hi")]
    for task in tasks:
        for _ in range(10):
            progress.advance(task)
            time.sleep(0.06)
        results.print("a result")
results.print("the end")
"""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_in_a_terminal_it_is_one_line_that_goes_away(columns: int) -> None:
    code, written = in_terminal(python(JOB.format(every=60, long=150)), columns)
    assert code == 0, written
    assert "loading the model" in written
    assert "profiling hi" in written
    assert "%" in written
    assert not moves_up(written.replace("\x1b[1A\x1b[2K", "", 3))  # but to erase it, before a result and at the end
    drawn = [line for part in written.split("\n") for line in plain(part).split("\r")]
    assert max(map(len, drawn)) <= columns
    shown = plain(written).replace("\r", "\n").split("\n")
    results = [line.strip() for line in shown if "result" in line or "the end" in line]
    assert results == ["a result", "a result", "the end"]


def test_in_a_log_it_is_a_line_now_and_then_without_returns() -> None:
    done = subprocess.run(python(JOB.format(every=0.3, long=0)), capture_output=True, text=True, check=True)
    assert done.stdout == "a result\na result\nthe end\n"
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("loading the model: 0%, 0:00 so far")
    assert any(line.startswith("profiling hi") and "% " not in line and "so far, about 0:0" in line for line in lines)
    assert 3 <= len(lines) <= 10


def test_a_short_job_says_nothing_in_a_log() -> None:
    done = subprocess.run(python(JOB.format(every=60, long=0)), capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_all_tasks_count_alike() -> None:
    progress = JobProgress(Console(file=io.StringIO()))
    assert progress.share == 0
    first, second = progress.add_task("first", total=10), progress.add_task("second", total=None)
    progress.update(first, completed=5)
    assert progress.share == pytest.approx(0.25)
    progress.update(second, completed=3, total=4)
    assert progress.share == pytest.approx((0.5 + 0.75) / 2)
    assert progress.line.startswith("second: 62%, 0:0")


def test_stages_and_their_parts_count_alike() -> None:
    progress = JobProgress(Console(file=io.StringIO()))
    progress.stage("tune", 3, 4)
    assert progress.share == pytest.approx(0.5)
    assert progress.line.startswith("tune: 50%")
    progress.advance(progress.add_task("x", total=2))
    assert progress.share == pytest.approx(0.625)
    assert "left" not in progress.line  # stages take as long as they take
    progress.stage("evaluate", 4, 4)
    for number, reached in ((1, 0.875), (2, 1.0)):
        progress.part(number, 2)
        for task in [progress.add_task(f"{number} {one}", total=5) for one in "ab"]:
            progress.update(task, completed=5)
        assert progress.share == pytest.approx(reached)


def test_it_never_goes_back() -> None:
    progress = JobProgress(Console(file=io.StringIO()))
    shares = []
    for late in range(3):  # tasks that come when those before are done
        task = progress.add_task(f"task {late}", total=4)
        for changed in ({"completed": 1}, {"completed": 4}, {"total": 8}):  # at last, there is more to do than was thought
            progress.update(task, **changed)
            shares.append(progress.share)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_quiet_screen_shows_nothing() -> None:
    written = io.StringIO()
    with JobProgress(Screen(file=written, quiet=True), every=0.01) as progress:
        progress.advance(progress.add_task("x", total=2))
    assert written.getvalue() == ""
    assert Screen.bar is None


NOTEBOOK = JOB.replace("import time\n", "import time\nimport sys\n")


def test_in_a_notebook_it_is_one_output_that_is_replaced(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient comes with the extra test")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    (tmp_path / "job.py").write_text(JOB.format(every=60, long=0))
    cells = [JOB.format(every=60, long=0), f"!{sys.executable} {tmp_path / 'job.py'}"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    inside, outside = (cell.outputs for cell in book.cells)
    bars = [one for one in inside if one.output_type == "display_data" and "%" in one.data.get("text/plain", "")]
    assert len(bars) == 1
    assert bars[0].data["text/plain"].startswith("profiling hi")
    text = "".join(one.text for one in outside)
    assert "profiling hi" in text
    assert text.count("\n") <= 8
