"""Where files are, and how they are written: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

import platformdirs
import psutil
from safetensors import SafetensorError

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.escaping import visible

PACKAGE = Path(__file__).resolve().parents[1]
# The folder that `writing` works in: the name of what it writes, the process, and something random.
_SCRATCH = re.compile(r"\..+\.(\d{1,9})-\w+\.partial")


class Guard(Protocol):
    """Who must agree before a file is replaced, and notes what is written (`written.Claim`)."""

    def covers(self, path: Path) -> bool: ...
    def check(self, path: Path) -> None: ...
    def adding(self, files: Mapping[Path, str]) -> AbstractContextManager[None]: ...


guard: ContextVar[Guard | None] = ContextVar("guard", default=None)


def shipped(name: str) -> Path:
    """The folder `tasks` or `masks` that ships with the package.

    In a wheel they lie under the package's `data/`; in a checkout (editable install) at its root.
    """
    for folder in (PACKAGE / "data" / name, PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise ClasError(f"The folder '{name}' that ships with lm-eval-clas is missing; reinstall the package.")


def cache_dir() -> Path:
    """Where converted models are kept: `$LM_EVAL_CLAS_CACHE`, or `lm-eval-clas` where the system has its users' caches.

    On every system it was in `~/.cache` before: where there is such a folder, it stays in use.
    """
    if configured := os.environ.get("LM_EVAL_CLAS_CACHE"):
        return Path(configured).expanduser()
    before = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "lm-eval-clas"
    return before if before.is_dir() else platformdirs.user_cache_path("lm-eval-clas", appauthor=False)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`, and renames it to `path` if the block succeeds.

    A block that fails or is interrupted leaves neither a half-written `path`, nor the temporary file, nor folders that were
    made for it; what a killed process left of its own beside `path` is deleted. A directory may be written the same way where
    `path` does not exist yet.

    Within a folder that is claimed (`written.py`), what is written is noted before it gets its name.

    Raises:
        ClasError: the place cannot be written (no permission, disk full, a file where a folder must be), or holds a file that
            is not ours in a claimed folder.
    """
    path = Path(path)
    made: list[Path] = []
    scratch: Path | None = None
    keeper = guard.get()
    keeper = keeper if keeper is not None and keeper.covers(path) else None
    if keeper is not None:
        keeper.check(path)
    try:
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete_abandoned(path.parent.iterdir())
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.{os.getpid()}-", suffix=".partial", dir=path.parent))
        yield scratch / path.name
        written = scratch / path.name
        files = [written] if written.is_file() else [one for one in sorted(written.rglob("*")) if one.is_file()]
        with keeper.adding({path / one.relative_to(written): sha256(one) for one in files}) if keeper else nullcontext():
            os.replace(written, path)
        made.clear()
    except (OSError, SafetensorError) as error:  # safetensors tells of a full disk by an exception of its own
        raise cannot_write(path, error) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def cannot_write(path: Path, error: Exception) -> ClasError:
    """What is said where the system refuses to write."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ClasError(f"Cannot write '{path}' ({reason}); choose another place or free it.")


def delete_abandoned(folder: Path) -> None:
    """Deletes, at any depth, what processes that were killed had begun to write in a folder."""
    _delete_abandoned(folder.rglob(".*.partial"))


def _delete_abandoned(paths: Iterable[Path]) -> None:
    with suppress(OSError):  # a folder that can be written and not listed
        for path in list(paths):
            # Another machine's process may seem dead; nothing is meant to be written by two machines at once.
            if (found := _SCRATCH.fullmatch(path.name)) and not psutil.pid_exists(int(found[1])):
                shutil.rmtree(path, ignore_errors=True)


def put(temporary: Path, content: bytes) -> None:
    """Writes a file under the name that `writing` gave, so that it is on the disk before it gets its own."""
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    with writing(path) as temporary:
        put(temporary, content)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all, and so that all of it is seen (`visible`); JSON means the same."""
    with writing(path) as temporary:
        put_text(temporary, text)


def put_text(temporary: Path, text: str) -> None:
    """The same under the name that `writing` gave."""
    put(temporary, visible(text, keep="\n\t").encode())


def alone(path: Path) -> None:
    """Gives a file that has other names (hard links) bytes of its own, before something is added to it in place.

    Raises:
        FileNotFoundError: there is none.
        ClasError: it cannot be copied.
    """
    if path.stat().st_nlink > 1:
        token = guard.set(None)  # it is whose it was
        try:
            with writing(path) as temporary:
                shutil.copy2(path, temporary)
        finally:
            guard.reset(token)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex; read in pieces, so that the file may be larger than the memory."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
