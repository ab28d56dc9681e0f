"""`Journal`: answers as they come, so that a killed run goes on where it was.

Each process writes a file of its own, PATH or, but for the main one, PATH.NUMBER.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lm_eval_clas.base.escaping import visible
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.disk.checked_json import parse_json
from lm_eval_clas.disk.files import alone, cannot_write
from lm_eval_clas.disk.written import grows


class Journal:
    """A file of JSON lines, one for each batch of answers. A line that a kill cut short is ignored."""

    def __init__(self, path: Path, processes: Processes | None = None) -> None:
        self._processes = processes or Processes()
        self._main = path
        self._path = path if self._processes.main else path.with_name(f"{path.name}.{self._processes.rank}")

    def read(self, kind: str, asked: str) -> dict[int, list[Any]]:
        """Answers of all processes, also of an earlier run with more of them, by the position of their request.

        Args:
            kind: of the requests.
            asked: a hash of all the requests; answers to others are ignored.
        """
        # The main process looks at all files; another's may be on another machine.
        if self._processes.main:
            grows(self._main)  # also where others' shares are the only ones
        mine: dict[int, list[Any]] = {}
        for path in self._files() if self._processes.main else [self._path]:
            mine |= _read(path, kind, asked)
        found: dict[int, list[Any]] = {}
        for part in self._processes.gather(mine):
            found |= part
        return found

    def _files(self) -> list[Path]:
        folder, name = self._main.parent, self._main.name
        if not folder.is_dir():
            return []
        return sorted(one for one in folder.iterdir() if one.name == name or one.name.rpartition(".")[0] == name)

    def write(self, kind: str, asked: str, positions: Sequence[int], answers: Sequence[list[Any]]) -> None:
        """Adds the answers of a batch; they are on the disk when it returns.

        Raises:
            ClasError: the file cannot be written.
        """
        entry = {"kind": kind, "asked": asked, "positions": list(positions), "answers": list(answers)}
        size = self._path.stat().st_size if self._path.is_file() else 0
        try:
            if size:
                alone(self._path)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                # The newline comes first too: it ends what a kill may have cut short.
                file.write(b"\n" + visible(json.dumps(entry, ensure_ascii=False)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, size)
            raise cannot_write(self._path, error) from error

    def remove(self) -> None:
        """Deletes the files, once their answers are kept elsewhere."""
        for path in self._files() if self._processes.main else [self._path]:
            path.unlink(missing_ok=True)


def _read(path: Path, kind: str, asked: str) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            entry = parse_json(line)
            if (entry["kind"], entry["asked"]) == (kind, asked):
                found.update(zip(entry["positions"], entry["answers"], strict=True))
        except (ValueError, KeyError, TypeError):
            continue
    return found
