"""What a run tells of its steering is of that run alone, and a run that steered nothing has no score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.model import CachingLM
from lm_eval.evaluator import evaluate, simple_evaluate
from lm_eval.tasks import TaskManager
from requests_made import clas as hf_clas
from small_models import Run, make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ClasError, MaskSet
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.masks.strengths import Setting
from lm_eval_clas.tuning.measuring import TuningPlan, measure_settings

TASKS = ("clas_mini_nli_hi", "clas_mini_qa_de")


@pytest.fixture(scope="module")
def tasks() -> dict[str, Any]:
    return load_tasks(list(TASKS), [str(shipped("tasks"))])


def without_a_layer(model: Any) -> None:
    """The MLP of a bridge layer is left out, as an exit or a kernel of another make would do it."""
    model.model.layers[3].mlp.forward = lambda hidden: hidden


def test_a_run_that_broke_off_leaves_nothing_to_the_next(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tasks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its requests were answered, and before the harness asked what was steered."""
    lm = hf_clas(tokenizer, masks, alpha=4, scoring="fast")
    hindi, german = ({name: tasks[name]} for name in TASKS)
    with monkeypatch.context() as patched:
        patched.setattr(tasks[TASKS[0]], "process_results", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate(lm, hindi, limit=2, bootstrap_iters=0)
    assert set(lm.steering_info()["witness"]) == {"hi"}
    evaluate(lm, german, limit=2, bootstrap_iters=0)
    info = lm.get_model_info()["clas"]
    assert (set(info["languages"]), set(info["witness"])) == ({"de"}, {"de"})


def test_a_run_that_a_cache_answers_tells_nothing_of_one_that_broke_off(
    tokenizer: PreTrainedTokenizerFast,
    masks: MaskSet,
    tasks: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = hf_clas(tokenizer, masks, alpha=4, scoring="fast")
    german = {TASKS[1]: tasks[TASKS[1]]}
    with monkeypatch.context() as patched:
        patched.setattr(tasks[TASKS[1]], "process_results", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate(CachingLM(lm, str(tmp_path / "cache.db")), german, limit=2, bootstrap_iters=0)
    assert set(lm.steering_info()["witness"]) == {"de"}
    evaluate(CachingLM(lm, str(tmp_path / "cache.db")), german, limit=2, bootstrap_iters=0)
    info = lm.get_model_info()["clas"]
    assert info["languages"] == {"de": {"requests": 2, "recognized": {"doc": 2}, "from_cache": 2}}
    assert info["witness"] == {}


def test_a_run_of_two_kinds_of_requests_is_one(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tasks: dict[str, Any]
) -> None:
    lm = hf_clas(tokenizer, masks, alpha=4, scoring="fast")
    evaluate(lm, tasks, limit=2, bootstrap_iters=0)
    assert set(lm.get_model_info()["clas"]["witness"]) == {"hi", "de"}


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    original = CLASLM.__init__

    def init(self: CLASLM, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        without_a_layer(self.model)

    monkeypatch.setattr(CLASLM, "__init__", init)


def test_clas_eval_ends_with_one_sentence_and_no_score(
    clas: Run, checkpoint: Path, masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks.save(tmp_path / "masks")
    broken(monkeypatch)
    code, _, error = clas(
        "eval", "--model", "hf-clas", "--model_args", f"pretrained={checkpoint},masks={tmp_path / 'masks'},alpha=2",
        "--tasks", "clas_mini_qa_hi", "--limit", 2, "--device", "cpu", "--output_path", tmp_path / "out",
    )  # fmt: skip
    assert code == 2
    assert "Error: 2 requests in 'hi' were to be steered, but no position was in layers 3, so there is no score" in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("out/**/*.json"))


def test_lm_eval_raises_the_same_sentence(
    checkpoint: Path, masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks.save(tmp_path / "masks")
    broken(monkeypatch)
    with pytest.raises(ClasError, match="2 requests in 'hi' were to be steered, but no position was in layers 3"):
        simple_evaluate(
            model="hf-clas",
            model_args=f"pretrained={checkpoint},masks={tmp_path / 'masks'},alpha=2",
            tasks=["clas_mini_qa_hi"],
            limit=2,
            bootstrap_iters=0,
            device="cpu",
            task_manager=TaskManager(include_path=str(shipped("tasks")), include_defaults=False),
        )


@pytest.mark.parametrize("resume", [True, False])
def test_tuning_measures_no_strength_that_steered_nothing(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tasks: dict[str, Any], tmp_path: Path, resume: bool
) -> None:
    settings = tuple(Setting(alpha, masks.config.beta, masks.config.gamma, masks.bridge_layers) for alpha in (0.0, 2.0))
    plan = TuningPlan(model="m", model_args="", masks=masks.hash, tasks=TASKS, settings=settings, limit=2)
    lm = FastLM(make_model(), tokenizer=tokenizer, batch_size=3)
    sweep = Sweep(lm, masks, settings, resume)
    without_a_layer(lm.model)
    with pytest.raises(ClasError, match=r"\d+ requests at alpha 2 in 'hi' were to be steered, but no position was in layers 3"):
        measure_settings(sweep, TASKS[0], tasks[TASKS[0]], plan, tmp_path, lambda *_: None)
    assert not list(tmp_path.glob("scores/*"))
