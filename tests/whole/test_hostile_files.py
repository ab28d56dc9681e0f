"""Every file that a user may hand us, as anything at all: it is read, or refused with one sentence; no crash, no hang."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from damaging import deep
from made_runs import write_run
from small_models import Run

from lm_eval_clas import ClasError, MaskSet, ParallelInputBuilder, Profile
from lm_eval_clas.base.plain_numbers import plain_number
from lm_eval_clas.commands.explaining import causes_command
from lm_eval_clas.comparing.results_files import read_runs
from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.decoder.checkpoint import Checkpoint
from lm_eval_clas.disk.checked_json import parse_json
from lm_eval_clas.disk.checked_yaml import parse_yaml
from lm_eval_clas.disk.journal import Journal
from lm_eval_clas.export.outline import EXPORT_FILE
from lm_eval_clas.export.written_export import _read_record
from lm_eval_clas.geometry.measurements import Geometry
from lm_eval_clas.masks.adding import MonolingualText
from lm_eval_clas.masks.lape import with_neuron_file
from lm_eval_clas.steering.options import SteeringOptions
from lm_eval_clas.study.evaluation import _finished
from lm_eval_clas.study.plan.calibration import kept_calibration
from lm_eval_clas.study.recipe import FOLDER, StudyRecipe
from lm_eval_clas.study.record import Study, hash_of
from lm_eval_clas.study.report.sources import read_study
from lm_eval_clas.tuning.item_scores import ItemScores
from lm_eval_clas.tuning.measuring import TuningPlan

SECONDS = 20
LARGE = "1" + "0" * 400  # a whole number that no float holds

HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n\r\n\t\n",
    "null": b"null",
    "a number": b"3",
    "a text": b'"x"',
    "a list": b"[]",
    "an object": b"{}",
    "a list of lists": b"[[1], [2]]",
    "not UTF-8": b'{"hi": "\xff\xfe"}\n',
    "UTF-16": '{"hi": 1, "default": 1}'.encode("utf-16"),
    "zeros": b"\0" * 4096,
    "cut": b'{"id": 1, "text": "x',
    "two values": b"{} {}",
    "NaN": b'{"hi": NaN, "default": Infinity, "format_version": -Infinity}',
    "too large": f'{{"hi": {LARGE}, "default": 1, "format_version": {LARGE}, "results": {LARGE}, "config": {{}}}}'.encode(),
    "thousands of digits": b'{"hi": ' + b"9" * 100_000 + b"}",
    "infinite": b'{"hi": 1e999, "default": -1e999}',
    "a lone surrogate": b'{"id": "\\ud800", "language": "hi", "text": "\\udfff", "hi": 1}',
    "a lone surrogate as a key": b'{"\\ud800": 1, "default": 1}',
    "a key twice": b'{"id": 1, "id": 2, "language": "hi", "text": "x", "hi": 1, "hi": 2}',
    "control characters": json.dumps({"\x1b[2J\n": 1, "id": "\x1b[2J\n", "language": "\x1b", "text": 1}).encode(),
    "other types": json.dumps({"id": [], "language": {}, "text": None, "results": [], "config": 1, "hi": "1_0"}).encode(),
    "results of other types": json.dumps({"results": {"a": []}, "config": {"clas": []}, "versions": 3}).encode(),
    "results of other languages": json.dumps({"results": {}, "config": {"clas": {"seed": "x", "tuned": [1]}}}).encode(),
    "YAML that is no data": b"a: !!python/object/apply:os.system ['true']\n",
    "YAML with no such day": b"name: 2020-99-99\n",
    "YAML in itself": b"&a [*a]\n",
    "YAML with an unhashable key": b"? {a: b}\n: c\n",
    "YAML with a key twice": b"name: a\nname: b\n",
}
HOSTILE |= {f"{levels} lists deep": deep(levels=levels).encode() for levels in (101, 900, 3_000, 200_000)}
HOSTILE |= {f"{levels} objects deep": b'{"hi":' * levels + b"1" + b"}" * levels for levels in (101, 900, 3_000, 100_000)}


def no_file(path: Path, kind: str) -> None:
    """What is no ordinary file."""
    path.unlink()
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    if kind in ("zeros", "loop", "dangling"):
        path.symlink_to({"zeros": "/dev/zero", "loop": path.name, "dangling": "nowhere"}[kind])


NO_FILES = ("missing", "folder", "pipe", "zeros", "loop", "dangling")

Reader = tuple[str, Callable[[Path], Any]]  # the file's place, and what reads it


def _samples(folder: Path) -> None:
    (run,) = read_runs([folder])
    for scores in run.tasks.values():
        assert scores.logged is not None
        scores.item_scores("acc,none")


def _corpus(path: Path) -> None:
    texts = ParallelInputBuilder(str(path)).build()
    assert texts.sha256()
    for lines in texts.texts.values():
        assert all(line.encode() for line in lines)


def _alpha(path: Path, masks: MaskSet) -> None:
    parsed = SteeringOptions.parse(masks, alpha=str(path))
    assert all(-1e38 < one < 1e38 for one in parsed.strengths)


def _scores(path: Path) -> ItemScores | None:
    return ItemScores.read(path, "t", 1) if path.is_file() else None


# Readers of what users hand us: by name, the file in the sound folder, and how it is read.
def _readers(masks: MaskSet) -> dict[str, Reader]:
    recipe = TuningPlan(model="m", model_args="", masks="h", tasks=("t",), settings=())
    return {
        "alpha": ("alpha.json", lambda root: _alpha(root / "alpha.json", masks)),
        "corpus": ("corpus.jsonl", lambda root: _corpus(root / "corpus.jsonl")),
        "corpus by language": ("corpus/hi.jsonl", lambda root: _corpus(root / "corpus")),
        "corpus by line": ("lines/hi.txt", lambda root: _corpus(root / "lines")),
        "added language": ("quy.txt", lambda root: MonolingualText.parse(f"quy={root / 'quy.txt'}")),
        "neurons": ("llama.neuron.pth", lambda root: with_neuron_file(masks, root / "llama.neuron.pth", ["en", "hi"])),
        "recipe": ("recipe.yaml", lambda root: StudyRecipe.load(root / "recipe.yaml")),
        "masks": ("masks/clas_config.json", lambda root: MaskSet.load(root / "masks")),
        "profile": ("profile/clas_profile.json", lambda root: Profile.load(root / "profile")),
        "results": ("runs/results_2026-01-01T00-00-00.000001.json", lambda root: read_runs([root / "runs"])),
        "samples": ("runs/samples_clas_xnli_hi_2026-01-01T00-00-00.000001.jsonl", lambda root: _samples(root / "runs")),
        "table": ("table.json", lambda root: causes_command._read(root / "table.json", Comparison, "clas table")),
        "geometry": ("geometry.json", lambda root: causes_command._read(root / "geometry.json", Geometry, "clas geometry")),
        "report": ("study/tune/a/tuned.json", lambda root: read_study(root / "study")),
        "report's stages": ("study/stages/masks.json", lambda root: read_study(root / "study")),
        "tuning run": ("run/run.json", lambda root: recipe.claim(root / "run")),
        "tuning scores": ("scores.json", lambda root: _scores(root / "scores.json")),
        "checkpoint's index": ("model/model.safetensors.index.json", lambda root: Checkpoint.find(str(root / "model"))),
        "checkpoint": ("checkpoint/model.safetensors", lambda root: Checkpoint.find(str(root / "checkpoint"))),
        "export": (f"export/{EXPORT_FILE}", lambda root: _record_of_an_export(root / "export" / EXPORT_FILE)),
    }


def _record_of_an_export(path: Path) -> dict[str, Any]:
    """One that tells of no files is none, and its folder is refused for what else is in it (test_export_again.py)."""
    record, _ = _read_record(path)
    if not record:
        raise ClasError(f"'{path}' is no record of an export.")
    return record


NAMES = list(_readers(None))  # type: ignore[arg-type]
# Where these are not there, something else is the case: a run of its own, nothing to show, results without samples.
MAY_BE_MISSING = {
    "tuning scores",
    "results",
    "samples",
    "report",
    "report's stages",
    "tuning run",
    "checkpoint's index",
    "checkpoint",
    "export",
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, masks: MaskSet, profiled: Profile) -> Path:
    """A folder with a sound file for most readers."""
    root = tmp_path_factory.mktemp("sound")
    for folder in ("corpus", "lines", "study/tune/a", "study/stages", "run", "model", "checkpoint", "export"):
        (root / folder).mkdir(parents=True)
    files = {
        "alpha.json": '{"hi": -2, "default": 1}',
        "corpus.jsonl": '{"id": 1, "language": "en", "text": "x"}\n\n{"id": 1, "language": "hi", "text": "y"}\n',
        "corpus/en.jsonl": '{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n',
        "corpus/hi.jsonl": '{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n',
        "lines/en.txt": "one\n\nthree\n",
        "lines/hi.txt": "one\r\n\r\nthree",
        "quy.txt": "one\n\ntwo\n",
        "recipe.yaml": (FOLDER / "gemma-3-270m.yaml").read_text(encoding="utf-8"),
        "table.json": "{}",
        "geometry.json": "{}",
        "study/recipe.yaml": "name: x\n",
        "study/tune/a/tuned.json": "{}",
        "study/stages/masks.json": '{"stage": "masks", "inputs": "x", "finished": true, "started": "2026"}',
        "scores.json": '{"task": "t", "objective": "metric", "metric": "acc", "languages": {}}',
        "model/model.safetensors.index.json": '{"weight_map": {}}',
        "export/other": "",
        f"export/{EXPORT_FILE}": '{"a": 1}',
    }
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    (root / "checkpoint" / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    masks.save(root / "masks")
    profiled.save(root / "profile")
    write_run(root / "runs", {"clas_xnli_hi": [0.0, 1.0], "clas_xnli_de": [1.0, 1.0]})
    TuningPlan(model="m", model_args="", masks="h", tasks=("t",), settings=()).claim(root / "run")
    torch.save([[torch.tensor([1, 2])] * 6] * 2, root / "llama.neuron.pth")
    return root


@contextmanager
def limited() -> Iterator[None]:
    """Interrupts what would never end."""

    def too_long(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(read: Callable[[], Any], what: object, names: str = "") -> str | None:
    """The sentence with which something is refused, or None. It is one line, not too long, and names the file."""
    try:
        with limited():
            read()
    except ClasError as error:
        said = str(error)
        assert said.isprintable(), (what, said)
        assert len(said) < 1000, (what, said)
        assert said.endswith((".", "}")), (what, said)
        assert names in said, (what, said)
        return said
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return None


@pytest.fixture
def place(request: pytest.FixtureRequest, sound: Path, masks: MaskSet) -> Iterator[tuple[Path, Callable[[], Any]]]:
    """The file of a reader, and the reader; the sound content comes back afterwards."""
    name, read = _readers(masks)[request.param]
    path = sound / name
    before = path.read_bytes()
    yield path, lambda: read(sound)
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(before)


@pytest.mark.parametrize("place", NAMES, indirect=True)
def test_hostile_content_is_refused_or_read(place: tuple[Path, Callable[[], Any]]) -> None:
    path, read = place
    refused = 0
    for name, content in HOSTILE.items():
        path.write_bytes(content)
        refused += attempt(read, name) is not None
    assert refused >= 4


@pytest.mark.parametrize("place", NAMES, indirect=True)
def test_sound_content_with_random_edits_is_refused_or_read(place: tuple[Path, Callable[[], Any]]) -> None:
    path, read = place
    sound = path.read_bytes()
    pieces = [
        *HOSTILE.values(),
        b"\r",
        "\u2028\u0085\x0b\x0c".encode(),
        b"NaN",
        LARGE.encode(),
        b"\\ud800",
        b"\n\n",
        b'"',
        b"[",
    ]
    for case in range(60):
        chance = random.Random(f"{path.name} {case}")
        content = bytearray(sound)
        for _ in range(chance.choice([1, 1, 3])):
            start = chance.randrange(len(content) + 1)
            end = min(len(content), start + chance.choice([0, 0, 1, 10]))
            piece = chance.choice(pieces)
            content[start:end] = piece if len(piece) < 10_000 else piece[:10]
        path.write_bytes(content)
        attempt(read, f"case {case}")


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("place", NAMES, indirect=True)
def test_what_is_no_file_is_refused(place: tuple[Path, Callable[[], Any]], kind: str, request: pytest.FixtureRequest) -> None:
    path, read = place
    no_file(path, kind)
    said = attempt(read, kind)
    name = request.node.callspec.params["place"]
    gone = kind in ("missing", "dangling", "loop")
    if name not in MAY_BE_MISSING and not (gone and name in ("corpus by language", "corpus by line")):
        assert said is not None
        assert path.name in said or path.parent.name in said


def test_our_own_notes_are_made_again_whatever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only saves time is not worth a refusal: records of stages, of finished tasks, answers, and how fast a machine is."""
    (tmp_path / "stages").mkdir()
    files = [tmp_path / "stages" / "masks.json", tmp_path / "clas_inputs.json", tmp_path / "answers.jsonl"]
    for name, content in HOSTILE.items():
        for path in files:
            path.write_bytes(content)
        assert attempt(lambda: Study(tmp_path).record("masks"), name) is None
        assert Study(tmp_path).record("masks") is None
        assert not _finished(tmp_path, "x")
        assert Journal(files[2]).read("loglikelihood", "x") == {}

    recipe = StudyRecipe.load("gemma-3-270m")
    monkeypatch.setenv("LM_EVAL_CLAS_CACHE", str(tmp_path))
    (tmp_path / "calibration").mkdir()
    monkeypatch.setattr("lm_eval_clas.study.plan.calibration.hash_of", lambda _: "x")
    contents = [*HOSTILE.values(), b'{"operations": "1_0", "bytes": 1}', b'{"operations": NaN, "bytes": 1}', b'{"bytes": true}']
    for content in contents:
        (tmp_path / "calibration" / "x.json").write_bytes(content)
        assert kept_calibration(recipe) is None
    assert hash_of(1)


def test_the_command_line_says_one_sentence(clas: Run, sound: Path, tmp_path: Path, masks: MaskSet) -> None:
    masks.save(tmp_path / "masks")
    commands: dict[str, Callable[[Path], tuple[object, ...]]] = {
        "a.json": lambda path: ("geometry", "--model", "m", "--masks", tmp_path / "masks", "--corpus", "mini", "--out",
                                tmp_path / "out", "--alpha", path),
        "b.jsonl": lambda path: ("profile", "--model", "m", "--corpus", path, "--out", tmp_path / "out"),
        "c.txt": lambda path: ("masks", tmp_path / "masks", "--out", tmp_path / "out", "--model", "m", "--add-language",
                               f"quy={path}"),
        "results_d.json": lambda path: ("table", path),
        "e.yaml": lambda path: ("paper", path, "--out", tmp_path / "out"),
        "f.json": lambda path: ("causes", path, "--masks", tmp_path / "masks", "--model", "m", "--run", "clas"),
    }  # fmt: skip
    refusable = ("not UTF-8", "3000 lists deep", "empty", "a lone surrogate")
    for name, command in commands.items():
        for content in refusable if name != "c.txt" else ("not UTF-8", "empty"):
            (tmp_path / name).write_bytes(HOSTILE[content])
            code, _, error = clas(*command(tmp_path / name))
            assert code == 2, (name, content, error)
            assert error.startswith("Error: "), error
            assert error.count("\n") == 1, error
            assert name in error, error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", range(20))
def test_what_python_writes_as_json_is_read_back_the_same(seed: int) -> None:
    chance = random.Random(seed)

    def value(depth: int = 0) -> Any:
        kind = chance.randrange(9 if depth < 6 else 7)
        if kind == 7:
            return [value(depth + 1) for _ in range(chance.randrange(4))]
        if kind == 8:
            return {text(): value(depth + 1) for _ in range(chance.randrange(4))}
        return [None, True, chance.random(), chance.randrange(-(2**70), 2**70), text(), 0, -1e300][kind]

    def text() -> str:
        return "".join(chance.choice('a\n"\\[{\u2028\x85é中😀\x00 ') for _ in range(chance.randrange(6)))

    for _ in range(50):
        one = value()
        for ascii_only in (True, False):
            assert parse_json(json.dumps(one, ensure_ascii=ascii_only).encode()) == one
        assert parse_yaml(yaml.safe_dump({"a": [1, {"b": None}], "c": seed})) == {"a": [1, {"b": None}], "c": seed}


def test_depth_is_counted_and_brackets_in_texts_are_not() -> None:
    assert parse_json(deep(levels=100).encode()) is not None
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(deep(levels=101).encode())
    assert parse_json(json.dumps({"a": "[" * 5000, "b": [[]] * 5000}).encode())["a"] == "[" * 5000


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it is empty"),
        ("{", "it is no JSON"),
        ("{\n\n}x", "it is no JSON from line 3 on"),
        (b"\xff", "it is not UTF-8 from byte 1 on"),
        (f"[{LARGE}]", "a number that is too large"),
        ('{"a": {"b": 1, "b": 1}}', "it has 'b' twice"),
        ('["\\ud83d"]', "half a character"),
    ],
)
def test_the_reason_is_said(content: str | bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_json(content)


def test_numbers_in_plain_digits_are_numbers_and_nothing_else_is() -> None:
    chance = random.Random(0)
    for _ in range(500):
        number = chance.choice([chance.uniform(-9, 9), chance.randrange(-99, 99), chance.uniform(-1, 1) * 1e-9, 1e300])
        for text in (str(number), repr(float(number)), f" {number:+} ", f"{number:e}"):
            assert plain_number(text) == float(text)
    wrong: list[object] = [
        "1_0",
        "",
        " ",
        "nan",
        "inf",
        "-Infinity",
        "1e999",
        "0x10",
        "1,5",
        "\u0663",
        "--1",
        ".",
        True,
        None,
        [1],
    ]
    for one in wrong:
        with pytest.raises(ValueError, match="it is no"):
            plain_number(one)


@pytest.mark.parametrize("option", ["--beta", "--gamma", "--threshold"])
@pytest.mark.parametrize("value", ["1_0", "nan", "inf", "x"])
def test_options_take_plain_numbers_only(clas: Run, tmp_path: Path, option: str, value: str) -> None:
    code, _, error = clas("masks", tmp_path, "--out", tmp_path / "out", option, value)
    assert code == 2
    assert f"'{value}' is no finite number in plain digits" in " ".join(error.replace("\u2502", " ").split())


@pytest.mark.parametrize("value", ["-1,1_0", "1,nan", "1,x"])
def test_lists_of_strengths_take_plain_numbers_only(clas: Run, tmp_path: Path, masks: MaskSet, value: str) -> None:
    command = ("tune", "--model", "m", "--masks", masks.save(tmp_path / "masks"), "--tasks", "x", "--out", tmp_path / "out")
    code, _, error = clas(*command, "--alphas", value)
    assert code == 2
    assert f"--alphas takes finite numbers with commas between them, like -2,-1,1,2; not '{value}'." in error
