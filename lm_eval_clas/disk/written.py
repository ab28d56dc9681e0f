"""What this program wrote: a record beside the files, so that nothing else is ever deleted or replaced.

clas_files.sha256   one line a file below its folder, `SHA-256  NAME`, as `sha256sum` writes and checks them

A line is added before its file gets its name, so that a process may be killed at any moment and still knows its own. Files that
grow (`journal.py`) have dashes for a hash. Hidden files are never ours and never in the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.files import cannot_write, delete_abandoned, guard, sha256, write_bytes

RECORD = "clas_files.sha256"
_GROWING = "-" * 64


class Claim:
    """A folder that is being written to, and the record in it.

    Attributes:
        folder: absolute; links in it are left as they are.
        force: whether files that are not ours may be replaced.
    """

    def __init__(self, folder: Path, force: bool = False) -> None:
        self.folder = _absolute(folder)
        self.force = force

    def covers(self, path: Path) -> bool:
        """Whether a place is in the folder."""
        return self.folder == _absolute(path) or self.folder in _absolute(path).parents

    def check(self, path: Path) -> None:
        """Refuses to replace what is not ours.

        Raises:
            ClasError: there is such a file; the message names it.
        """
        if not self.force and not path.is_dir() and (why := foreign(path)):
            raise _refusal(path, why)

    def add(self, path: Path, sha: str) -> None:
        """Notes a file that is about to get its name, or one that grows.

        Raises:
            ClasError: the record cannot be written.
        """
        name, record = _absolute(path).relative_to(self.folder).as_posix(), self.folder / RECORD
        if record.is_file() and sha in _read(record).get(name, ()):
            return
        size = record.stat().st_size if record.is_file() else 0
        try:
            with record.open("ab") as file:
                file.write(f"{sha}  {name}\n".encode(errors="surrogateescape"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(record, size)
            raise cannot_write(record, error) from error

    def tidy(self) -> None:
        """Leaves one line for each file that is there, in the order of names; without any, no record."""
        record = self.folder / RECORD
        if not record.is_file():
            return
        kept = []
        for name, hashes in sorted(_read(record).items()):
            path = self.folder / name
            if path.is_file() or (_GROWING in hashes and any(path.parent.glob(f"{escape(path.name)}.*"))):
                sha = _GROWING if _GROWING in hashes else sha256(path)
                kept += [f"{one}  {name}\n" for one in ([sha] if sha in hashes else sorted(hashes))]
        content = "".join(kept).encode(errors="surrogateescape")
        if not kept:
            record.unlink()
        elif content != record.read_bytes():
            write_bytes(record, content)


@contextmanager
def claimed(folder: str | Path, places: Sequence[str] | None = None, force: bool = False) -> Iterator[None]:
    """Takes a folder to write to: what is written in it by `files.writing` is noted in its record.

    Within a claimed folder, a folder of it needs no record of its own.

    Args:
        folder: is made when something is written to it.
        places: files and folders of it that are written or deleted; nothing of another's may be there. Default: the whole
            folder.
        force: replaces what is another's; nothing of another's is deleted.

    Raises:
        ClasError: something in the way is not ours; nothing has been written yet.
    """
    folder = Path(folder)
    require_ours([folder] if places is None else [folder / one for one in places], folder, force)
    if (outer := guard.get()) is not None and outer.covers(folder):
        yield
        return
    if recorded(folder):
        delete_abandoned(folder)
    claim = Claim(folder, force)
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    token = guard.set(claim)
    try:
        yield
    finally:
        guard.reset(token)
        with suppress(OSError, ClasError):  # on a full disk the record stays as it is, which says more than it must
            claim.tidy()
        for one in made:
            with suppress(OSError):  # as a rule there is something in it by now
                one.rmdir()


def grows(path: Path) -> None:
    """Notes a file that is not written whole but grows, in the record of the claimed folder that it is in."""
    claim = guard.get()
    if claim is not None and claim.covers(path) and not path.exists():
        claim.add(path, _GROWING)


def recorded(folder: Path) -> bool:
    """Whether a folder has a record."""
    return (folder / RECORD).is_file()


def require_ours(places: Iterable[Path], folder: Path, force: bool = False) -> None:
    """Refuses places that hold anything that is not ours, or that cannot be folders; reads only.

    Raises:
        ClasError: the message names the first such file.
    """
    for place in (folder, *folder.parents):
        if place.is_symlink() and not place.exists():
            raise ClasError(f"'{place}' is a link to a place that is not there; make that folder, or give another one.")
        if place.exists() and not place.is_dir():
            raise ClasError(f"'{place}' is a file, and a folder is needed there; move it away, or give another place.")
    for place in places:
        if place.is_symlink() and not place.exists():
            raise ClasError(f"'{place}' is a link to a place that is not there; make that folder, or remove the link.")
        for path in files_in(place):
            if not force and (why := foreign(path)):
                raise _refusal(path, why)


def foreign(path: Path) -> str | None:
    """Why a file may not be replaced or deleted, in words; None if it may, or if nothing is there."""
    if not os.path.lexists(path):
        return None
    if path.is_symlink():
        return "is a link"
    if not path.is_file():
        return "is no ordinary file"
    known = _known(path)
    if not known:
        return "was not written by this program"
    try:
        if _GROWING not in known and sha256(path) not in known:
            return "was changed since this program wrote it"
    except OSError:
        return "cannot be read"
    return None if path.stat().st_mode & 0o222 else "is read-only"


def delete_ours(place: Path) -> None:
    """Deletes the files of a place that are ours and the folders that are empty then; links to folders stay.

    Raises:
        ClasError: one cannot be deleted.
    """
    try:
        for path in files_in(place):
            if foreign(path) is None:
                path.unlink()
        _prune(place)
    except OSError as error:
        raise cannot_write(place, error) from error


def files_in(place: Path, seen: frozenset[str] = frozenset()) -> Iterator[Path]:
    """The file at a place, or all files of a folder in the order of names, through links; without hidden ones and records."""
    if not place.is_dir():
        if os.path.lexists(place):
            yield place
        return
    real = os.path.realpath(place)
    if real in seen:  # a link to a folder that it is in
        return
    for name in sorted(os.listdir(place)):
        if not name.startswith(".") and name != RECORD:
            yield from files_in(place / name, seen | {real})


def _prune(place: Path) -> None:
    if not place.is_dir():
        return
    for one in place.iterdir():
        if one.is_dir() and not one.is_symlink():
            _prune(one)
    if not place.is_symlink() and not any(place.iterdir()):
        place.rmdir()


def _known(path: Path) -> set[str]:
    """The hashes that records say a file was written with: that of its folder, and of those above."""
    path = _absolute(path)
    found: set[str] = set()
    for folder in path.parents:
        record = folder / RECORD
        if record.is_file():
            names = _read(record)
            name = path.relative_to(folder).as_posix()
            found |= names.get(name, set())
            # Other processes' journals have a number behind the main one's name.
            stem, _, number = name.rpartition(".")
            if number.isdigit() and _GROWING in names.get(stem, set()):
                found.add(_GROWING)
    return found


_cache: dict[Path, tuple[tuple[int, int, int], dict[str, set[str]]]] = {}


def _read(record: Path) -> dict[str, set[str]]:
    status = record.stat()
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
    if (before := _cache.get(record)) is not None and before[0] == stamp:
        return before[1]
    names: dict[str, set[str]] = {}
    with suppress(OSError):
        for line in record.read_bytes().decode(errors="surrogateescape").split("\n"):
            sha, separator, name = line.partition("  ")
            if separator and len(sha) == 64 and name:  # else it was cut short, and its file was never named
                names.setdefault(name, set()).add(sha)
    _cache[record] = (stamp, names)
    return names


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _refusal(path: Path, why: str) -> ClasError:
    return ClasError(f"'{path}' {why}, and would be in the way; move it, or give another place for the output.")
