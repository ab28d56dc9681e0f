"""`Journal`: answers as they come, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval_clas.errors import ClasError


class Journal:
    """A file of JSON lines, one for each batch of answers. A line that a kill cut short is ignored."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, kind: str, asked: str) -> dict[int, list[Any]]:
        """Answers by the position of their request.

        Args:
            kind: of the requests.
            asked: a hash of all the requests; answers to others are ignored.
        """
        found: dict[int, list[Any]] = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return found
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if (entry["kind"], entry["asked"]) == (kind, asked):
                found.update(zip(entry["positions"], entry["answers"], strict=True))
        return found

    def write(self, kind: str, asked: str, positions: Sequence[int], answers: Sequence[list[Any]]) -> None:
        """Adds the answers of a batch; they are on the disk when it returns.

        Raises:
            ClasError: the file cannot be written.
        """
        entry = {"kind": kind, "asked": asked, "positions": list(positions), "answers": list(answers)}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                # The newline comes first too: it ends what a kill may have cut short.
                file.write(b"\n" + json.dumps(entry, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ClasError(
                f"Cannot write '{self._path}' ({error.strerror or error}); choose another place or free it."
            ) from error

    def remove(self) -> None:
        """Deletes the file, once its answers are kept elsewhere."""
        self._path.unlink(missing_ok=True)
