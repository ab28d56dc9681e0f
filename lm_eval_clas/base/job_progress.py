"""`JobProgress`: one bar for a whole job, with its stage, wherever the job runs.

In a terminal it is one line that is drawn again in its place; in a notebook one output that is replaced; in a log file, or
wherever else nothing can be drawn again, a line a minute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import Progress, TaskID
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lm_eval_clas.base.escaping import visible_line
from lm_eval_clas.base.screen import Screen

_MINUTE = 60.0
_REDRAWN = 0.5  # seconds between two pictures in a notebook, at least
_NO_GUESS = 0.02  # of the job: before that much is done, nobody can tell how long the rest takes


class JobProgress(Progress):
    """The tasks of a job as one bar, which never goes back: all of them count alike.

    Whatever takes rich's `Progress` takes it. The stage that is shown is that of the task that moved last, or what `say` told.

    Args:
        console: where it is drawn; nothing is, if that is quiet.
        every: seconds between two lines of a log.
    """

    def __init__(self, console: Console, every: float = _MINUTE) -> None:
        self._screen = console
        self._says = ""
        self._stage = self._span = (0.0, 1.0)  # of the job: where the stage begins and how long it is, and where its part does
        self._reached = 0.0
        self._since = time.monotonic()
        self._moved: tuple[float, float] | None = None  # when the first work was done, and how much there was by then
        self._every = every
        self._stopped = threading.Event()
        self._shown: Any = None  # the output in a notebook
        self._drawn = 0.0
        drawable = console.is_terminal and not console.is_dumb_terminal and not console.is_jupyter
        super().__init__(console=console, transient=True, refresh_per_second=4, disable=console.quiet or not drawable)

    def say(self, stage: str) -> None:
        """Tells what is being done, while no task moves."""
        self._says = visible_line(stage)
        self._draw()

    def stage(self, name: str, number: int, of: int) -> None:
        """Begins one of several stages, which count alike."""
        self._stage = ((number - 1) / of, 1 / of)
        self._begin(self._stage)
        self.say(name)

    def part(self, number: int, of: int) -> None:
        """Begins one of several parts of a stage, which count alike, and whose tasks are not known before."""
        start, length = self._stage
        self._begin((start + length * (number - 1) / of, length / of))

    def _begin(self, span: tuple[float, float]) -> None:
        with self._lock:
            self._tasks.clear()
            self._span = span

    @property
    def share(self) -> float:
        """How much of the job is done, from 0 to 1: never less than before, also where a task comes after others have moved."""
        with self._lock:
            self._reached = max(self._reached, self._place())
            return self._reached

    def _place(self) -> float:
        """Where the tasks that are known put the bar."""
        start, length = self._span
        shares = [min(1.0, one.completed / one.total) if one.total else 0.0 for one in self._tasks.values()]
        return start + length * (sum(shares) / len(shares) if shares else 0.0)

    @property
    def line(self) -> str:
        """The progress as a line of a log."""
        share = self.share
        left = self._left(share)
        rest = "" if left is None else f", about {_clock(left)} left"
        return f"{self._says or 'working'}: {share:.0%}, {_clock(time.monotonic() - self._since)} so far{rest}"

    def start(self) -> None:
        """Begins to show it."""
        super().start()
        if not self.disable:
            Screen.bar = self
        elif not self._screen.quiet and not self._screen.is_jupyter:
            threading.Thread(target=self._log, daemon=True).start()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """The bar is away in the block, and drawn again after it."""
        self.live.stop()
        try:
            yield
        finally:
            self.live.start(refresh=True)

    def stop(self) -> None:
        """Ends it; nothing of the bar stays on a screen."""
        self._stopped.set()
        Screen.bar = None
        if not self.disable:
            self.live.stop()

    def add_task(self, description: str, *arguments: Any, **options: Any) -> TaskID:
        """As rich's."""
        added = super().add_task(description, *arguments, **options)
        self._draw()
        return added

    def update(self, task_id: TaskID, **options: Any) -> None:
        """As rich's."""
        before = self._tasks[task_id].completed
        super().update(task_id, **options)
        if self._tasks[task_id].completed != before or options.get("description"):
            self._move(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As rich's."""
        super().advance(task_id, advance)
        self._move(task_id)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The one line."""
        share = self.share
        left = self._left(share)
        times = _clock(time.monotonic() - self._since) + ("" if left is None else f" (about {_clock(left)} left)")
        bar = 20 if self._screen.width >= 80 else 10
        room = self._screen.width - bar - len(times) - 8
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(room, 8))
        for _ in range(3):
            table.add_column(no_wrap=True)
        table.add_row(Text(self._says or "working"), ProgressBar(1.0, share, width=bar), f"{share:4.0%}", times)
        yield table

    def _move(self, task_id: TaskID) -> None:
        if self._moved is None:
            self._moved = (time.monotonic(), self.share)
        self._says = visible_line(self._tasks[task_id].description)
        self._draw()

    def _left(self, share: float) -> float | None:
        """Seconds that the rest takes, if it is as fast as what was done; None where nobody can tell."""
        if self._stage[1] < 1 or self._moved is None or share - self._moved[1] < _NO_GUESS:
            return None
        return (time.monotonic() - self._moved[0]) * (1 - share) / (share - self._moved[1])

    def _log(self) -> None:
        while not self._stopped.wait(self._every):
            self._screen.print(Text(self.line), soft_wrap=True)

    def _draw(self) -> None:
        """In a notebook, which draws nothing by itself; without widgets, which not every notebook has."""
        if not self._screen.is_jupyter or self._screen.quiet or time.monotonic() - self._drawn < _REDRAWN:
            return
        from IPython.display import display  # type: ignore[import-not-found,unused-ignore]

        self._drawn = time.monotonic()
        shown = {"text/plain": self.line}
        if self._shown is None:
            self._shown = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call,unused-ignore]
        else:
            self._shown.update(shown, raw=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
