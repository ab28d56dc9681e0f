"""Where files are, and how they are written: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from safetensors import SafetensorError

from lm_eval_clas.errors import ClasError

PACKAGE = Path(__file__).resolve().parent
# The folder that `writing` works in: the name of what it writes, the process, and something random.
_SCRATCH = re.compile(r"\..+\.(\d{1,9})-\w+\.partial")


def shipped(name: str) -> Path:
    """The folder `tasks` or `masks` that ships with the package.

    In a wheel they lie under the package's `data/`; in a checkout (editable install) at its root.
    """
    for folder in (PACKAGE / "data" / name, PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise ClasError(f"The folder '{name}' that ships with lm-eval-clas is missing; reinstall the package.")


def cache_dir() -> Path:
    """Where converted models are kept: `$LM_EVAL_CLAS_CACHE`, or `lm-eval-clas` in the user's cache folder."""
    if configured := os.environ.get("LM_EVAL_CLAS_CACHE"):
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "lm-eval-clas"


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`, and renames it to `path` if the block succeeds.

    A block that fails or is interrupted leaves neither a half-written `path`, nor the temporary file, nor folders that were
    made for it; what a killed process left of its own beside `path` is deleted. A directory may be written the same way where
    `path` does not exist yet.

    Raises:
        ClasError: the place cannot be written (no permission, disk full, a file where a folder must be).
    """
    path = Path(path)
    made: list[Path] = []
    scratch: Path | None = None
    try:
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete_abandoned(path.parent.iterdir())
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.{os.getpid()}-", suffix=".partial", dir=path.parent))
        yield scratch / path.name
        os.replace(scratch / path.name, path)
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
    """Writes `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex. A piece at a time is in memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
