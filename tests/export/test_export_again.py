"""`clas export` over what is there: passed over if whole and from the same source, and replaced only if it is our own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from exporting import write
from safetensors.torch import load_file, save_file
from small_models import Run

from lm_eval_clas import ClasError, MaskSet
from lm_eval_clas.decoder.checkpoint import Checkpoint
from lm_eval_clas.disk.files import sha256
from lm_eval_clas.export.outline import Outline
from lm_eval_clas.export.written_export import source_of

SKIPPED = "Already written, skipped: hi"
Export = Callable[..., tuple[int, str]]


@pytest.fixture
def run(clas: Run, source: Path, source_masks: MaskSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Export:
    """Exports Hindi; returns the exit code, and what was said on standard error with single spaces and no bars."""
    masks = source_masks.save(tmp_path / "masks")
    capsys.readouterr()  # the bars of making the model

    def export(kind: str, out: Path, *more: object, alpha: float = -2) -> tuple[int, str]:
        code, _, error = clas(
            "export", masks, "--model", source, "--language", "hi", "--format", kind, f"--alpha={alpha}", "--out", out, *more
        )
        return code, " ".join(" ".join(line for line in error.splitlines() if "━" not in line).split())

    return export


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", ["ia3", "merged"])
def test_the_record_has_the_hash_of_every_other_file(kind: str, run: Export, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(kind, out) == (0, "")
    record = json.loads((out / "clas_export.json").read_text())
    assert record["files"] == {name: sha256(out / name) for name in contents(out) if name != "clas_export.json"}
    read = {"config.json"} if kind == "ia3" else {path.name for path in source.iterdir()} - {
        "README.md", "pytorch_model.bin.index.json",
    }  # fmt: skip
    assert record["source"] == {"files": {name: sha256(source / name) for name in sorted(read)}}
    before, dates = contents(out), {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run(kind, out) == (0, SKIPPED)
    assert (contents(out), {path: path.stat().st_mtime_ns for path in out.iterdir()}) == (before, dates)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("merged", "*.safetensors"),
        ("merged", "tokenizer.json"),
        ("merged", "README.md"),
        ("ia3", "adapter_model.safetensors"),
        ("ia3", "adapter_config.json"),
    ],
)
def test_what_is_missing_is_written_again(kind: str, lost: str, run: Export, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(kind, out) == (0, "")
    before = contents(out)
    next(iter(sorted(out.glob(lost)))).unlink()
    assert run(kind, out) == (0, "")
    assert contents(out) == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "model", "masks"}


def _older_weights(source: Path) -> None:
    shard = next(path for path in sorted(source.glob("*.safetensors")) if any("down_proj" in key for key in load_file(path)))
    save_file({key: one + 1 for key, one in load_file(shard).items()}, shard, metadata={"format": "pt"})
    os.utime(shard, (1, 1))


@pytest.mark.parametrize(
    "change",
    [
        _older_weights,
        lambda source: (source / "chat_template.jinja").write_text("{{ messages }}"),
        lambda source: (source / "generation_config.json").write_text('{"temperature": 0.1}'),
        lambda source: (source / "tokenizer_config.json").write_text(
            (source / "tokenizer_config.json").read_text().replace("{", '{"model_max_length": 77,', 1)
        ),
        lambda source: (source / "LICENSE").unlink(),
    ],
    ids=["weights", "chat template", "generation", "tokenizer", "licence"],
)
def test_another_source_is_exported_again(
    change: Callable[[Path], None], run: Export, source: Path, source_masks: MaskSet, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("merged", out) == (0, "")
    change(source)
    for path in source.iterdir():
        os.utime(path, (1, 1))
    assert run("merged", out) == (0, "")
    assert contents(out) == contents(write("merged", source_masks, source, tmp_path / "fresh"))
    assert run("merged", out) == (0, SKIPPED)
    (source / "README.md").write_text("It is not copied.")
    assert run("merged", out) == (0, SKIPPED)


def test_other_options_replace_an_export_of_ours_and_leave_nothing_of_it(
    run: Export, source: Path, source_masks: MaskSet, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("merged", out) == (0, "")
    assert run("merged", out, alpha=1) == (0, "")
    assert contents(out) == contents(write("merged", source_masks, source, tmp_path / "fresh", alpha=1.0))
    assert run("ia3", out) == (0, "")
    assert {path.name for path in out.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "clas_export.json",
    }  # fmt: skip
    shutil.move(source, tmp_path / "elsewhere")
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    assert run("ia3", out) == (0, "")  # the adapter names the path of its base model
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tmp_path / "elsewhere")


def _edit(name: str, text: bytes) -> Callable[[Path], None]:
    def edit(out: Path) -> None:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(text)

    return edit


def _empty_the_adapter(out: Path) -> None:
    save_file({"other": torch.zeros(1)}, out / "adapter_model.safetensors")


def _edit_the_record(out: Path) -> None:
    record = json.loads((out / "clas_export.json").read_text())
    (out / "clas_export.json").write_text(json.dumps({**record, "alpha": 3}))


def _edit_within_the_block(out: Path) -> None:
    (out / "README.md").write_text((out / "README.md").read_text().replace("It was not trained.", "It was trained."))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_empty_the_adapter, "adapter_model.safetensors"),
        (_edit("adapter_config.json", b"{}"), "adapter_config.json"),
        (_edit_the_record, "clas_export.json"),
        (_edit("README.md", b"# My own card\n"), "README.md"),
        (_edit_within_the_block, "README.md"),
    ],
    ids=["tensors", "configuration", "record", "card", "block"],
)
def test_what_was_changed_is_replaced_with_force_alone(
    change: Callable[[Path], None], name: str, run: Export, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("ia3", out) == (0, "")
    before = contents(out)
    change(out)
    changed = contents(out)
    code, error = run("ia3", out)
    assert (code, contents(out)) == (2, changed)
    assert error == (
        f"Error: {out / name} is already there and not known to be what this program wrote; give another place, or "
        "--force to replace."
    )
    assert run("ia3", out, "--force") == (0, "")
    after = contents(out)
    if b"My own card" in changed["README.md"]:
        assert b"# My own card\n\n<!-- lm-eval-clas begin" in after["README.md"]
    else:
        assert after == before
    assert run("ia3", out) == (0, SKIPPED)


@pytest.mark.parametrize(
    ("put", "named"),
    [
        (_edit("notes.txt", b"mine"), "notes.txt"),
        (_edit("checkpoints/step.bin", b"mine"), "checkpoints/step.bin"),
        (lambda out: (out / "empty").mkdir(), "empty"),
        (lambda out: (out / "link").symlink_to(out.parent), "link"),
    ],
    ids=["file", "file below", "folder", "link"],
)
def test_what_no_export_wrote_is_never_deleted(put: Callable[[Path], None], named: str, run: Export, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("ia3", out) == (0, "")
    put(out)
    before = contents(out)
    for more in ((), ("--force",)):
        code, error = run("ia3", out, *more, alpha=1)
        assert (code, contents(out)) == (2, before)
        assert error == (
            f"Error: '{out}' holds '{named}', which no record of clas export shows to be its own; move it away, or give "
            "another --out."
        )
    assert os.path.lexists(out / named)


def test_folders_that_are_not_ours(run: Export, source: Path, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    assert run("ia3", tmp_path / "old") == (0, "")
    record = json.loads((tmp_path / "old" / "clas_export.json").read_text())
    del record["files"]  # as earlier versions wrote it
    (tmp_path / "old" / "clas_export.json").write_text(json.dumps(record))
    for folder in (source, tmp_path / "masks", tmp_path / "old", tmp_path):
        before = contents(folder)
        code, error = run("ia3", folder, "--force")
        assert (code, contents(folder)) == (2, before)
        assert f"'{folder}' holds '" in error
        assert "which no record of clas export shows to be its own" in error
        assert "damaged" not in error
    # One language of several: nothing is written for the others either.
    (tmp_path / "all" / "zh").mkdir(parents=True)
    (tmp_path / "all" / "zh" / "mine.txt").write_text("mine")
    code, error = run("ia3", tmp_path / "all", "--language", "de,zh")
    assert (code, contents(tmp_path / "all")) == (2, {"zh/mine.txt": b"mine"})
    assert "holds 'mine.txt'" in error
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "README.md").write_text("Mine.")
    code, error = run("ia3", tmp_path / "card")
    assert code == 2
    assert f"{tmp_path / 'card' / 'README.md'} is already there" in error
    assert run("ia3", tmp_path / "card", "--replace") == (0, "")
    assert "---\n\nMine.\n\n<!-- lm-eval-clas begin" in (tmp_path / "card" / "README.md").read_text()
    (tmp_path / "card" / "README.md").write_bytes(b"\xff")
    code, error = run("ia3", tmp_path / "card", "--force")
    assert (code, (tmp_path / "card" / "README.md").read_bytes()) == (2, b"\xff")
    assert "is no UTF-8 text; move it away" in error


@pytest.mark.parametrize("below", ["", "hi"])
def test_files_and_links_in_the_place_of_the_folder(below: str, run: Export, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "to_file").symlink_to(tmp_path / "file")
    for name in ("file", "to_file"):
        code, error = run("ia3", tmp_path / name / below)
        assert code == 2
        assert (
            error == f"Error: '{tmp_path / name}' is a file, and a folder is needed there; move it away, or give another place."
        )
    code, error = run("ia3", tmp_path / "broken" / below)
    assert code == 2
    assert error == (
        f"Error: '{tmp_path / 'broken'}' is a link to '{tmp_path / 'nowhere'}', which does not exist; make that, or give "
        "another place."
    )
    assert (tmp_path / "file").read_text() == "mine"
    assert os.readlink(tmp_path / "broken") == str(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_link_to_a_folder_stays(run: Export, tmp_path: Path) -> None:
    scratch = tmp_path / "disk" / "scratch"
    scratch.mkdir(parents=True)
    out = tmp_path / "out"
    out.symlink_to(Path("disk") / "scratch")
    for alpha in (-2, 1):  # an empty one, and one of ours
        assert run("merged", out, alpha=alpha) == (0, "")
        assert os.readlink(out) == "disk/scratch"
        assert json.loads((scratch / "clas_export.json").read_text())["alpha"] == alpha
    assert run("merged", out, alpha=1) == (0, SKIPPED)
    assert [path.name for path in scratch.parent.iterdir()] == ["scratch"]


def test_what_a_person_adds_to_a_card_stays_and_the_export_is_whole(run: Export, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("ia3", out) == (0, "")
    text = (out / "README.md").read_text()
    (out / "README.md").write_text(text.replace("language:\n", "license: mit\nlanguage:\n", 1) + "\n## Results\n\nGood.\n")
    added = (out / "README.md").read_bytes()
    assert run("ia3", out) == (0, SKIPPED)
    assert (out / "README.md").read_bytes() == added
    assert run("ia3", out, alpha=1) == (0, "")
    again = (out / "README.md").read_text()
    assert "alpha 1.0" in again
    assert "alpha -2.0" not in again
    assert again.startswith("---\nlicense: mit\nlanguage:\n- hi\n")
    assert again.endswith("<!-- lm-eval-clas end -->\n\n## Results\n\nGood.\n")
    assert run("ia3", out, alpha=1) == (0, SKIPPED)


def test_a_failure_leaves_the_export_that_was_there(run: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert run("merged", out) == (0, "")
    before, rename = contents(out), os.replace

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def last(here: Any, there: Any) -> None:  # the rename that puts the new folder in its place
        if Path(there) == out and Path(here).parent.name.startswith(".out.") and "README.md" in os.listdir(here) and not tried:
            tried.append(here)
            full()
        rename(here, there)

    tried: list[object] = []
    for name, module, failing in (("copyfile", shutil, full), ("replace", os, last)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, failing)
            code, error = run("merged", out, alpha=1)
        assert code == 2
        assert "No space left on device" in error
        assert contents(out) == before
        assert {path.name for path in tmp_path.iterdir()} == {"out", "model", "masks"}
    assert tried


def test_what_is_put_there_meanwhile_is_not_lost(run: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, copy = tmp_path / "out", shutil.copyfile
    assert run("merged", out) == (0, "")

    def meddled(here: Path, there: Path) -> object:
        (out / "notes.txt").write_text("mine")
        return copy(here, there)

    monkeypatch.setattr(shutil, "copyfile", meddled)
    code, error = run("merged", out, alpha=1)
    assert code == 2
    assert f"'{out}' was changed while the export was made" in error
    assert (out / "notes.txt").read_text() == "mine"
    assert json.loads((out / "clas_export.json").read_text())["alpha"] == -2


def test_a_source_on_the_hub_is_its_commit_and_sizes(source: Path, tmp_path: Path) -> None:
    config: Any = SimpleNamespace(_commit_hash="c0ffee")
    assert source_of(Outline("someone/model", "main", config, [], torch.nn.Module()), None) == {"commit": "c0ffee", "sizes": {}}
    snapshot = shutil.copytree(source, tmp_path / "snapshots" / "0ddba11")
    found = source_of(Outline("someone/model", "main", config, [], torch.nn.Module()), Checkpoint.find(str(snapshot)))
    assert found["commit"] == "0ddba11"
    assert found["sizes"]["LICENSE"] == len("Terms.")
    assert {name for name in found["sizes"] if name.endswith(".safetensors")} == {
        path.name for path in source.glob("*.safetensors")
    }


def test_a_source_whose_commit_is_unknown_is_never_the_same(source: Path, source_masks: MaskSet, tmp_path: Path) -> None:
    from dataclasses import replace

    from lm_eval_clas.export.ia3_adapter import find_ia3, write_ia3
    from lm_eval_clas.export.outline import outline, scalings
    from lm_eval_clas.export.written_export import Export as One

    (scaling,), _ = scalings(source_masks, ["hi"], alpha=1)
    one = One(scaling, source_masks, outline(str(source), source_masks), "ia3", {"commit": "c", "sizes": {}}, tmp_path / "out")
    write_ia3(one, find_ia3(one))
    assert find_ia3(one).whole
    assert not find_ia3(replace(one, source={"commit": "d", "sizes": {}})).whole
    unknown = replace(one, source={"commit": None, "sizes": {}})
    write_ia3(unknown, find_ia3(unknown))
    assert not find_ia3(unknown).whole
    (tmp_path / "out" / "more").write_text("x")
    with pytest.raises(ClasError, match="holds 'more'"):
        find_ia3(one)
