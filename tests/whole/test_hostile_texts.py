"""No text of any file does anything to a terminal, a page or a document, whichever field it stands in."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from made_runs import STEERED, draw, write_run
from small_models import Run
from synthetic_study import write_study

from lm_eval_clas import MaskSet, Profile
from lm_eval_clas.base.escaping import visible

HOSTILE = "\x1b]0;t\x07\x1b[31m\u202er\u2066\u200b\ufeff\x9b1m\u2028\ue000\U000e0041\x00\r\n"


def harmless(*texts: str) -> bool:
    return all(visible(text, keep="\n\t") == text for text in texts)


def with_hostile_texts(value: Any, chance: random.Random, share: float) -> Any:
    """The value with a hostile piece in some of its texts and keys."""

    def text(one: str) -> str:
        return f"{one[:1]}{HOSTILE}{one[1:]}" if chance.random() < share else one

    if isinstance(value, dict):
        return {text(key): with_hostile_texts(one, chance, share) for key, one in value.items()}
    if isinstance(value, list):
        return [with_hostile_texts(one, chance, share) for one in value]
    return text(value) if isinstance(value, str) else value


def spoil(files: Iterable[Path], seed: int, share: float) -> None:
    """Puts hostile texts into JSON files, or lines of them."""
    chance = random.Random(f"{seed} {share}")
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text(encoding="utf-8")]
        spoilt = [json.dumps(with_hostile_texts(json.loads(line), chance, share), ensure_ascii=seed % 2 == 0) for line in lines]
        path.write_text("\n".join(spoilt), encoding="utf-8")


def said(clas: Run, *command: object) -> int:
    code, text, error = clas(*command)
    assert code in (0, 2), error
    assert harmless(text, error)
    assert code == 0 or error.startswith(("Error: ", "Usage: ")), error
    return code


def written(folder: Path) -> list[str]:
    endings = (".json", ".md", ".tex", ".csv", ".html", ".yaml")
    return [path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.suffix in endings]


@pytest.mark.parametrize("seed", range(4))
def test_results_and_samples(clas: Run, tmp_path: Path, seed: int) -> None:
    tuned = {"tuned": {"xnli": {"hi": {"alpha": 0.0}}}, "left_alone": {"sw": "why"}, "unlike_tuning": {"hi in xnli": "why"}}
    write_run(tmp_path / "runs" / "hf", draw(0))
    write_run(tmp_path / "runs" / "clas", draw(1), {**STEERED, **tuned, "alpha": "tuned"}, lm_eval_version="0.4.13")
    spoil((tmp_path / "runs").rglob("*.json*"), seed, (0.02, 0.1, 0.3, 1.0)[seed])
    for number, format in enumerate(((), ("--format", "md"), ("--format", "latex"), ("--format", "csv"), ("--format", "json"))):
        said(clas, "table", tmp_path / "runs", *format, "--resamples", 100, "--out", tmp_path / f"out{number}")
    assert harmless(*written(tmp_path / "out0"))


def test_labels_of_results_are_shown(clas: Run, tmp_path: Path) -> None:
    """What decides a label, or stands in a note, is all hostile, and the table is still there."""
    write_run(tmp_path / "hf", draw(0), model_name=HOSTILE)
    left = {"hi": HOSTILE}
    write_run(tmp_path / "clas", draw(1), {**STEERED, "alpha": HOSTILE, "left_alone": left}, model_name=HOSTILE + "2")
    for format in ((), ("--format", "md"), ("--format", "latex"), ("--format", "csv"), ("--format", "json")):
        code, text, error = clas("table", tmp_path, "--baseline", "no" + HOSTILE, *format)
        assert code == 2
        assert harmless(text, error)
        labels = [f"a{HOSTILE.replace(chr(0), '')}={tmp_path / 'hf'}", f"b={tmp_path / 'clas'}"]
        code, text, error = clas("table", *labels, "--baseline", "b", *format)
        assert harmless(text, error)
        assert code in (0, 2)
    assert said(clas, "table", f"a={tmp_path / 'hf'}", f"b={tmp_path / 'clas'}", "--baseline", "a") == 0


@pytest.mark.parametrize("seed", range(3))
def test_masks_profiles_and_recipes(clas: Run, tmp_path: Path, masks: MaskSet, profiled: Profile, seed: int) -> None:
    masks.save(tmp_path / "masks")
    profiled.save(tmp_path / "profile")
    share = (0.03, 0.3, 1.0)[seed]
    spoil([*(tmp_path / "masks").glob("*.json"), *(tmp_path / "profile").glob("*.json")], seed, share)
    said(clas, "inspect", tmp_path / "masks", "--plot", tmp_path / "a.svg")
    said(clas, "inspect", tmp_path / "masks", "--json")
    said(clas, "masks", tmp_path / "profile", "--out", tmp_path / "made")
    said(clas, "stability", tmp_path / "profile", tmp_path / "profile", "--out", tmp_path / "stability.json")
    chance = random.Random(seed)
    recipe = {
        "name": "x",
        "model": "m",
        "evaluate": {"runs": {"hf": {}, "clas": {"alpha": 1}}},
        "parts": {"p": {"corpus": "c"}},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(with_hostile_texts(recipe, chance, share)))
    said(clas, "paper", tmp_path / "recipe.yaml", "--out", tmp_path / "study", "--dry-run")
    (tmp_path / "alpha.json").write_text(json.dumps({HOSTILE: 1}))
    said(clas, "geometry", "--model", "m", "--masks", tmp_path / "masks", "--corpus", tmp_path / "x.jsonl", "--out",
         tmp_path / "geometry", "--alpha", tmp_path / "alpha.json")  # fmt: skip
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": HOSTILE, "language": HOSTILE, "text": 1}))
    said(clas, "profile", "--model", "m", "--corpus", tmp_path / "x.jsonl", "--out", tmp_path / "other")
    assert harmless(*written(tmp_path / "made"))


@pytest.mark.parametrize("seed", range(3))
def test_the_folder_of_a_study(clas: Run, tmp_path: Path, seed: int) -> None:
    study = tmp_path / "study"
    write_study(study, 3, parts=1)
    files = [path for path in sorted(study.rglob("*.json")) if path.name != "clas_config.json"]
    if seed:  # all texts of some files; of all files, what is only shown
        random.Random(seed).shuffle(files)
        spoil(files[:3], seed, 1.0 if seed == 1 else 0.1)
    else:
        for path in files:
            content = json.loads(path.read_text(encoding="utf-8"))
            for name in ("why", "source", "notes", "warnings", "a", "b", "ceiling_of", "model", "commands", "run", "label"):
                _spoil_field(content, name)
            path.write_text(json.dumps(content), encoding="utf-8")
    code = said(clas, "report", study, "--out", tmp_path / "report.html")
    if not seed:
        assert code == 0
        assert "\\u202e" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert harmless(*written(tmp_path / "report.html"), *(one.read_text() for one in tmp_path.glob("*.html")))


def _spoil_field(value: Any, name: str) -> None:
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if key == name and isinstance(one, str):
            value[key] = one + HOSTILE
        elif key == name and isinstance(one, list):
            value[key] = [f"{part}{HOSTILE}" if isinstance(part, str) else part for part in one]
        _spoil_field(one, name)
