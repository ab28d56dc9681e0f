"""Where files are, and how they are written: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lm_eval_clas.errors import ClasError

PACKAGE = Path(__file__).resolve().parent


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

    A block that fails or is interrupted leaves neither a half-written `path` nor the temporary file. The folder
    above is made. A directory may be written the same way where `path` does not exist yet.

    Raises:
        ClasError: the place cannot be written (no permission, disk full, a file where a folder must be).
    """
    path = Path(path)
    scratch: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield scratch / path.name
        if (scratch / path.name).is_file():
            # safetensors writes files that only their owner can read; ours get the rights of any new file.
            (scratch / "rights").touch()
            shutil.copymode(scratch / "rights", scratch / path.name)
        os.replace(scratch / path.name, path)
    except OSError as error:
        raise ClasError(f"Cannot write '{path}' ({error.strerror or error}); choose another place or free it.") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
