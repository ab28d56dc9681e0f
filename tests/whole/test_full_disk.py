"""A disk that is full, or read-only: a clear error, nothing half-written left behind, and with room again all goes on.

On a real file system of two megabytes, so that it is the system that refuses.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from killing import MOMENT, contents
from sketching import sketch
from small_models import Run

from lm_eval_clas import ClasError, MaskSet, Profile
from lm_eval_clas.disk.written import RECORD

pytestmark = pytest.mark.slow
SIZE = 2 << 20
PAGE = 4096
# What a run that goes on needs: answers so far, which stage had begun, and which files are its own.
OF_A_RUN = ("partial/", "stages/", RECORD)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, free: int) -> Path:
    """A file that leaves so many bytes free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        with suppress(OSError):  # it is full
            while file.write(b"\0" * PAGE):
                pass
        file.truncate(file.tell() - free)
    return filler


@pytest.fixture
def commands(
    clas: Run,
    checkpoint: Path,
    masks: MaskSet,
    profile_folder: Path,
    small_study: dict[str, Any],
    tmp_path: Path,
    disk: Path,
) -> dict[str, tuple[Any, ...]]:
    """Commands that write into `out` of the current folder; what they read is elsewhere, with room."""
    ready = masks.save(tmp_path / "ready")
    for place in (tmp_path, disk):  # tuning writes into its masks
        masks.save(place / "masks")
    recipe = tmp_path / "recipe.yaml"
    # One part, and no geometry, which is among the commands itself.
    less = {"parts": {"qa": small_study["parts"]["qa"]}, "analyse": {"geometry_samples": None}}
    recipe.write_text(yaml.safe_dump(small_study | {"model": str(checkpoint)} | less))
    model, small = ("--model", checkpoint), ("--corpus", "mini", "--languages", "en,hi,de", "--samples", 4, "--device", "cpu")
    tasks = ("--tasks", "clas_mini_nli_hi,clas_mini_qa_de", "--alphas=-2,2", "--limit", 3, "--batch-size", 1, "--device", "cpu")
    export = ("export", ready, *model, "--language", "hi,de")
    return {
        "profile": ("profile", *model, *small, "--level", "instance", "--out", "out"),
        "masks": ("masks", profile_folder, "--bridge", "2-4", "--keep-means", "--out", "out"),
        "inspect": ("inspect", ready, "--plot", "out/categories.png"),
        "tune": ("tune", *model, "--masks", "masks", *tasks, "--out", "out"),
        "ia3": (*export, "--format", "ia3", "--out", "out"),
        "merged": (*export, "--format", "merged", "--out", "out"),
        "geometry": (
            "geometry",
            *model,
            "--masks",
            ready,
            "--corpus",
            "mini",
            "--samples",
            3,
            "--device",
            "cpu",
            "--out",
            "out",
        ),
        "stability": ("stability", profile_folder, profile_folder, "--out", "out/stability.json"),
        "paper": ("paper", recipe, "--out", "out"),
    }


NAMES = ["profile", "masks", "inspect", "tune", "ia3", "merged", "geometry", "stability", "paper"]


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_told_and_nothing_is_half_written(
    name: str, commands: dict[str, tuple[Any, ...]], disk: Path, clas: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no room, and with a third and two thirds of what the command needs."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", MOMENT)
    monkeypatch.chdir(tmp_path)
    if name == "paper":  # other commands draw
        sketch(monkeypatch)
    code, _, error = clas(*commands[name])
    assert code == 0, error
    whole = contents(tmp_path / "out")
    pages = sum(-(-len(content) // PAGE) for content in whole.values())
    monkeypatch.chdir(disk)
    for room in (0, pages // 3, 2 * pages // 3):
        filler = fill(disk, room * PAGE)
        code, _, error = clas(*commands[name])
        assert code == 2, (room, pages, error)
        assert error.count("Error:") == 1, error
        assert "Traceback" not in error
        assert any(word in error for word in ("No space left", "GB free", "could not be written")), error
        assert not list(disk.rglob(".*")), room
        left = contents(disk / "out")
        unknown = {one for one in left if left[one] != whole.get(one) and not one.startswith(OF_A_RUN)}
        assert not unknown, (room, unknown)
        filler.unlink()
    code, _, error = clas(*commands[name])
    assert code == 0, error
    assert contents(disk / "out") == whole


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_disk_is_told_and_stays_as_it_is(
    name: str, commands: dict[str, tuple[Any, ...]], disk: Path, clas: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(disk)
    (disk / "before").write_text("as it was")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, _, error = clas(*commands[name])
    assert code == 2, error
    assert error.count("Error:") == 1, error
    assert "Traceback" not in error
    assert "Read-only file system" in error
    assert {name: content for name, content in contents(disk).items() if not name.startswith("masks/")} == {
        "before": b"as it was"
    }


def test_masks_over_masks_on_a_full_disk_are_the_old_ones(masks: MaskSet, profiled: Profile, disk: Path) -> None:
    """Of a folder with several files, none is replaced before all are written."""
    folder = masks.save(disk / "masks")
    before = contents(folder)
    larger = MaskSet.from_profile(profiled, bridge="2-3", keep_means=True)
    for free in range(4):
        filler = fill(disk, free * PAGE)
        with pytest.raises(ClasError, match="No space left"):
            larger.save(folder)
        assert contents(folder) == before
        filler.unlink()
    larger.save(folder)
    assert MaskSet.load(folder).hash == larger.hash
