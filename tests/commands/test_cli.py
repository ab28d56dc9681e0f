"""The `clas` command: profile, masks, inspect and eval on a small model, and one sentence with exit code 2 for a slip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import torch
from small_models import Run

from lm_eval_clas import ClasError, MaskSet, Profile
from lm_eval_clas.commands.application import app
from lm_eval_clas.disk.files import shipped, write_text, writing


def test_profile_masks_inspect(clas: Run, profile_folder: Path, tmp_path: Path) -> None:
    assert Profile.load(profile_folder).languages == ("en", "hi", "de")
    out = tmp_path / "masks"
    code, text, error = clas(
        "masks", profile_folder, "--out", out, "--bridge", "2-4", "--level", "instance", "--keep-means", "--anchor", "de"
    )
    assert code == 0, error
    masks = MaskSet.load(out)
    assert (masks.bridge_layers, masks.anchor, masks.config.model.name) == ((2, 3, 4), "de", "small")
    assert masks.means is not None
    assert len(masks.config.instance_shares or []) == 6
    assert "input by input" in text

    picture = tmp_path / "picture.png"
    code, text, error = clas("inspect", out, "--json", "--plot", picture)
    assert code == 0, error
    info = json.loads(text)
    assert info["languages"] == ["en", "hi", "de"]
    assert info["bridge_rule"] == "given by the user"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert clas("inspect", out)[0] == 0


def test_a_finished_profile_is_told_at_once_without_the_model(
    clas: Run, profile_folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError("the model was loaded")

    residual = ("profile", "--model", checkpoint, "--corpus", "mini", "--languages", "en,hi", "--samples", 2, "--out",
                tmp_path / "residual", "--max-tokens", 30, "--device", "cpu", "--site", "residual")  # fmt: skip
    assert clas(*residual)[0] == 0
    monkeypatch.setattr("lm_eval_clas.harness.model_loading.load_model", unwanted)
    code, text, error = clas(*residual)
    assert (code, error) == (0, "")
    assert "Nothing left to run: already profiled 2 items in 2 languages" in text
    assert "clas masks PROFILE --residual" in text
    before = {path.name: path.stat().st_mtime_ns for path in profile_folder.glob("*.safetensors")}
    code, text, error = clas(
        "profile", "--model", checkpoint, "--corpus", "mini", "--languages", "en,hi,de", "--samples", 3, "--out",
        profile_folder, "--max-tokens", 60, "--model-name", "small", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, error
    assert "Nothing left to run: already profiled 3 items in 3 languages" in text
    assert {path.name: path.stat().st_mtime_ns for path in profile_folder.glob("*.safetensors")} == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--width", 3), "--width is that of pictures; name one with --plot, --curves or --experts, or drop it."),
        (
            ("--width", 0.3, "--plot", "a.png"),
            "A picture cannot be 0.3 inches wide; give a --width from 2 to 20, such as 3.25 for a column.",
        ),
        (
            ("--curves", "a.pdf"),
            "The masks 'gemma-3-270m' have no tuned strengths to draw curves of; run 'clas tune', or drop --curves.",
        ),
    ],
)
def test_pictures_that_cannot_be_drawn(
    clas: Run, options: tuple[object, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = clas("inspect", "gemma-3-270m", *options)
    assert code == 2
    assert sentence in " ".join(error.split())
    assert not list(tmp_path.iterdir())


def test_an_interrupted_profile_says_what_is_finished(
    clas: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval_clas.neurons import profiling

    command = (
        "profile", "--model", checkpoint, "--corpus", "mini", "--languages", "en,hi,de", "--samples", 2,
        "--out", tmp_path / "p", "--max-tokens", 30, "--device", "cpu",
    )  # fmt: skip
    real, calls = profiling.batch_statistics, []

    def interrupted(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 2 * 6:  # two languages of one batch and six layers each are done
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(profiling, "batch_statistics", interrupted)
    code, _, error = clas(*command)
    assert code == 130
    assert "Finished: en, hi. The same command goes on from there." in error
    monkeypatch.setattr(profiling, "batch_statistics", real)
    assert clas(*command)[0] == 0
    assert Profile.load(tmp_path / "p").languages == ("en", "hi", "de")


def test_eval_is_lm_eval_with_our_tasks(clas: Run, checkpoint: Path, masks: MaskSet, tmp_path: Path) -> None:
    masks.save(tmp_path / "masks")
    code, text, _ = clas(
        "eval", "--model", "hf-clas", "--model_args", f"pretrained={checkpoint},masks={tmp_path / 'masks'},alpha=-2",
        "--tasks", "clas_mini_nli_hi", "--limit", 2, "--device", "cpu", "--output_path", tmp_path / "results",
    )  # fmt: skip
    assert code == 0
    assert "clas_mini_nli_hi" in text
    (results,) = (tmp_path / "results").rglob("results_*.json")
    info = json.loads(results.read_text())["config"]["clas"]
    assert (info["alpha"], info["masks_hash"], info["languages"]["hi"]["requests"]) == (-2, masks.hash, 6)


@pytest.mark.parametrize("model", ["hf", "hf-clas"])
@pytest.mark.parametrize("task", ["clas_mini_nli_hi", "clas_mini_qa_hi"])
def test_a_quiet_eval_draws_no_bars(
    clas: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, model: str, task: str
) -> None:
    for name in ("TQDM_DISABLE", "LMEVAL_LOG_LEVEL"):
        monkeypatch.setenv(name, "")  # put back afterwards
    options = ("--tasks", task, "--limit", 1, "--device", "cpu", "--gen_kwargs", "max_gen_toks=2")
    code, text, error = clas("eval", "--quiet", "--model", model, "--model_args", f"pretrained={checkpoint}", *options)
    assert code == 0, error
    assert task in text
    assert [line for line in error.splitlines() if "%|" in line] == []


def test_eval_keeps_the_users_own_tasks(clas: Run, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    source = (shipped("tasks") / "mini" / "clas_mini_qa_de.yaml").read_text()
    mine = source.replace("clas_mini_qa_de", "mine_de").replace("include: ../", f"include: {shipped('tasks')}/")
    (tmp_path / "mine" / "mine_de.yaml").write_text(mine)
    code, text, error = clas(
        "eval", "--model", "hf", "--model_args", f"pretrained={checkpoint}", "--tasks", "mine_de,clas_mini_qa_hi", "--limit", 1,
        "--device", "cpu", "--include_path", tmp_path / "mine",
    )  # fmt: skip
    assert code == 0, error
    assert "mine_de" in text
    assert "clas_mini_qa_hi" in text


def test_tasks_prints_the_folder(clas: Run) -> None:
    code, text, _ = clas("tasks")
    assert code == 0
    assert Path(text.strip(), "xquad", "clas_xquad_hi.yaml").is_file()


@pytest.mark.parametrize("command", ["profile", "masks", "inspect", "demo", "demo-model", "tasks"])
def test_every_command_has_help(clas: Run, command: str) -> None:
    code, text, _ = clas(command, "--help")
    assert code == 0
    assert "Usage" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "nowhere"], "There are no masks at 'nowhere'"),
        (["masks", "nowhere", "--out", "x"], "'nowhere' is not a profile"),
        (["profile", "--model", "m", "--corpus", "nowhere", "--out", "x"], "There is no corpus 'nowhere'"),
        (["profile", "--model", "no-such-model", "--corpus", "mini", "--out", "x"], "Cannot load the model 'no-such-model'"),
        (["eval", "--model", "hf-clas", "--model_args", "pretrained=m,masks=nowhere", "--tasks", "clas_mini"], "no masks at"),
    ],
)
def test_a_slip_is_one_sentence_and_exit_code_2(
    clas: Run, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, error = clas(*arguments)
    assert code == 2
    last = error.strip().splitlines()[-1]
    assert message in last
    assert last.startswith("Error:")
    assert "Traceback" not in error
    assert not (tmp_path / "x").exists()


def test_bad_mask_options_are_one_sentence(clas: Run, profile_folder: Path, tmp_path: Path) -> None:
    for option, value, message in [
        ("--statistic", "median", "statistic must be one of"),
        ("--tokens", "first", "tokens must be one of"),
        ("--bridge", "9-12", "out of range"),
        ("--anchor", "fr", "anchor 'fr' was not profiled"),
    ]:
        code, _, error = clas("masks", profile_folder, "--out", tmp_path / "x", option, value)
        assert (code, message in error) == (2, True), error
    (profile_folder / "hi.safetensors").unlink()
    code, _, error = clas("masks", profile_folder, "--out", tmp_path / "x")
    assert code == 2
    assert "not finished (hi missing)" in error


def test_nothing_is_half_written(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file"

    def break_off() -> None:
        with writing(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert not (tmp_path / "folder").exists()
    (tmp_path / "blocked").touch()
    with pytest.raises(ClasError, match="Cannot write"):
        write_text(tmp_path / "blocked" / "file", "whole")


def test_tune_writes_strengths_into_the_mask_folder(clas: Run, checkpoint: Path, masks: MaskSet, tmp_path: Path) -> None:
    folder = masks.save(tmp_path / "masks")
    command = (
        "tune", "--model", checkpoint, "--masks", folder, "--tasks", "clas_mini_nli_hi,clas_mini_nli_en,clas_mini_qa_de",
        "--alphas", "-3,1", "--layers", "2-4,3", "--objective", "loglikelihood", "--limit", 3, "--out", tmp_path / "run",
        "--device", "cpu", "--guard",
    )  # fmt: skip
    code, text, error = clas(*command)
    assert code == 0, error
    assert "Skipping clas_mini_nli_en: its language is the anchor" in error
    tuned = MaskSet.load(folder).config.tuned
    assert len(tuned["clas_mini_nli"]["hi"].measured) == 1 + 2 * 2
    assert tuned["clas_mini_qa"]["de"].chosen.alpha == 0  # of three items, no gain can be told from 0
    assert "alpha=tuned" in text
    code, _, error = clas(*command)
    assert code == 0, error
    assert "Already finished, skipped: clas_mini_nli_hi, clas_mini_qa_de" in error
    code, _, error = clas(*command[:8], "2,4", *command[9:])
    assert code == 2
    assert "holds a run with other settings" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--alphas": "strong"}, "--alphas takes finite numbers"),
        ({"--alphas": "0"}, "nothing to try beside 0"),
        ({"--alphas": "1,inf"}, "finite"),
        ({"--layers": "7-9"}, "out of range"),
        ({"--tasks": "clas_xquad_toon"}, "There is no task clas_xquad_toon"),
        ({"--tasks": "clas_mini_nli_en"}, "None of the tasks has anything to tune"),
        ({"--masks": "there-are-none"}, "no masks"),
        ({"--batch-size": "0", "--model": "no-such-model"}, "--batch-size must be a whole number from 1 on, auto, or auto:N"),
        ({"--batch-size": "-4", "--engine": "vllm"}, "--batch-size must be a whole number from 1 on, auto, or auto:N"),
    ],
)
def test_a_slip_in_tune_is_one_sentence(
    change: dict[str, str], message: str, clas: Run, checkpoint: Path, masks: MaskSet, tmp_path: Path
) -> None:
    options = {
        "--model": checkpoint,
        "--masks": masks.save(tmp_path / "masks"),
        "--tasks": "clas_mini_nli_hi",
        "--out": tmp_path / "run",
        **change,
    }
    code, _, error = clas("tune", *(part for option in options.items() for part in option))
    assert code == 2
    assert message in " ".join(error.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", ["x" * 256, "a\0b", "~nobody-of-this-name/x"])
def test_what_can_be_no_path_is_told_to_be_none(clas: Run, profile_folder: Path, path: str) -> None:
    code, _, error = clas("masks", profile_folder, "--bridge", "2-4", "--out", path)
    assert code == 2
    assert "There can be no file" in error
    assert "give another path" in " ".join(error.replace("│", "").split())
    assert "Traceback" not in error


def test_every_path_may_begin_in_the_home_folder(clas: Run, profile_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """`~`, also where the shell leaves it, as in `--out=~/x`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert clas("masks", profile_folder, "--bridge", "2-4", "--out=~/m")[0] == 0
    assert MaskSet.load(tmp_path / "home" / "m").bridge_layers == (2, 3, 4)
    for command in app.registered_commands:
        for name, kind in get_type_hints(command.callback, include_extras=True).items():
            if get_origin(kind) is Annotated and get_args(kind)[0] in (Path, Path | None):
                assert get_args(kind)[1].parser("~/x") == tmp_path / "home" / "x", (command.name, name)
