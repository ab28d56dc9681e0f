"""What this program wrote: a record beside the files (`hash_lines.py`), so that nothing else is ever deleted or replaced.

A line is added before its file gets its name, so that a process may be killed at any moment and still knows its own. Hidden
files are never ours and never in the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.files import cannot_write, delete_abandoned, guard, sha256
from lm_eval_clas.disk.hash_lines import GROWING, RECORD, Names, add_line, locked, read_names, write_lines
from lm_eval_clas.disk.one_writer import only_writer


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

    @contextmanager
    def adding(self, files: Mapping[Path, str]) -> Iterator[None]:
        """Notes files that get their names in the block, or that grow, with their hashes.

        Raises:
            ClasError: the record cannot be written.
        """
        with locked(self.folder):
            for path, sha in files.items():
                name = _absolute(path).relative_to(self.folder).as_posix()
                if sha not in _names(self.folder).get(name, ()):
                    add_line(self.folder, name, sha)
            yield

    def tidy(self) -> None:
        """Leaves one line for each file that is there, in the order of names; without any, no record."""
        with locked(self.folder):
            kept: list[tuple[str, str]] = []
            for name, hashes in sorted(_names(self.folder).items()):
                path = self.folder / name
                if path.is_file() or (GROWING in hashes and any(path.parent.glob(f"{escape(path.name)}.*"))):
                    if len(hashes) > 1:  # one of them it has, unless somebody changed it
                        sha = GROWING if GROWING in hashes else sha256(path)
                        hashes = {sha} & hashes or hashes
                    kept += [(name, one) for one in sorted(hashes)]
            if recorded(self.folder):
                write_lines(self.folder, kept)


@contextmanager
def claimed(folder: str | Path, places: Sequence[str] | None = None, force: bool = False) -> Iterator[None]:
    """Takes a folder to write to: what is written in it by `files.writing` is noted in its record.

    Within a claimed folder, a folder of it needs no record of its own; nor does one that the record of a folder above knows.
    Other processes are kept off the folder of the record (`one_writer.py`).

    Args:
        folder: is made when something is written to it.
        places: files and folders of it that are written or deleted; nothing of another's may be there. Default: the whole
            folder.
        force: replaces what is another's; nothing of another's is deleted.

    Raises:
        ClasError: something in the way is not ours, or another process writes there; nothing has been written yet.
    """
    folder = Path(folder)
    paths = [folder] if places is None else [folder / one for one in places]
    require_ours(paths, folder, force)
    if (outer := guard.get()) is not None and outer.covers(folder):
        yield
        return
    home = _home(paths) or _absolute(folder)
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        with only_writer(home):
            for path in paths if recorded(home) else ():
                delete_abandoned(path)
            claim = Claim(home, force)
            token = guard.set(claim)
            try:
                yield
            finally:
                guard.reset(token)
                with suppress(OSError, ClasError):  # on a full disk the record stays as it is, which says more than it must
                    claim.tidy()
    finally:
        for one in made:
            with suppress(OSError):  # as a rule there is something in it by now
                one.rmdir()


@contextmanager
def kept_noted(path: Path | None, force: bool = False) -> Iterator[None]:
    """Takes one file to write, wherever it is. It is noted only where a record knows a file of its name there already.

    Raises:
        ClasError: something in the way is not ours; nothing has been written yet.
    """
    if path is None or _home([path]) is None:
        yield
        return
    with claimed(path.parent, [path.name], force):
        yield


def grows(path: Path) -> None:
    """Notes a file that is not written whole but grows, in the record of the claimed folder that it is in."""
    claim = guard.get()
    if claim is not None and claim.covers(path) and not path.exists():
        with claim.adding({path: GROWING}):
            pass


def recorded(folder: Path) -> bool:
    """Whether a folder has a record."""
    return (folder / RECORD).is_file()


def noted(path: Path) -> bool:
    """Whether a record knows a file's name, whatever the file is by now."""
    return bool(_known(path))


def require_ours(places: Iterable[Path], folder: Path, force: bool = False) -> None:
    """Refuses places that hold anything that is not ours, or that cannot be folders; reads only.

    Raises:
        ClasError: the message names the first such file.
    """
    require_place(folder)
    _require_record(folder)
    for place in places:
        _require_no_dead_link(place)
        for path in files_in(place):
            if not force and (why := foreign(path)):
                raise _refusal(path, why)


def require_place(folder: Path) -> None:
    """Refuses what is no folder and can become none; reads only.

    Raises:
        ClasError: it, or a folder above it, is a file, or a link to nothing.
    """
    for place in (folder, *folder.parents):
        _require_no_dead_link(place)
        if place.exists() and not place.is_dir():
            raise ClasError(f"'{place}' is a file, and a folder is needed there; move it away, or give another place.")


def _require_no_dead_link(place: Path) -> None:
    if place.is_symlink() and not place.exists():
        raise ClasError(
            f"'{place}' is a link to '{os.readlink(place)}', which does not exist; make that, or give another place."
        )


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
        return "is in no record of what this program wrote"
    try:
        if GROWING not in known and sha256(path) not in known:
            return "was changed since this program wrote it"
    except OSError:
        return "cannot be read"
    return None if path.stat().st_mode & 0o222 else "is read-only"


def delete_ours(place: Path) -> None:
    """Deletes the files of a place that are ours and the folders that are empty without them; links to folders stay.

    Raises:
        ClasError: one cannot be deleted.
    """
    try:
        for path in files_in(place):
            if foreign(path) is None:
                path.unlink()
                for folder in path.parents:
                    if place not in (folder, *folder.parents) or folder.is_symlink() or any(folder.iterdir()):
                        break
                    folder.rmdir()
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


def _require_record(folder: Path) -> None:
    """Refuses a file in the place of a folder's record that is none: it is somebody's, and would be written to."""
    try:
        read_names(folder)
    except ValueError as error:
        raise ClasError(
            f"'{folder / RECORD}' is no record of what this program wrote ({error}); move it away, or give another place for "
            "the output."
        ) from error


def _names(folder: Path) -> Names:
    """What the record of a folder says; nothing where it is no record of ours."""
    try:
        return read_names(folder)
    except ValueError:
        return {}


def _known(path: Path) -> set[str]:
    """The hashes that records say a file was written with: that of its folder, and of those above."""
    path = _absolute(path)
    found: set[str] = set()
    for folder in path.parents:
        if names := _names(folder):
            name = path.relative_to(folder).as_posix()
            found |= names.get(name, set())
            # Other processes' journals have a number behind the main one's name.
            stem, _, number = name.rpartition(".")
            if number.isdigit() and GROWING in names.get(stem, set()):
                found.add(GROWING)
    return found


def _home(places: Sequence[Path]) -> Path | None:
    """The nearest folder whose record knows a file that is, or is in, one of several places; None if none does."""
    absolute = [_absolute(place) for place in places]
    for folder in (absolute[0], *absolute[0].parents) if absolute else ():
        known = [folder / name for name in _names(folder)]
        if any(place == one or place in one.parents for one in known for place in absolute):
            return folder
    return None


def _absolute(path: Path) -> Path:
    """An absolute path without `..`, and with links as they are, but for those that a `..` goes back from."""
    parts = path.parts
    if ".." in parts:
        last = len(parts) - parts[::-1].index("..")
        path = Path(os.path.realpath(Path(*parts[:last])), *parts[last:])
    return Path(os.path.abspath(path))


def _refusal(path: Path, why: str) -> ClasError:
    return ClasError(f"'{path}' {why}, and would be in the way; move it, or give another place for the output.")
