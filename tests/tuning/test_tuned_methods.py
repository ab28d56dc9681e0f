"""Strengths of other methods than CLAS: measured with the first layers run once, kept by method, taken by their controls."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval.evaluator import evaluate
from rich.progress import Progress
from small_models import Run, make_model
from strengths_made import with_strengths
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ClasError, MaskSet, NeuronCategorizer, Profile
from lm_eval_clas.disk.files import shipped, write_text
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.neurons.residual_folder import ResidualProfile
from lm_eval_clas.steering.by_task import tuned_for
from lm_eval_clas.tuning.measuring import TuningPlan, grid
from lm_eval_clas.tuning.tuning_run import run_tuning

TASKS = ("clas_mini_nli_hi", "clas_mini_qa_de")


@pytest.mark.parametrize("method", ["diffmean", "incline", "arithmetic"])
def test_a_sweep_equals_separate_runs(tokenizer: PreTrainedTokenizerFast, full: MaskSet, tmp_path: Path, method: str) -> None:
    settings = grid(full, [0.2, -0.4], layers=[(2, 3), (4,)])
    sweep = Sweep(FastLM(make_model(), tokenizer=tokenizer, batch_size=2), full, settings, method=method)
    assert sweep._tape is not None
    separate = [
        CLASLM(make_model(), masks=full, tokenizer=tokenizer, batch_size=2, method=method, **setting.options())
        for setting in settings
    ]
    for name, task in load_tasks(list(TASKS), [str(shipped("tasks"))]).items():
        sweep.start(tmp_path / f"{name}.jsonl", lambda done, total: None)
        for number, lm in enumerate(separate):
            sweep.setting = number
            answers = [_answers(one, name, task) for one in (sweep, lm)]
            if task.OUTPUT_TYPE == "generate_until":
                assert answers[0] == answers[1]
            else:
                assert answers[0] == pytest.approx(answers[1], rel=1e-4)


def _answers(lm: Any, name: str, task: Any) -> list[Any]:
    samples = evaluate(lm, {name: task}, limit=3, bootstrap_iters=0)["samples"][name]
    first = [one["resps"][0][0] for one in samples]
    return [one[0] if isinstance(one, (tuple, list)) else one for one in first]


def test_strengths_are_kept_by_method_and_used(tokenizer: PreTrainedTokenizerFast, full: MaskSet, tmp_path: Path) -> None:
    found = load_tasks(["clas_mini_nli_hi"], [str(shipped("tasks"))])
    masks = full
    for method, alphas in (("clas", [-3.0, 2.0]), ("diffmean", [0.3, -0.2])):
        plan = TuningPlan(
            "m", "", masks.hash, ("clas_mini_nli_hi",), grid(masks, alphas), "loglikelihood", limit=4, method=method
        )
        with Progress(disable=True) as progress:
            run_tuning(
                plan,
                found,
                masks,
                tmp_path / method,
                tmp_path / "masks",
                load=lambda: FastLM(make_model(), tokenizer=tokenizer, batch_size=3),
                progress=progress,
            )
        masks = MaskSet.load(tmp_path / "masks")
    assert set(masks.config.tuned_methods) == {"diffmean"}
    tried = {
        method: [one.alpha for one in tuned_for(masks, method)["clas_mini_nli"]["hi"].measured]
        for method in ("clas", "diffmean")
    }
    assert tried == {"clas": [0, -3, 2], "diffmean": [0, -0.2, 0.3]}
    assert tuned_for(masks, "random-direction") == tuned_for(masks, "diffmean")
    assert tuned_for(masks, "uniform") == tuned_for(masks, "clas")
    lm = CLASLM(make_model(), masks=masks, tokenizer=tokenizer, alpha="tuned", method="random-direction", batch_size=4)
    evaluate(lm, found, limit=2, bootstrap_iters=0)
    told = lm.steering_info()
    chosen = masks.config.tuned_methods["diffmean"]["clas_mini_nli"]["hi"].chosen
    assert told["tuned"]["clas_mini_nli"]["hi"]["alpha"] == chosen.alpha
    assert told["residual_hash"] == masks.residual_hash
    assert told["seed"] == 0
    assert "beta" not in told
    if chosen.alpha:
        assert told["witness"]["hi in clas_mini_nli"]["layers"] == [2, 3, 4]


@pytest.mark.parametrize("method", ["diffmean", "random-direction", "incline", "arithmetic", "int-mu"])
def test_strengths_of_clas_are_no_others(full: MaskSet, method: str) -> None:
    tuned = with_strengths(full, {"clas_mini_nli": {"hi": 2.0}})
    of = "diffmean" if method == "random-direction" else method
    with pytest.raises(
        ClasError, match=f"needs strengths tuned for method={of}, .* run 'clas tune --method {of}' on them first"
    ):
        CLASLM("there/is-no-such-model", masks=tuned, alpha="tuned", method=method)


def test_strengths_in_layers_that_masks_know_nothing_of_are_refused_before_the_model_is_loaded(
    full: MaskSet, profiled: Profile, residual: ResidualProfile
) -> None:
    late = MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="3-4", keep_means=True)
    tuned = with_strengths(full, {"clas_mini_nli": {"hi": 0.1}}).config.tuned
    masks = late.with_residual(residual).with_tuned(tuned, "incline")
    with pytest.raises(ClasError, match="needs sentences of layers 2, and these masks have those of 3, 4"):
        CLASLM("there/is-no-such-model", masks=masks, alpha="tuned", method="incline")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "diffmean", "--betas", "0.1"), "--betas plays no role with --method diffmean; drop it."),
        (("--method", "best"), "--method must be one of clas, uniform, random, int-mu, arithmetic, diffmean"),
        (("--method", "incline", "--layers", "1-2"), "needs sentences of layers 1, and these masks have those of 2, 3, 4"),
    ],
)
def test_what_cannot_be_tuned_is_told_before_the_model_is_loaded(
    clas: Run, full: MaskSet, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    full.save(tmp_path / "masks")
    command = ("tune", "--model", "there/is-no-such-model", "--masks", tmp_path / "masks", "--tasks", "clas_mini_nli_hi")
    code, _, err = clas(*command, "--out", tmp_path / "out", *options)
    assert code == 2
    assert message in " ".join(err.split())


def test_a_run_goes_on_with_the_same_method_only(full: MaskSet, tmp_path: Path) -> None:
    plan = TuningPlan("m", "", full.hash, TASKS, grid(full, [0.1]), method="diffmean", measured=full.residual_hash)
    plan.claim(tmp_path)
    plan.claim(tmp_path)
    write_text(tmp_path / "scores" / "task.json", "{}")
    with pytest.raises(ClasError, match="holds a run with other method"):
        dataclasses.replace(plan, method="incline").claim(tmp_path)
    with pytest.raises(ClasError, match="holds a run with other measured"):
        dataclasses.replace(plan, measured="0").claim(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["method"] == "diffmean"
