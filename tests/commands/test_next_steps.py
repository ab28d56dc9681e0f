"""The command that a command names as the next one can be copied, and evaluates the same model with the same prompts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from lm_eval.utils import simple_parse_args_string
from small_models import Run

from lm_eval_clas import MaskSet
from lm_eval_clas.disk.files import shipped

CASES = Path(__file__).parent.parent / "cases" / "tasks"


def copied(printed: str) -> tuple[list[str], dict[str, Any], dict[str, str]]:
    """The command's words before its options, its model arguments, and its options; switches are there with no value."""
    (line,) = [line for line in printed.splitlines() if "Next" in line]
    words = shlex.split(line.partition("Next")[2].partition(": ")[2])
    start = next(place for place, word in enumerate(words) if word.startswith("--"))
    options = {
        word: "" if after.startswith("--") else after
        for word, after in zip(words, [*words[1:], "--"], strict=True)
        if word.startswith("--")
    }
    return words[:start], simple_parse_args_string(options.get("--model_args", "")), options


@pytest.mark.parametrize("own", [False, True])
def test_after_tuning_comes_the_same_model(
    clas: Run, checkpoint: Path, masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    monkeypatch.chdir(CASES)
    folder = masks.save(tmp_path / "the masks")
    code, out, error = clas(
        "tune", "--model", checkpoint, "--masks", folder, "--tasks", "text_gold_hi" if own else "clas_mini_nli_hi",
        "--alphas", "2", "--limit", 2, "--out", tmp_path / "run", "--model-args", "dtype=bfloat16,max_length=400",
        "--num-fewshot", 1, "--device", "cpu", "--batch-size", 2,
        *(["--include-path", CASES, "--pair", "source"] if own else []),
    )  # fmt: skip
    assert code == 0, error
    words, arguments, options = copied(out)
    assert arguments == {
        "pretrained": str(checkpoint), "dtype": "bfloat16", "max_length": 400, "masks": str(folder), "alpha": "tuned",
        **({"pair": "source"} if own else {}),
    }  # fmt: skip
    assert words == (["clas", "eval"] if own else ["lm_eval"])
    assert options["--include_path"] == str(CASES if own else shipped("tasks"))
    assert options["--tasks"] == ("text_gold_hi" if own else "clas_mini_nli_hi")
    assert (options["--num_fewshot"], options["--device"], options["--batch_size"]) == ("1", "cpu", "2")
    assert json.loads((folder / "clas_config.json").read_text())["tuned"]


def test_after_a_tuning_split_comes_the_test_split() -> None:
    from lm_eval_clas.harness.task_loading import other_splits

    names = ["clas_xquad_tune", "clas_xnli_tune_hi", "clas_xnli_hi", "clas_mini"]
    assert other_splits(names, []) == ["clas_xquad", "clas_xnli_hi", "clas_xnli_hi", "clas_mini"]


def test_after_an_export_comes_the_same_revision(clas: Run, checkpoint: Path, masks: MaskSet, tmp_path: Path) -> None:
    folder = masks.save(tmp_path / "masks")
    code, out, error = clas(
        "export", folder, "--model", checkpoint, "--language", "hi", "--format", "ia3", "--out", tmp_path / "an export",
        "--revision", "main", "--trust-remote-code",
    )  # fmt: skip
    assert code == 0, error
    _, arguments, _ = copied(out)
    assert arguments == {
        "pretrained": str(checkpoint), "revision": "main", "peft": str(tmp_path / "an export"), "trust_remote_code": True,
    }  # fmt: skip
