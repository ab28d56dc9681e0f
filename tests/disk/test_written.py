"""The record of what this program wrote: what may lie in its place, what it survives, and what it costs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk import written
from lm_eval_clas.disk.files import sha256, write_text
from lm_eval_clas.disk.hash_lines import RECORD
from lm_eval_clas.disk.journal import Journal
from lm_eval_clas.disk.written import Claim, claimed, delete_ours, foreign, kept_noted

MINE = "somebody else's\n"
IN_ITS_PLACE: dict[str, Callable[[Path, Path], object]] = {
    "a link to a file": lambda record, mine: record.symlink_to(mine),
    "a link to nothing": lambda record, mine: record.symlink_to(mine.with_name("nowhere")),
    "another name of a file": lambda record, mine: os.link(mine, record),
    "a folder": lambda record, mine: record.mkdir(),
    "a pipe": lambda record, mine: os.mkfifo(record),
    "notes": lambda record, mine: record.write_text(MINE),
    "no text": lambda record, mine: record.write_bytes(b"\xff\xfe\x00"),
    "lines and a note": lambda record, mine: record.write_text(f"{'a' * 64}  file\n{MINE}"),
}


def save(folder: Path, *names: str) -> None:
    with claimed(folder, names):
        for name in names:
            write_text(folder / name, ascii(name))


@pytest.mark.parametrize("kind", IN_ITS_PLACE)
@pytest.mark.parametrize("whole", [True, False])
def test_what_lies_in_the_place_of_a_record_is_kept(kind: str, whole: bool, tmp_path: Path) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.write_text(MINE)
    out.mkdir()
    IN_ITS_PLACE[kind](out / RECORD, mine)
    before = (out / RECORD).lstat()
    with (
        pytest.raises(ClasError, match=r"out/clas_files\.sha256' is no record of what .* move it away"),
        claimed(out, None if whole else ["a"]),
    ):
        write_text(out / "a", "a")
    assert mine.read_text() == MINE
    assert not (tmp_path / "nowhere").exists()
    assert os.listdir(out) == [RECORD]
    after = (out / RECORD).lstat()
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns)


def test_copies_that_share_bytes_by_hard_links_are_untouched(tmp_path: Path) -> None:
    """As `cp -al` and backups make them."""
    save(tmp_path / "out", "a", "b")
    with claimed(tmp_path / "out"):
        journal = Journal(tmp_path / "out" / "journal")
        journal.read("kind", "asked")
        journal.write("kind", "asked", [0], [[1]])
        shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=os.link)
        before = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
        journal.write("kind", "asked", [1], [[2]])
        write_text(tmp_path / "out" / "a", "other")
        write_text(tmp_path / "out" / "c", "c")
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == before
    assert Journal(tmp_path / "out" / "journal").read("kind", "asked") == {0: [1], 1: [2]}
    with claimed(tmp_path / "out"):
        pass


@pytest.mark.parametrize("name", ["a\nb", "back\\slash", "a\\nb", " both  ", "\udcff", "\r"])
def test_names_of_every_kind_are_known_again(name: str, tmp_path: Path) -> None:
    save(tmp_path, "first", name, f"folder {name}/x")
    save(tmp_path, name)
    with claimed(tmp_path):
        pass
    assert foreign(tmp_path / name) is None
    if tool := shutil.which("sha256sum"):
        subprocess.run([tool, "--check", "--strict", "--quiet", RECORD], cwd=tmp_path, check=True)


def test_a_line_that_was_cut_short_costs_no_other(tmp_path: Path) -> None:
    save(tmp_path, "a")
    for torn in ("abc", "a" * 64, f"\\{'b' * 64} "):
        with (tmp_path / RECORD).open("a") as file:
            file.write(torn)
        with claimed(tmp_path):
            write_text(tmp_path / "b", torn)
            assert foreign(tmp_path / "a") is foreign(tmp_path / "b") is None
        assert torn not in (tmp_path / RECORD).read_text().split("\n")


def test_the_record_lies_beside_its_files_whatever_way_leads_there(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "sub")
    save(tmp_path / "link" / "..", "a")
    assert sorted(os.listdir(tmp_path / "real")) == sorted(["a", RECORD, "sub"])
    assert foreign(tmp_path / "real" / "a") is foreign(tmp_path / "link" / ".." / "a") is None


def test_the_record_of_a_folder_above_is_kept_true(tmp_path: Path) -> None:
    """What one command writes over what another wrote, further up or down, is ours to both."""
    with claimed(tmp_path):
        write_text(tmp_path / "masks" / "a", "a")
        write_text(tmp_path / "report", "r")
    save(tmp_path / "masks", "a", "b")
    with kept_noted(tmp_path / "report"):
        write_text(tmp_path / "report", "another")
    with kept_noted(tmp_path / "alone" / "c"):
        write_text(tmp_path / "alone" / "c", "c")
    assert not list(tmp_path.glob(f"*/{RECORD}"))
    shutil.rmtree(tmp_path / "alone")
    with claimed(tmp_path):
        pass


def test_one_process_tidies_while_another_writes(tmp_path: Path) -> None:
    save(tmp_path, "a")
    mine, other = Claim(tmp_path), Claim(tmp_path)
    (tmp_path / "scratch").write_text("b")
    tidying = Thread(target=mine.tidy)
    with other.adding({tmp_path / "b": sha256(tmp_path / "scratch")}):
        tidying.start()
        tidying.join(0.3)  # it waits: the file that is noted is not there yet
        (tmp_path / "scratch").rename(tmp_path / "b")
    tidying.join()
    assert foreign(tmp_path / "b") is None


def test_little_is_read_for_a_small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, *map(str, range(50)))
    read: list[Path] = []
    monkeypatch.setattr(written, "sha256", lambda path: read.append(path) or sha256(path))
    save(tmp_path, "7")
    assert {path.name for path in read} == {"7"}
    read.clear()
    (tmp_path / "0").write_text("other")
    with pytest.raises(ClasError, match="0' was changed"), claimed(tmp_path):
        raise AssertionError
    assert [path.name for path in read] == ["0"]
    with pytest.raises(ClasError, match="in no record"), claimed(Path(__file__).parents[1]):
        raise AssertionError
    assert len(read) == 1


def test_folders_that_hold_nothing_of_ours_stay(tmp_path: Path) -> None:
    save(tmp_path, "run/a/b", "run/c")
    (tmp_path / "run" / "empty").mkdir()
    (tmp_path / "other").mkdir()
    delete_ours(tmp_path / "other")
    with claimed(tmp_path):
        delete_ours(tmp_path / "run")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["other", "run", "run/empty"]


def test_only_places_that_are_written_are_cleared_of_what_a_killed_process_began(tmp_path: Path) -> None:
    save(tmp_path, "a", "deep/b")
    abandoned = [tmp_path / folder / ".x.999999999-abc.partial" for folder in (".", "deep", "others")]
    for one in abandoned:
        one.mkdir(parents=True)
    with claimed(tmp_path, ["a", "deep"]):
        write_text(tmp_path / "a", "a")
    assert [one.exists() for one in abandoned] == [False, False, True]
