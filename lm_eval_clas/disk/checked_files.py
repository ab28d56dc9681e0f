"""Files that may come from anywhere, and may be anything: looked at before they are read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from lm_eval_clas.base.errors import ClasError


def user_path(text: str | Path) -> Path:
    """A path as a user wrote it, with `~` taken for the home folder.

    Raises:
        ClasError: no path can be written so.
    """
    try:
        path = Path(text).expanduser()
        os.lstat(path)
    except FileNotFoundError:
        pass
    except (RuntimeError, ValueError) as error:  # no such user's home; a zero character
        raise ClasError(f"There can be no file {str(text)[:200]!a} ({error}); give another path.") from error
    except OSError as error:  # anything else that is wrong with it is told by whoever reads it
        if error.errno == errno.ENAMETOOLONG:
            raise ClasError(f"There can be no file {str(text)[:200]!a} (its name is too long); give another path.") from error
    return path


def read_bytes(path: Path, largest: int | None = None) -> bytes:
    """The content of an ordinary file of no more than `largest` bytes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no such file, or cannot be read; the message says why.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would never end
            raise ValueError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is no ordinary file")
        if largest is not None and status.st_size > largest:
            raise ValueError("it is too large")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from error


def read_text(path: Path) -> str:
    """The text of an ordinary UTF-8 file as it is: without a byte order mark, and with the ends of lines that it has.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no such file, or cannot be read; the message says why.
    """
    return decoded(read_bytes(path))


def decoded(content: bytes) -> str:
    """UTF-8 as text, without a byte order mark.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 from byte {error.start + 1} on") from error
