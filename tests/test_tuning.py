"""Tuning: the sweep equals separate runs, survives kills, chooses honestly, and `alpha=tuned` uses what it chose."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import make_model
from lm_eval.evaluator import evaluate
from rich.progress import Progress
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ClasError, MaskSet
from lm_eval_clas.choosing import Unit, choose
from lm_eval_clas.fast import FastLM
from lm_eval_clas.files import shipped
from lm_eval_clas.journal import Journal
from lm_eval_clas.sweep import Sweep
from lm_eval_clas.tuned import Setting, Tuned, task_family
from lm_eval_clas.tuning import Recipe, grid, load_tasks, tunable
from lm_eval_clas.tuning_run import run_tuning

TASKS = ("clas_mini_nli_hi", "clas_mini_qa_de", "clas_mini_nli_zh")
Run = Callable[..., Tuned]


@pytest.fixture(scope="module")
def tasks() -> dict[str, Any]:
    return load_tasks(list(TASKS), [str(shipped("tasks"))])


def recipe(masks: MaskSet, **changes: Any) -> Recipe:
    settings = grid(masks, [-3, 0, 2])
    fixed = {"model": "m", "model_args": "", "masks": masks.hash, "tasks": TASKS, "settings": settings, "limit": 4}
    return Recipe(**{**fixed, **changes})


@pytest.fixture
def run(tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tasks: dict[str, Any], tmp_path: Path) -> Iterator[Run]:
    with Progress(disable=True) as progress:

        def go(folder: str = "run", load: Callable[[], Any] | None = None, **options: Any) -> Tuned:
            changes = {name: options.pop(name) for name in ("objective", "metric", "settings") if name in options}
            return run_tuning(
                recipe(masks, **changes),
                tasks,
                masks,
                tmp_path / folder,
                tmp_path / folder / "masks",
                load=load or (lambda: FastLM(make_model(), tokenizer=tokenizer, batch_size=3)),
                progress=progress,
                **options,
            )

        yield go


def values(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_bytes()) for path in sorted((folder / "scores").iterdir())}


def samples(lm: Any, name: str, task: Any, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = evaluate(lm, {name: task}, limit=limit, bootstrap_iters=0)["samples"][name]
    return found


def test_a_sweep_equals_separate_runs(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tasks: dict[str, Any], tmp_path: Path
) -> None:
    settings = grid(masks, [-3, 2], layers=[(2, 3), (4,)])
    sweep = Sweep(FastLM(make_model(), tokenizer=tokenizer, batch_size=2), masks, settings)
    separate = [
        CLASLM(make_model(), masks=masks, tokenizer=tokenizer, batch_size=2, **setting.options()) for setting in settings
    ]
    for name, task in tasks.items():
        sweep.start(tmp_path / f"{name}.jsonl", lambda done, total: None)
        for number, lm in enumerate(separate):
            sweep.setting = number
            for one, other in zip(samples(sweep, name, task, 5), samples(lm, name, task, 5), strict=True):
                assert one["doc_id"] == other["doc_id"]
                if task.OUTPUT_TYPE == "generate_until":
                    assert one["resps"] == other["resps"]
                else:
                    left = [answer[0][0] for answer in one["resps"]]
                    assert left == pytest.approx([answer[0][0] for answer in other["resps"]], rel=1e-4)


def test_a_run_writes_what_it_measured(run: Run, masks: MaskSet, tmp_path: Path) -> None:
    tuned = run()
    assert {family: set(by) for family, by in tuned.items()} == {"clas_mini_nli": {"hi", "zh"}, "clas_mini_qa": {"de"}}
    one = tuned["clas_mini_nli"]["hi"]
    assert one.metric == "acc"
    assert tuned["clas_mini_qa"]["de"].metric == "f1_lang"
    assert [measured.alpha for measured in one.measured] == [0, -3, 2]
    assert one.items == 4
    assert one.best.score == max(measured.score for measured in one.measured)
    folder = tmp_path / "run"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "scores.csv").read_text().count("\n") == 1 + 3 * 3
    assert not list((folder / "partial").iterdir())
    loaded = MaskSet.load(folder / "masks")
    assert loaded.config.tuned == tuned
    assert loaded.hash == masks.hash


def test_a_killed_run_goes_on_and_ends_the_same(run: Run, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    whole = run("whole")

    class KilledError(Exception):
        pass

    def dying() -> FastLM:
        lm = FastLM(make_model(), tokenizer=tokenizer, batch_size=3)
        score, left = lm._loglikelihood_tokens, 5

        def limited(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if not (left := left - 1):
                raise KilledError
            return score(*args, **kwargs)

        lm._loglikelihood_tokens = limited  # type: ignore[method-assign]
        return lm

    deaths = 0
    while True:
        try:
            again = run("again", load=dying)
            break
        except KilledError:
            deaths += 1
            for torn in (tmp_path / "again" / "partial").glob("*.jsonl"):
                torn.write_bytes(torn.read_bytes()[:-1] + b'\n{"kind": "loglik')  # as a kill in the middle of writing
            assert deaths < 10
    assert deaths > 1
    assert again == whole
    assert values(tmp_path / "again") == values(tmp_path / "whole")

    def must_not_load() -> FastLM:
        raise AssertionError

    assert run("again", load=must_not_load) == whole


def test_gold_log_likelihood_needs_no_generation(run: Run, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    def without_generation() -> FastLM:
        lm = FastLM(make_model(), tokenizer=tokenizer, batch_size=3)
        lm.generate_until = None  # type: ignore[method-assign, assignment]
        return lm

    tuned = run(load=without_generation, objective="loglikelihood")
    for by_language in tuned.values():
        for one in by_language.values():
            assert one.objective == "loglikelihood"
            assert all(measured.score < 0 for measured in one.measured)
            assert len({measured.score for measured in one.measured}) == 3


def test_tuned_strengths_are_used_by_task_and_language(
    run: Run, tokenizer: PreTrainedTokenizerFast, tasks: dict[str, Any], tmp_path: Path
) -> None:
    tuned = run(objective="loglikelihood")
    folder = tmp_path / "run" / "masks"
    lm = CLASLM(make_model(), masks=folder, alpha="tuned", tokenizer=tokenizer, batch_size=2)
    for language in ("hi", "zh"):
        name = f"clas_mini_nli_{language}"
        alpha = tuned["clas_mini_nli"][language].chosen.alpha
        assert alpha != 0
        fixed = CLASLM(make_model(), masks=folder, alpha=alpha, tokenizer=tokenizer, batch_size=2)
        mine, expected = samples(lm, name, tasks[name], 3), samples(fixed, name, tasks[name], 3)
        assert [one["resps"] for one in mine] == [one["resps"] for one in expected]
    info = lm.get_model_info()["clas"]
    assert info["alpha"] == "tuned"
    assert info["tuned"]["clas_mini_nli"]["hi"]["alpha"] == tuned["clas_mini_nli"]["hi"].chosen.alpha
    assert not info["left_alone"]
    untuned = load_tasks(["clas_mini_qa_hi"], [str(shipped("tasks"))])["clas_mini_qa_hi"]
    samples(lm, "clas_mini_qa_hi", untuned, 1)
    assert lm.get_model_info()["clas"]["left_alone"] == {"hi in clas_mini_qa": "not tuned"}


def test_tuned_needs_tuned_masks(masks: MaskSet, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ClasError, match="run 'clas tune'"):
        CLASLM(make_model(), masks=masks, alpha="tuned", tokenizer=tokenizer)


def test_a_run_folder_is_kept_to_one_run(run: Run) -> None:
    run()
    with pytest.raises(ClasError, match="other objective"):
        run(objective="loglikelihood")
    with pytest.raises(ClasError, match="has no metric 'bleu', only"):
        run("another", metric="bleu")


def unit(language: str, *rows: list[float], **changes: Any) -> Unit:
    return Unit("task", language, ("task",), "metric", "acc", "", rows, **changes)


def test_choosing_guards_and_shares() -> None:
    settings = (Setting(0, 0.4, 0.2, (1,)), Setting(1, 0.4, 0.2, (1,)), Setting(-2, 0.4, 0.2, (1,)))
    clear = unit("hi", [0.0] * 20, [1.0] * 18 + [0.0] * 2, [0.0] * 20)
    noise = unit("de", [0.0, 1.0] * 10, [0.0, 1.0] * 10, [1.0, 1.0] + [0.0, 1.0] * 9)
    free = choose([clear, noise], settings)["task"]
    assert (free["hi"].chosen.alpha, free["de"].chosen.alpha) == (1, -2)
    guarded = choose([clear, noise], settings, guard=True)["task"]
    assert (guarded["hi"].chosen.alpha, guarded["de"].chosen.alpha) == (1, 0)
    assert guarded["de"].best.alpha == -2
    shared = choose([clear, noise], settings, shared=True)["task"]
    assert (shared["hi"].chosen.alpha, shared["de"].chosen.alpha) == (1, 1)
    worse = choose([unit("hi", [0.0] * 9, [1.0] * 9, [-1.0] * 9, higher_is_better=False)], settings)["task"]["hi"]
    assert (worse.chosen.alpha, worse.chosen.score, worse.chosen.gain) == (-2, -1, 1)


def test_ties_keep_alpha_0() -> None:
    settings = (Setting(0, 0.4, 0.2, (1,)), Setting(-1, 0.4, 0.2, (1,)), Setting(1, 0.4, 0.2, (1,)))
    assert choose([unit("hi", [1.0, 0.0], [0.0, 1.0], [1.0, 0.0])], settings)["task"]["hi"].chosen.alpha == 0


def test_grid_and_tasks(masks: MaskSet) -> None:
    settings = grid(masks, [1, 0, -2, 1], betas=[0.2, 0.4], layers=[(2,), (3, 4)])
    assert settings[0].alpha == 0
    assert len(settings) == 1 + 2 * 2 * 2
    kept, skipped = tunable(["clas_xquad_tune_hi", "clas_xquad_tune_en", "clas_xquad_tune_ar", "some_task"], masks)
    assert kept == ["clas_xquad_tune_hi", "some_task"]
    assert "anchor" in skipped["clas_xquad_tune_en"]
    assert "'ar'" in skipped["clas_xquad_tune_ar"]
    with pytest.raises(ClasError, match="no task nonsense"):
        load_tasks(["nonsense"], [])


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("clas_xquad_tune_hi", "clas_xquad"),
        ("clas_xquad_hi", "clas_xquad"),
        ("xnli_zh", "xnli"),
        ("belebele_hin_Deva", "belebele"),
        ("global_mmlu_full_hi_virology", "global_mmlu_full_virology"),
        ("mgsm_direct_de", "mgsm_direct"),
        ("hellaswag", "hellaswag"),
        ("dev", "dev"),
    ],
)
def test_task_families(name: str, family: str) -> None:
    assert task_family(name, ("en", "hi", "de", "zh")) == family


def test_journal_ignores_what_is_torn_or_of_other_requests(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.write("k", "a", [0, 2], [[1.5], ["ü"]])
    journal.write("k", "b", [1], [[9]])
    with (tmp_path / "j.jsonl").open("ab") as file:
        file.write(b'{"kind": "k", "asked": "a", "positi')
    journal.write("k", "a", [1], [[[0.1, True]]])
    assert journal.read("k", "a") == {0: [1.5], 2: ["ü"], 1: [[0.1, True]]}
