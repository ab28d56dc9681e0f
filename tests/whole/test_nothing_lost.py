"""Every command that writes, where its output place holds something else: what is not ours is neither deleted nor replaced.

Each command is run once in an empty place, to learn what it writes; then again in places that hold files of these names that
somebody else wrote, and in places that cannot be written to as they are.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from small_models import Run, make_model

from lm_eval_clas import MaskSet, ParallelInputBuilder, profile
from lm_eval_clas.commands.application import app
from lm_eval_clas.disk.written import RECORD, claimed

MINE = b"somebody else's\n"
SMALL = ("--corpus", "mini", "--languages", "en,hi,de", "--samples", 3, "--device", "cpu")
TASKS = ("--tasks", "clas_mini_nli_hi", "--alphas=-2,2", "--limit", 2, "--batch-size", 2, "--device", "cpu")
# By command: what it writes into `out`, or the file that it writes.
COMMANDS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "profile": lambda given: ("profile", "--model", given / "model", *SMALL, "--level", "instance", "--out", "out"),
    "masks": lambda given: ("masks", given / "profile", "--bridge", "2-4", "--keep-means", "--out", "out"),
    "inspect": lambda given: ("inspect", given / "masks", "--plot", "out.png"),
    "tune": lambda given: ("tune", "--model", given / "model", "--masks", given / "masks", *TASKS, "--out", "out"),
    "export ia3": lambda given: (
        *("export", given / "masks", "--model", given / "model", "--language", "hi", "--format", "ia3", "--out", "out"),
    ),
    "export merged": lambda given: (
        *("export", given / "masks", "--model", given / "model", "--language", "hi", "--format", "merged", "--out", "out"),
    ),
    "geometry": lambda given: (
        *("geometry", "--model", given / "model", "--masks", given / "masks", "--corpus", "mini", "--samples", 3),
        *("--device", "cpu", "--out", "out"),
    ),
    "stability": lambda given: ("stability", given / "profile", given / "profile", "--bridge", "2-4", "--out", "out.json"),
    "causes": lambda given: (
        *("causes", given / "study" / "tables" / "clas_mini_qa.json", "--masks", given / "masks", "--model", given / "model"),
        *("--run", "clas", "--corpus", "mini", "--out", "out.json"),
    ),
    "table": lambda given: ("table", given / "study" / "results", "--out", "out"),
    "report": lambda given: ("report", given / "study", "--out", "out.html"),
    "paper": lambda given: ("paper", given / "recipe.yaml", "--out", "out"),
    "demo": lambda given: ("demo", "--out", "out"),
}
# Commands that write nothing at a place that the user names, and why they are not here.
OTHERS = {
    "tasks": "prints",
    "route": "prints",
    "demo-model": "writes to the cache folder",
    "eval": "is the harness's, whose files have the date in their names",
    "verify": "prints",
    "serve": "answers over the network",
    "families": "prints",
    "push": "writes to the Hub (test_hub.py)",
}
WHOLE = ("profile", "tune", "paper", "demo", "export ia3", "export merged")  # commands that want a folder for themselves


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, tokenizer: Any) -> Path:
    """What the commands read: a model, a profile, masks, a recipe, and a study's results and tables."""
    folder = tmp_path_factory.mktemp("given")
    shutil.copytree(checkpoint, folder / "model")
    texts = ParallelInputBuilder("mini", ["en", "hi", "de"], 3).build()
    measured = profile(make_model(), tokenizer, texts, name="small", out=folder / "profile", max_tokens=60)
    MaskSet.from_profile(measured, bridge="2-4").save(folder / "masks")
    recipe = {
        "name": "small",
        "model": str(folder / "model"),
        "device": "cpu",
        "profile": {"samples": 3, "languages": ["en", "hi", "de"], "max_tokens": 60},
        "masks": {"bridge": "2-4"},
        "tune": {"alphas": [2], "objective": "loglikelihood", "limit": 2},
        "evaluate": {"batch_size": 4, "runs": {"hf": {}, "clas": {"alpha": "tuned"}}},
        "analyse": {"geometry_samples": None},
        "parts": {"qa": {"corpus": "mini", "tune": ["clas_mini_qa_hi"], "evaluate": ["clas_mini_qa_hi"], "limit": 2}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a command."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def study(sketched: None, given: Path, clas: Run) -> None:
    """The study that tables, causes and reports are made from; made once, by the first test."""
    if not (given / "study" / "report.html").is_file():
        code, _, error = clas("paper", given / "recipe.yaml", "--out", given / "study")
        assert code == 0, error


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _undated(name: str) -> str:
    return re.sub(r"_\d{4}-[^/]*\.json", "_DATE.json", name)


def is_one_sentence(code: int, error: str) -> bool:
    return code == 2 and error.count("Error:") == 1 and "Traceback" not in error


def test_every_command_is_here() -> None:
    group: Any = typer.main.get_command(app)
    assert {name.split()[0] for name in COMMANDS} | set(OTHERS) == set(group.commands)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_files_of_anothers_with_our_names_are_kept(name: str, given: Path, place: Path, clas: Run) -> None:
    command = COMMANDS[name](given)
    code, _, error = clas(*command)
    assert code == 0, error
    ours = [path for path in contents(place) if Path(path).name != RECORD]
    assert ours
    for one in ours:  # each alone, and then all
        shutil.rmtree(place / "out", ignore_errors=True)
        for path in place.glob("out.*"):
            path.unlink()
        (place / one).parent.mkdir(parents=True, exist_ok=True)
        (place / one).write_bytes(MINE)
        code, _, error = clas(*command)
        assert is_one_sentence(code, error), (one, code, error)
        assert Path(one).name in " ".join(error.split()).replace(" ", "") or Path(one).parts[0] in error
        assert contents(place) == {one: MINE}, one
    for one in ours:
        (place / one).parent.mkdir(parents=True, exist_ok=True)
        (place / one).write_bytes(MINE)
    code, _, error = clas(*command)
    assert is_one_sentence(code, error), error
    assert contents(place) == dict.fromkeys(ours, MINE)


@pytest.mark.parametrize("name", WHOLE)
def test_a_folder_with_anything_else_is_refused(name: str, given: Path, place: Path, clas: Run) -> None:
    (place / "out" / "deep").mkdir(parents=True)
    (place / "out" / "deep" / "notes.txt").write_bytes(MINE)
    code, _, error = clas(*COMMANDS[name](given))
    assert is_one_sentence(code, error), error
    assert "notes.txt" in error.replace("\n", "")
    assert contents(place) == {"out/deep/notes.txt": MINE}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_in_the_place_of_a_folder_is_kept(name: str, given: Path, place: Path, clas: Run) -> None:
    command = COMMANDS[name](given)
    out = place / str(command[-1])
    blocked = out if out.suffix == "" else out.parent / "folder"
    blocked.write_bytes(MINE)
    code, _, error = clas(*command[:-1], out if out.suffix == "" else blocked / out.name)
    assert is_one_sentence(code, error), error
    assert contents(place) == {blocked.name: MINE}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_links_to_folders_work_and_stay(name: str, given: Path, place: Path, clas: Run) -> None:
    command = COMMANDS[name](given)
    out = Path(str(command[-1]))
    (place / "scratch").mkdir()
    link = place / (out.name if out.suffix == "" else "link")
    link.symlink_to(place / "scratch", target_is_directory=True)
    target = link if out.suffix == "" else link / out.name
    code, _, error = clas(*command[:-1], target)
    assert code == 0, error
    assert link.is_symlink()
    assert contents(place / "scratch")
    link.unlink()
    link.symlink_to(place / "nowhere", target_is_directory=True)
    code, _, error = clas(*command[:-1], target)
    assert is_one_sentence(code, error), error
    assert link.is_symlink()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_what_a_person_changed_or_protected_afterwards_is_kept(name: str, given: Path, place: Path, clas: Run) -> None:
    """One file at a time of what a command wrote: other bytes, or read-only; the command may say no, or leave it alone."""
    command = COMMANDS[name](given)
    code, _, error = clas(*command)
    assert code == 0, error
    ours = [path for path in contents(place) if Path(path).name != RECORD]
    for one in ours:
        path = place / one
        before = path.read_bytes()
        path.write_bytes(before + MINE)
        code, _, error = clas(*command)
        assert code == 0 or is_one_sentence(code, error), (one, error)
        assert path.read_bytes() == before + MINE, one
        path.write_bytes(before)
        path.chmod(0o444)
        kept = path.stat().st_ino
        code, _, error = clas(*command)
        assert code == 0 or is_one_sentence(code, error), (one, error)
        assert path.read_bytes() == before
        assert path.stat().st_ino == kept
        path.chmod(0o644)


@pytest.mark.parametrize("name", ["masks", "inspect", "geometry", "stability", "causes", "table", "report"])
def test_force_replaces_what_is_asked_for_and_nothing_else(name: str, given: Path, place: Path, clas: Run) -> None:
    command = COMMANDS[name](given)
    code, _, error = clas(*command)
    assert code == 0, error
    ours = contents(place)
    written = [path for path in ours if Path(path).name != RECORD]
    for one in written:
        (place / one).write_bytes(MINE)
    beside = place / Path(written[0]).parent / "notes.txt"
    beside.write_bytes(MINE)
    code, _, error = clas(*command, "--force")
    assert code == 0, error
    assert contents(place) == ours | {str(beside.relative_to(place)): MINE}


def test_a_study_in_the_current_folder_spares_its_results_and_recipe(given: Path, place: Path, clas: Run) -> None:
    """The case that lost evaluations: `clas paper r.yaml --out .` beside what `lm_eval --output_path results` wrote."""
    for name in (
        "results/hf/results_2026.json",
        "recipe.yaml",
        "profile/old",
        "masks/x/clas_config.json",
        "tune/a",
        "report.html",
    ):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(MINE)
    before = contents(place)
    for _ in range(2):
        code, _, error = clas("paper", given / "recipe.yaml", "--out", ".")
        assert is_one_sentence(code, error), error
        assert "masks/x/clas_config.json' is in no record of what this program wrote" in error.replace("\n", " ")
        assert contents(place) == before


def test_a_study_clears_what_it_wrote_and_only_that(given: Path, place: Path, clas: Run) -> None:
    """With other inputs, stages start afresh; a run that left the recipe loses its results, and a scratch disk stays linked."""
    (place / "scratch").mkdir()
    (place / "out").mkdir()
    (place / "out" / "profile").symlink_to(place / "scratch", target_is_directory=True)
    (place / "out" / ".git").write_bytes(MINE)
    assert clas("paper", given / "recipe.yaml", "--out", "out")[0] == 0
    assert (place / "scratch" / "qa" / "hi.safetensors").is_file()
    (place / "out" / "notes.txt").write_bytes(MINE)
    recipe = yaml.safe_load((given / "recipe.yaml").read_text())
    recipe["profile"]["samples"] = 2
    recipe["evaluate"]["runs"] = {"hf": {}, "clas": {"alpha": 2}}
    (place / "other.yaml").write_text(yaml.safe_dump(recipe))
    code, _, error = clas("paper", "other.yaml", "--out", "out")
    assert code == 0, error
    assert (place / "out" / "profile").is_symlink()
    assert b'"samples": 2' in (place / "scratch" / "qa" / "clas_profile.json").read_bytes()
    (place / "out" / "results" / "hf" / "mine.json").write_bytes(MINE)
    before = contents(place)
    code, _, error = clas("paper", given / "recipe.yaml", "--out", "out")
    assert is_one_sentence(code, error), error
    assert "mine.json" in error.replace("\n", "")
    assert contents(place) == before
    assert (place / "out" / "notes.txt").read_bytes() == (place / "out" / ".git").read_bytes() == MINE


def test_a_study_makes_again_what_somebody_deleted(given: Path, place: Path, clas: Run) -> None:
    """A file of each kind at a time; what is there is kept."""
    shutil.copytree(given / "study", place / "out")
    before = contents(place)
    gone = [
        "profile/qa/hi.safetensors",
        "masks/qa/masks.safetensors",
        "tune/qa/masks/clas_config.json",
        "tables/clas_mini_qa.csv",
        "results/hf/*/*/samples_*.jsonl",
        "results/hf/*/*/results_*.json",
    ]
    for one in gone:
        next((place / "out").glob(one)).unlink()
        code, _, error = clas("paper", given / "recipe.yaml", "--out", "out")
        assert code == 0, (one, error)
        there = contents(place)
        assert sorted(map(_undated, there)) == sorted(map(_undated, before)), one
        assert not [name for name in before if name.endswith(".safetensors") and there[name] != before[name]], one


def test_new_masks_spare_strengths_and_means_of_old_ones(given: Path, place: Path, clas: Run) -> None:
    shutil.copytree(given / "masks", place / "masks")
    assert clas("tune", "--model", given / "model", "--masks", "masks", *TASKS, "--out", "run")[0] == 0
    before = contents(place / "masks")
    command = ("masks", given / "profile", "--bridge", "2-4", "--out", "masks")
    code, _, error = clas(*command)
    assert is_one_sentence(code, error), error
    assert "the strengths tuned for clas_mini_nli" in " ".join(error.split())
    assert contents(place / "masks") == before
    assert clas(*command, "--force")[0] == 0
    assert not MaskSet.load(place / "masks").config.tuned
    assert clas(*command, "--keep-means")[0] == 0
    code, _, error = clas(*command)
    assert is_one_sentence(code, error), error
    assert "profile.safetensors" in error
    assert MaskSet.load(place / "masks").means is not None


def test_what_commands_write_into_each_others_folders_stays_ours(given: Path, place: Path, clas: Run) -> None:
    """The masks of a run in its folder; a study's report and masks that are made anew by hand."""
    assert clas("masks", given / "profile", "--bridge", "2-4", "--out", "run/masks")[0] == 0
    for options in ((), ("--guard",)):
        code, _, error = clas("tune", "--model", given / "model", "--masks", "run/masks", *TASKS, "--out", "run", *options)
        assert code == 0, error
    shutil.copytree(given / "study", place / "study")
    again = ("masks", "study/profile/qa", "--bridge", "3-4", "--keep-means", "--out", "study/masks/qa")
    (place / "study" / "stages" / "profile.json").unlink()
    for command in (
        ("report", "study", "--out", "study/report.html"),
        again,
        ("paper", given / "recipe.yaml", "--out", "study"),
    ):
        code, _, error = clas(*command)
        assert code == 0, error


def test_masks_that_a_person_edited_are_asked_about(given: Path, place: Path, clas: Run) -> None:
    command = ("masks", given / "profile", "--bridge", "2-4", "--out", "masks")
    assert clas(*command)[0] == 0
    config = place / "masks" / "clas_config.json"
    config.write_text(config.read_text().replace('"gamma": 0.2', '"gamma": 0.3'))
    before = contents(place)
    code, _, error = clas(*command)
    assert is_one_sentence(code, error), error
    assert contents(place) == before
    assert clas("tune", "--model", given / "model", "--masks", "masks", *TASKS, "--out", "run")[0] == 0
    assert MaskSet.load("masks").config.gamma == 0.3


def test_names_with_blanks_and_backslashes_in_a_recipe(given: Path, place: Path, clas: Run) -> None:
    recipe = yaml.safe_load((given / "recipe.yaml").read_text())
    recipe |= {"parts": {"a b": {**recipe["parts"]["qa"], "tune": []}}}
    recipe["evaluate"]["runs"] = {"hf": {}, "clas": {"alpha": 1}, "c\\d": {"alpha": 2}}
    for samples in (3, 2):
        recipe["profile"]["samples"] = samples
        (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        code, _, error = clas("paper", "recipe.yaml", "--out", "out")
        assert code == 0, error


@pytest.mark.parametrize("kind", ["profile", "model"])
def test_masks_are_not_written_into_profiles_and_models(kind: str, given: Path, place: Path, clas: Run) -> None:
    shutil.copytree(given / kind, place / "out")
    before = contents(place)
    code, _, error = clas("masks", given / "profile", "--bridge", "2-4", "--out", "out")
    assert is_one_sentence(code, error), error
    assert contents(place) == before


def test_a_person_at_a_terminal_is_asked(given: Path, place: Path, clas: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "out.png").write_bytes(MINE)
    monkeypatch.setattr("lm_eval_clas.commands.application._somebody_can_answer", lambda: True)
    asked: list[str] = []
    for answer, code in ((False, 1), (True, 0)):
        monkeypatch.setattr(typer, "confirm", lambda text, err, answer=answer: asked.append(text) or answer)
        assert (place / "out.png").read_bytes() == MINE
        assert clas(*COMMANDS["inspect"](given))[0] == code
    assert (place / "out.png").read_bytes() != MINE
    assert asked == ["out.png is already there and not known to be what this program wrote. Replace?"] * 2


def test_a_claim_refuses_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    with claimed(tmp_path):
        pass
    assert not contents(tmp_path)
    (tmp_path / "notes").write_bytes(MINE)
    with pytest.raises(Exception, match="notes' is in no record"), claimed(tmp_path):
        raise AssertionError
