"""What is concluded from what vLLM answers, with a stand-in for vLLM: nothing wrong passes, and no family ends the others."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.families import vllm_trial
from lm_eval_clas.families.family_trial import WRONG
from lm_eval_clas.families.random_masks import random_masks
from lm_eval_clas.families.tiny_models import tiny_model
from lm_eval_clas.families.tried_in_vllm import BREAKS, BY_TRANSFORMERS, NOT_THERE, NOT_TRIED, OTHERWISE, WORKS
from lm_eval_clas.families.vllm_trial import Answers, cell_in_vllm, vllm_cells
from lm_eval_clas.steering.language_factors import LanguageFactors


def answers(**moved: float) -> Answers:
    """Of each language and of None, moved by so much."""
    scores = -torch.arange(1.0, 9.0)
    return {one: [vllm_trial._Continued([1, 2], scores + moved.get(str(one), 0.0))] for one in (None, "en", "de", "hi")}


RIGHT = answers(de=0.5, hi=-0.5)
ELSEWHERE = answers(en=1.0, de=1.5, hi=0.5)  # what another code gives, all of it moved by 1


class Engine:
    """In the place of vLLM's: whose code it runs, and what it answers."""

    def __init__(self, given: Answers, module: str = "vllm.model_executor.models.llama") -> None:
        self.given, self.module = given, module

    def apply_model(self, _: Any) -> list[str]:
        return [self.module]


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    model = tiny_model("llama")
    model.config.save_pretrained(tmp_path / "plain")  # type: ignore[union-attr, operator]
    monkeypatch.setattr(vllm_trial, "_answers", lambda engine, _: engine.given)

    def cell(plain: Engine, steered: Answers | Exception, of_merged: Answers = RIGHT, config: Exception | None = None) -> str:
        def engine(checkpoint: Path) -> Engine:
            return plain if checkpoint.name == "plain" else Engine(dict.fromkeys(of_merged, of_merged["de"]))

        def answered(*_: Any) -> Answers:
            if isinstance(steered, Exception):
                raise steered
            return steered

        class Arguments:
            def __init__(self, **_: Any) -> None:
                pass

            def create_model_config(self) -> None:
                if config is not None:
                    raise config

        monkeypatch.setattr(vllm_trial, "_engine", engine)
        monkeypatch.setattr(vllm_trial, "_vllm", lambda name: Arguments)
        monkeypatch.setattr(vllm_trial._Trial, "_steered", answered)
        return vllm_trial._Trial(tmp_path, RIGHT, LanguageFactors(random_masks(model), alpha=-3.0), None).cell()

    return cell


def test_what_is_steered_as_in_transformers(trial: Any) -> None:
    assert trial(Engine(answers()), RIGHT) == WORKS
    assert trial(Engine(answers(), "vllm.model_executor.models.transformers"), RIGHT) == f"{WORKS}, {BY_TRANSFORMERS}"


def test_where_vllm_itself_differs_its_own_answer_with_scaled_weights_decides(trial: Any) -> None:
    plain = Engine(answers(en=1.0, de=1.0, hi=1.0))
    assert trial(plain, ELSEWHERE, ELSEWHERE) == f"{WORKS}; {OTHERWISE}"
    assert trial(plain, ELSEWHERE, RIGHT) == WRONG


@pytest.mark.parametrize(
    "steered",
    [
        answers(de=0.5, hi=-0.5, en=1e-6),  # a bit of the anchor, which has no row
        answers(de=0.5, hi=-0.4),
        answers(de=0.5),  # one language alone
        answers(de=-0.5, hi=0.5),  # each by the other's row
        answers(),  # nothing
        {**RIGHT, "hi": [vllm_trial._Continued([1, 3], RIGHT["hi"][0].scores)]},  # another token
    ],
)
def test_nothing_wrong_passes(steered: Answers, trial: Any) -> None:
    assert trial(Engine(answers()), steered) == WRONG


def test_why_it_is_not_steered(trial: Any) -> None:
    plain = Engine(answers())
    for said, cell in {
        "1 validation error\n  Value error, Model architectures ['X'] are not supported for now. Supported": NOT_THERE,
        "X has no vLLM implementation and the Transformers implementation is not compatible with vLLM.": NOT_THERE,
        "1 validation error\n  Value error, something": f"{BREAKS}: RuntimeError: something",
        "No file in '/folder/plain' at all\nmore": f"{BREAKS}: RuntimeError: No file in the checkpoint at all",
    }.items():
        assert trial(plain, RIGHT, config=RuntimeError(said)) == cell
    assert trial(plain, RIGHT, config=ValueError("Model architectures ['X'] failed to be inspected.")).startswith(NOT_TRIED)
    with pytest.raises(ClasError, match="why"):
        trial(plain, ClasError("why"))


def test_a_family_that_cannot_be_built_is_not_tried() -> None:
    assert cell_in_vllm("no such family").startswith(f"{NOT_TRIED}: KeyError")


def _by_name(family: str) -> str:
    if family == "ends":
        os._exit(7)
    if family == "hangs":
        time.sleep(60)
    return "a cell"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_one_family_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_trial, "_ready", lambda: None)
    monkeypatch.setattr(vllm_trial, "cell_in_vllm", _by_name)
    monkeypatch.setattr(vllm_trial, "ENVIRONMENT", {})
    assert dict(vllm_cells(["ends", "another"], 60)) == {
        "ends": f"{BREAKS}: its process ended with exit code 7",
        "another": "a cell",
    }
    assert list(vllm_cells(["hangs"], 1)) == [("hangs", f"{NOT_TRIED}: it took more than 1 seconds")]
