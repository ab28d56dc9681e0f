"""A mistyped name is one sentence with the nearest one that there is, before anything is loaded."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from small_models import Run
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ClasError, MaskSet
from lm_eval_clas.base.near_names import did_you_mean, nearest, require_known, slip_of
from lm_eval_clas.harness.model_loading import load_model
from lm_eval_clas.study.recipe import StudyRecipe

KNOWN = ("alpha", "beta", "Hindi", "clas_xquad")


def test_the_nearest_name_is_found_whatever_its_case() -> None:
    assert nearest("aplha", KNOWN) == ["alpha"]
    assert nearest("hindy", KNOWN) == ["Hindi"]
    assert did_you_mean("clas_xqaud", KNOWN) == " (did you mean 'clas_xquad'?)"
    assert did_you_mean("zzz", KNOWN) == did_you_mean("alpha", ()) == ""
    assert slip_of("alfa", KNOWN) is None  # it may be a name of its own
    assert slip_of("aplha", KNOWN) == "alpha"
    with pytest.raises(ClasError, match=r"^site must be one of mlp, attn, not 'atn' \(did you mean 'attn'\?\)\.$"):
        require_known("site", "atn", ("mlp", "attn"))


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("aplha", "alpha"),
        ("langauge", "language"),
        ("maks", "masks"),
        ("dtyp", "dtype"),  # of the harness's class
        ("atn_implementation", "attn_implementation"),  # of transformers, which takes it out of its kwargs
    ],
)
def test_a_mistyped_argument_is_told_before_the_model_is_loaded(slip: str, meant: str) -> None:
    message = f"^hf-clas takes no argument '{slip}' .did you mean '{meant}'.*; correct it in --model_args.$"
    with pytest.raises(ClasError, match=message):
        CLASLM("no/such-model", masks="nowhere", **{slip: "1"})
    if meant not in ("alpha", "language", "masks"):
        with pytest.raises(ClasError, match=rf"^hf takes no argument '{slip}' .did you mean '{meant}'"):
            load_model("no/such-model", f"{slip}=1", "cpu")


def test_what_the_model_itself_takes_is_no_slip(checkpoint: Path, tmp_path: Path) -> None:
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"betta": 1}))
    options: dict[str, Any] = {"device": "cpu", "vocab_size": config["vocab_size"], "attention_dropout": 0.5}
    assert CLASLM(str(tmp_path), betta=2, **options).model.config.betta == 2
    assert CLASLM(str(tmp_path), **options).model.config.attention_dropout == 0.5
    with pytest.raises(ClasError, match="takes no argument 'betta'"):
        CLASLM(str(checkpoint), betta=2, device="cpu")


def test_what_is_like_nothing_goes_on_to_the_model_which_says_what_it_does_not_take(checkpoint: Path) -> None:
    with pytest.raises(ClasError, match=r"^Neither hf-clas nor the model takes an argument 'sideways'; take it out"):
        CLASLM(str(checkpoint), sideways=1, device="cpu")


def test_a_model_that_is_there_is_no_way_round(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ClasError, match="did you mean 'gamma'"):
        CLASLM(model, tokenizer=tokenizer, gama=1)


NO_MODEL = ("--model", "no-such-model")
TUNE = ("tune", *NO_MODEL, "--masks", "gemma-3-270m", "--out", "x", "--tasks")
PROFILE = ("profile", *NO_MODEL, "--out", "x", "--corpus")


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ((*TUNE, "clas_xqaud"), "There is no task clas_xqaud (did you mean 'clas_xquad'?); "),
        ((*TUNE, "clas_mini_qa_hi", "--method", "cals"), ", not 'cals' (did you mean 'clas'?)."),
        ((*TUNE, "clas_mini_qa_hi", "--model-args", "dtyp=auto"), "hf takes no argument 'dtyp' (did you mean 'dtype'?); "),
        (("eval", "--tasks", "clas_xqaud,clas_mini"), "There is no task clas_xqaud (did you mean 'clas_xquad'?); "),
        (("route", "clas_xqaud"), "There is no task, group or tag 'clas_xqaud'; the nearest names are clas_xquad"),
        (("route", "xnli", "--languages", "hi,Germn"), "'Germn' is not a language (did you mean 'German'?); "),
        ((*PROFILE, "xqaud"), "There is no corpus 'xqaud' (did you mean 'xquad'?): "),
        ((*PROFILE, "mini", "--languages", "en,Hindy"), "has no Hindy (did you mean 'Hindi'?); "),
        (("inspect", "gemma-3-270"), "no masks at 'gemma-3-270'; the nearest that ship with the package: gemma-3-270m"),
        (("paper", "gema-3-270m", "--plan"), "There is no recipe 'gema-3-270m' (did you mean 'gemma-3-270m'?); "),
        (("families", "lama"), "of the family 'lama' (did you mean 'llama'?); "),
        (("geometry", *NO_MODEL, "--masks", "gemma-3-270m", "--corpus", "mini", "--out", "x", "--method", "unifrom"),
         ", not 'unifrom' (did you mean 'uniform'?)."),
        ((*PROFILE, "mini", "--site", "atn"), "'atn' is not one of 'mlp', 'attn', 'residual' (did you mean 'attn'?)"),
        (("table", "x", "--format", "latx"), "(did you mean 'latex'?)"),
        (("profil",), "No such command 'profil'"),
    ],
)  # fmt: skip
def test_commands_name_the_nearest(
    clas: Run, command: tuple[str, ...], meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = clas(*command)
    told = " ".join(re.sub("[│╭╮╰╯─]", " ", error).split())
    assert code == 2, error
    assert meant in told
    assert not list(tmp_path.iterdir())


def test_masks_name_the_nearest_language(masks: MaskSet) -> None:
    with pytest.raises(ClasError, match=r"no language 'hii' \(did you mean 'hi'\?\), only"):
        masks.code_of("hii")


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("evaluate.rnus", {}, r"evaluate.rnus: there is no such field \(did you mean 'runs'\?\)"),
        ("parts.one.corups", "mini", r"parts.one.corups: there is no such field \(did you mean 'corpus'\?\)"),
        ("masks.specific", "lap", r"masks.specific: .*'lape' \(did you mean 'lape'\?\)"),
    ],
)
def test_recipes_name_the_nearest_field(place: str, value: object, told: str, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "name": "r", "model": "m", "evaluate": {"runs": {"hf": {}}}, "masks": {},
        "parts": {"one": {"corpus": "mini", "evaluate": ["clas_mini_nli_hi"]}},
    }  # fmt: skip
    *path, last = place.split(".")
    step = recipe
    for name in path:
        step = step[name]
    step[last] = value
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    with pytest.raises(ClasError, match=told):
        StudyRecipe.load(tmp_path / "r.yaml")


def test_a_study_tells_a_mistyped_argument_of_a_run_before_it_begins(clas: Run, checkpoint: Path, tmp_path: Path) -> None:
    recipe = {
        "name": "r", "model": str(checkpoint), "evaluate": {"runs": {"hf": {}, "clas": {"aplha": 1}}},
        "parts": {"one": {"corpus": "mini", "evaluate": ["clas_mini_nli_hi"]}},
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    code, _, error = clas("paper", tmp_path / "r.yaml", "--out", tmp_path / "study")
    message = "hf-clas takes no argument 'aplha' (did you mean 'alpha'?); correct it in the recipe's run 'clas'."
    assert (code, message in error) == (2, True), error
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("more", [(), ("--plan",)])
@pytest.mark.parametrize("slip", [{"tune": ["clas_xqaud_tune"]}, {"evaluate": ["clas_mini_nli_hi", "clas_xqaud"]}])
def test_a_study_tells_a_mistyped_task_before_it_begins(
    clas: Run, checkpoint: Path, tmp_path: Path, slip: dict[str, Any], more: tuple[str, ...]
) -> None:
    recipe = {
        "name": "r", "model": str(checkpoint), "evaluate": {"runs": {"hf": {}, "clas": {"alpha": 1}}},
        "parts": {"one": {"corpus": "mini", "evaluate": ["clas_mini_nli_hi"], **slip}},
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    code, _, error = clas("paper", tmp_path / "r.yaml", "--out", tmp_path / "study", *more)
    (name,) = {one for names in slip.values() for one in names if "xqaud" in one}
    meant = name.replace("xqaud", "xquad")
    assert (code, error) == (2, f"Error: There is no task {name} (did you mean '{meant}'?); 'lm_eval ls tasks' lists them.\n")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("program", ["bin/lm_eval", "lm_eval/__main__.py", "bin/lm-eval"])
def test_lm_eval_ends_in_the_sentence_alone(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: others.append(error))
    monkeypatch.setattr(sys, "argv", [f"/somewhere/{program}"])
    with pytest.raises(ClasError) as told:
        CLASLM("no/such-model", masks="nowhere", aplha="1")
    for error in (told.value, KeyError("x")):
        sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == f"Error: {told.value}\n"
    assert [type(error) for error in others] == [KeyError]


def test_a_program_of_ones_own_keeps_its_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.excepthook
    monkeypatch.setattr(sys, "argv", ["/home/somebody/lm_eval/mine.py"])
    with pytest.raises(ClasError):
        CLASLM("no/such-model", aplha="1")
    assert sys.excepthook is before
