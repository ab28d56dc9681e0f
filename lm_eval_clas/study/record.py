"""`Study`: a folder with the stages of a study, each skipped where its inputs have not changed.

What a stage did is in `stages/STAGE.json`: a hash of its inputs, whether it is finished, when, how long it took, the commands
that do the same by hand, and versions. A stage whose inputs changed starts afresh; one that was killed goes on.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field

from lm_eval_clas.base.clock import now, stopwatch
from lm_eval_clas.base.version import __version__
from lm_eval_clas.disk.checked_json import Strict, read_json
from lm_eval_clas.disk.files import sha256, write_text
from lm_eval_clas.disk.written import delete_ours, files_in, require_ours

# Files and folders of a study that its program writes; what else lies beside them is the user's.
PLACES = ("recipe.yaml", "stages", "profile", "masks", "tune", "results", "analysis", "tables", "report.html")
_PACKAGES = ("torch", "transformers", "lm_eval", "datasets", "numpy", "scikit-learn", "scipy")


class StageRecord(Strict):
    """The contents of `stages/STAGE.json`.

    Attributes:
        inputs: a hash of all that decides what the stage gives.
        seconds: over all the runs it took.
        commands: that do the same by hand.
        files: what it left among its outputs, relative to the study.
    """

    stage: str
    inputs: str
    finished: bool
    started: str
    seconds: float = 0.0
    commands: list[str] = Field(default_factory=list)
    files: list[str] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        inputs: whatever decides what the stage gives, as JSON; None if something before it is missing.
        run: does it, going on where an earlier run stopped, and returns the commands that do the same by hand.
        outputs: files and folders of the study that it writes; what this program wrote there is deleted when the inputs change.
        keeps: whether its outputs know their own inputs, one by one, so that nothing of them is deleted as a whole.
    """

    name: str
    inputs: Callable[[], Any]
    run: Callable[[], list[str]]
    outputs: Sequence[str]
    keeps: bool = False


class Study:
    """The folder of a study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self, stage: str) -> StageRecord | None:
        """What is known of a stage; None if it never ran or its record is damaged."""
        try:
            return StageRecord.model_validate(read_json(self.folder / "stages" / f"{stage}.json"))
        except (FileNotFoundError, ValueError):
            return None

    def finished(self, stage: Stage) -> bool:
        """Whether a stage is done, with the inputs of now and with every file that it left in its place."""
        record = self.record(stage.name)
        inputs = stage.inputs()
        return (
            record is not None
            and record.finished
            and inputs is not None
            and record.inputs == hash_of(inputs)
            and bool(record.files)
            and all((self.folder / one).is_file() for one in record.files)
        )

    def run(self, stage: Stage) -> None:
        """Runs a stage, or what is left of it.

        Raises:
            ClasError: its inputs changed, and a file among its outputs is not ours.
        """
        inputs = hash_of(stage.inputs())
        before = self.record(stage.name)
        if before is None or before.inputs != inputs:
            require_ours([self.folder / output for output in stage.outputs], self.folder)
            for output in () if stage.keeps else stage.outputs:
                delete_ours(self.folder / output)
            before = None
        record = StageRecord(
            stage=stage.name,
            inputs=inputs,
            finished=False,
            started=before.started if before else now().isoformat(timespec="seconds"),
            seconds=before.seconds if before else 0.0,
            versions=versions(),
        )
        self._write(record)
        elapsed = stopwatch()
        commands: list[str] = []
        try:
            commands = stage.run()
        finally:
            record = record.model_copy(update={"seconds": round(record.seconds + elapsed(), 1)})
            self._write(record)
        every = [path for output in stage.outputs for path in files_in(self.folder / output)]
        files = [path.relative_to(self.folder).as_posix() for path in every]
        self._write(record.model_copy(update={"finished": True, "commands": commands, "files": files}))

    def _write(self, record: StageRecord) -> None:
        write_text(self.folder / "stages" / f"{record.stage}.json", record.model_dump_json(indent=2) + "\n")


def hash_of(value: Any) -> str:
    """SHA-256 of a value as JSON, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def content_hash(path: Path) -> str | None:
    """SHA-256 over the names and contents of a file or of all files of a folder, in hex; None if there is nothing.

    Records and hidden files do not count.
    """
    if path.is_file():
        return sha256(path)
    files = [[str(one.relative_to(path)), sha256(one)] for one in files_in(path) if one.is_file()]
    return hash_of(files) if files else None


def versions() -> dict[str, str]:
    """Of the packages that decide figures, and of Python."""
    found = {"lm-eval-clas": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def given(options: Mapping[str, Any]) -> list[object]:
    """Of options by name, the words of those that are given; a switch is its name alone."""
    words = [[f"--{name}", value] for name, value in options.items() if value not in (None, "") and value is not False]
    return [word for name, value in words for word in ([name] if value is True else [name, value])]


def command(*words: object) -> str:
    """A command line to copy; what the shell must substitute stays bare."""
    return " ".join(str(word) if "$(" in str(word) else shlex.quote(str(word)) for word in words)
