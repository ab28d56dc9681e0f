"""`clas_files.sha256`: names and hashes of the files of a folder, one a line, as `sha256sum` writes and checks them.

    SHA-256  NAME

Names are relative to the folder; in one with a line break or a backslash, these are escaped, and the line starts with a
backslash. Files that grow (`journal.py`) have dashes for a hash. A line that a kill cut short says nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lm_eval_clas.disk.checked_files import read_bytes
from lm_eval_clas.disk.files import alone, cannot_write, write_bytes

try:
    import fcntl
except ImportError:  # Windows; there, no two processes may write to one folder at once
    fcntl = None  # type: ignore[assignment]

RECORD = "clas_files.sha256"
GROWING = "-" * 64
_LARGEST = 100_000_000  # bytes: some hundred thousand files; ours have some hundreds
_LINE = re.compile(r"(?P<escaped>\\?)(?P<sha>[0-9a-f]{64}|-{64})  (?P<name>.+)")
_CUT_SHORT = re.compile(r"\\?([0-9a-f]{0,64}|-{0,64}) {0,2}")

Names = dict[str, set[str]]  # the hashes that a file was written with, by its name

_cache: dict[Path, tuple[tuple[int, int, int], Names]] = {}


def read_names(folder: Path) -> Names:
    """What the record of a folder says; nothing where it has none.

    Raises:
        ValueError: there is something of that name that is no such record; the message says why.
    """
    record = folder / RECORD
    try:
        status = record.lstat()
    except OSError:  # also of a folder that is none, or cannot be looked into
        return {}
    if record.is_symlink():
        raise ValueError("it is a link")
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
    if (before := _cache.get(record)) is not None and before[0] == stamp:
        return before[1]
    names: Names = {}
    try:
        content = read_bytes(record, _LARGEST)
    except FileNotFoundError:
        return {}
    for number, line in enumerate(content.decode(errors="surrogateescape").split("\n"), start=1):
        if found := _LINE.fullmatch(line):
            name = found["name"]
            names.setdefault(_unescaped(name) if found["escaped"] else name, set()).add(found["sha"])
        elif not _CUT_SHORT.fullmatch(line):
            raise ValueError(f"line {number} is none of such a record")
    _cache[record] = (stamp, names)
    return names


def add_line(folder: Path, name: str, sha: str) -> None:
    """Adds a line; it is on the disk when this returns.

    Raises:
        ClasError: the record cannot be written.
    """
    record = folder / RECORD
    size = 0
    try:
        with suppress(FileNotFoundError):
            alone(record)
            size = record.stat().st_size
        with record.open("ab") as file:
            file.write((b"\n" if size and not _ends_a_line(record) else b"") + _line(name, sha))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            os.truncate(record, size)
        raise cannot_write(record, error) from error


def write_lines(folder: Path, lines: Iterable[tuple[str, str]]) -> None:
    """Writes the record anew, from names and hashes; without any, it is deleted."""
    record, content = folder / RECORD, b"".join(_line(name, sha) for name, sha in lines)
    if not content:
        record.unlink(missing_ok=True)
    elif content != record.read_bytes():
        write_bytes(record, content)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process changes the record of a folder, and keeps them off for the length of the block.

    Where the system has no locks (some network disks), it goes on without.
    """
    handle = None
    if fcntl is not None:
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _line(name: str, sha: str) -> bytes:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{sha}  {escaped}\n".encode(errors="surrogateescape")


def _unescaped(name: str) -> str:
    return re.sub(r"\\(.)", lambda one: {"n": "\n", "r": "\r"}.get(one[1], one[1]), name)


def _ends_a_line(record: Path) -> bool:
    with record.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
