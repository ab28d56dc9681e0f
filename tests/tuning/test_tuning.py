"""Tuning: the sweep equals separate runs, survives kills, chooses honestly, and `alpha=tuned` uses what it chose."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from prompts_seen import prompts_of
from rich.progress import Progress
from small_models import make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ClasError, MaskSet
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.commands.tune_command import _show_tuned
from lm_eval_clas.disk.files import shipped, write_text
from lm_eval_clas.disk.journal import Journal
from lm_eval_clas.harness.common.loaded_model import loaded_as
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.languages.task_names import task_family
from lm_eval_clas.masks.strengths import Setting, Tuned, document_hash, short_hashes
from lm_eval_clas.tuning.choosing import Unit, choose
from lm_eval_clas.tuning.curves import tuned_curves, unit_tuned_in
from lm_eval_clas.tuning.item_scores import ItemScores, LanguageItems
from lm_eval_clas.tuning.measuring import TuningPlan, grid, tunable, units
from lm_eval_clas.tuning.tuning_run import run_tuning

TASKS = ("clas_mini_nli_hi", "clas_mini_qa_de", "clas_mini_nli_zh")
Run = Callable[..., Tuned]


@pytest.fixture(scope="module")
def tasks() -> dict[str, Any]:
    return load_tasks(list(TASKS), [str(shipped("tasks"))])


def recipe(masks: MaskSet, **changes: Any) -> TuningPlan:
    settings = grid(masks, [-3, 0, 2])
    fixed = {"model": "m", "model_args": "", "masks": masks.hash, "tasks": TASKS, "settings": settings, "limit": 4}
    return TuningPlan(**{**fixed, **changes})


@pytest.fixture(scope="module")
def runs(tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tasks: dict[str, Any]) -> Iterator[Run]:
    """Runs whose first argument is the folder that theirs is to be in."""
    with Progress(disable=True) as progress:

        def go(place: Path, folder: str = "run", load: Callable[[], Any] | None = None, **options: Any) -> Tuned:
            changes = {name: options.pop(name) for name in ("objective", "metric", "settings") if name in options}
            return run_tuning(
                recipe(masks, **changes),
                tasks,
                masks,
                place / folder,
                place / folder / "masks",
                load=load or (lambda: FastLM(make_model(), tokenizer=tokenizer, batch_size=3)),
                progress=progress,
                **options,
            )

        yield go


@pytest.fixture
def run(runs: Run, tmp_path: Path) -> Run:
    return partial(runs, tmp_path)


@pytest.fixture(scope="module")
def made_once(runs: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuned]:
    """The folder of a run without options, and what it found."""
    place = tmp_path_factory.mktemp("made-once")
    return place / "run", runs(place)


@pytest.fixture
def tuned(made_once: tuple[Path, Tuned], tmp_path: Path) -> Tuned:
    """What a run without options found, which has its folder here."""
    shutil.copytree(made_once[0], tmp_path / "run")
    return copy.deepcopy(made_once[1])


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


class Apart(Processes):
    """Two processes, the other one of which has something else wherever texts are compared."""

    def gather(self, value: Any) -> list[Any]:
        return [value, f"not {value}"] if isinstance(value, str) else [value, value]


@pytest.mark.parametrize("where", ["each time", "in each process"])
def test_a_task_that_shuffles_by_chance_is_refused_and_its_answers_are_not_mixed_up(
    where: str, masks: MaskSet, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    lm = FastLM(make_model(), tokenizer=tokenizer, batch_size=3)
    processes = Apart(0, 2) if where == "in each process" else Processes()
    sweep = Sweep(lm, masks, grid(masks, [2]), processes=processes)
    sweep.start(tmp_path / "journal.jsonl", lambda done, total: None)
    choices = [Instance("loglikelihood", {}, ("q", one), 0, ("shuffled_hi", 0, 1)) for one in (" a", " b")]

    def ask_again() -> None:
        sweep.loglikelihood(choices)
        sweep.setting = 1
        sweep.loglikelihood(choices)  # the same: nothing is wrong
        sweep.loglikelihood(choices[::-1])

    with pytest.raises(ClasError, match=f"The task shuffled_hi asks something else {where}"):
        ask_again()


def test_a_run_writes_what_it_measured(tuned: Tuned, masks: MaskSet, tmp_path: Path) -> None:
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


def test_few_items_have_no_interval_and_the_command_says_so(
    tuned: Tuned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all((one.low, one.high) == (None, None) for by in tuned.values() for of in by.values() for one in of.measured)
    assert not any(curve.has_interval for curve in tuned_curves(tuned))
    rows = pd.read_csv(tmp_path / "run" / "scores.csv")
    assert rows[["low", "high"]].isna().all(axis=None)
    assert rows["gain"].notna().all()
    _show_tuned(tuned)
    told = " ".join(capsys.readouterr().out.split())
    assert "clas_mini_nli: no interval in hi, zh; fewer than 6 items or clusters are too few for one." in told
    assert "clas_mini_qa: no interval in de; " in told


def test_strengths_of_older_versions_with_few_clusters_are_read(tuned: Tuned, tmp_path: Path) -> None:
    path = tmp_path / "run" / "masks" / "clas_config.json"
    config = path.read_text()
    assert config.count('"low": null') == config.count('"high": null') == 3 * (3 + 2)  # measured, and the best and chosen
    path.write_text(config.replace('"low": null', '"low": -0.25').replace('"high": null', '"high": 0.25'))
    one = MaskSet.load(path.parent).config.tuned["clas_mini_qa"]["de"].best
    assert (one.low, one.high) == (-0.25, 0.25)


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
    assert list(info["witness"]) == ["zh in clas_mini_nli"]  # of the last run alone
    untuned = load_tasks(["clas_mini_qa_hi"], [str(shipped("tasks"))])["clas_mini_qa_hi"]
    samples(lm, "clas_mini_qa_hi", untuned, 1)
    assert lm.get_model_info()["clas"]["left_alone"] == {"hi in clas_mini_qa": "not tuned"}


class Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self.warnings.append(record.getMessage())


@pytest.fixture
def log() -> Iterator[Log]:
    ours, handler = logging.getLogger("lm_eval.models.hf_clas"), Log()
    ours.addHandler(handler)
    yield handler
    ours.removeHandler(handler)


def other_documents(task: Any, of: int) -> Any:
    """A copy of a task without its first documents."""
    changed = copy.copy(task)
    rest = list(task.eval_docs)[of:]
    changed.doc_iterator = lambda *, rank=0, world_size=1, limit=None, **options: list(enumerate(rest))[:limit]
    return changed


def test_a_run_like_its_tuning_on_other_items_says_nothing(
    tuned: Tuned, tokenizer: PreTrainedTokenizerFast, tasks: dict[str, Any], tmp_path: Path, log: Log
) -> None:
    lm = CLASLM(make_model(), masks=tmp_path / "run" / "masks", alpha="tuned", tokenizer=tokenizer, batch_size=2)
    for name, task in tasks.items():
        samples(lm, name, other_documents(task, 4), 3)
    assert lm.get_model_info()["clas"]["unlike_tuning"] == {}
    lm.loglikelihood([Instance("loglikelihood", {"a": 1}, ("x", " y"), 0, ("clas_mini_nli_hi", 0, 1))])  # built by no task
    assert not log.warnings


def test_a_run_unlike_its_tuning_says_so_once(
    tuned: Tuned, tokenizer: PreTrainedTokenizerFast, tasks: dict[str, Any], chatty: Path, tmp_path: Path, log: Log
) -> None:
    options: dict[str, Any] = {"masks": tmp_path / "run" / "masks", "alpha": "tuned", "batch_size": 2, "device": "cpu"}
    lm = CLASLM(str(chatty), **options, dtype="bfloat16", scoring="stock")
    names = ["clas_mini_nli_hi", "clas_mini_nli_zh", "clas_mini_qa_de"]
    shown = {name: copy.deepcopy(tasks[name]) for name in names}
    for task in shown.values():
        task.set_config(key="num_fewshot", value=1)
    found = {name: other_documents(task, 5) for name, task in shown.items()}
    evaluate(lm, found, limit=2, bootstrap_iters=0, apply_chat_template=True, fewshot_as_multiturn=True)
    assert log.warnings == [
        f"hf-clas: alpha=tuned is used for clas_mini_nli in 'hi' with {told}; another strength may be better here."
        for told in (
            "chat template on, tuned with off",
            "dtype bfloat16, tuned with float32",
            "number of shots 1, tuned with 0",
            "scoring path stock, tuned with fast",
        )
    ]
    info = json.loads(json.dumps(lm.get_model_info()["clas"]["unlike_tuning"]))
    assert set(info) == {"hi in clas_mini_nli", "zh in clas_mini_nli", "de in clas_mini_qa"}
    assert "number of shots 1, tuned with 0" in info["zh in clas_mini_nli"]
    assert "scoring path" not in info["de in clas_mini_qa"]  # generation has none
    assert lm.get_model_info()["clas"]["unlike_tuning"] == {}


def test_a_run_of_another_model_than_was_tuned_says_so(
    run: Run, checkpoint: Path, tasks: dict[str, Any], tmp_path: Path, log: Log
) -> None:
    base, same, other = (shutil.copytree(checkpoint, tmp_path / name) for name in ("a/base", "b/base", "c/other"))
    tuned = run(load=lambda: FastLM(str(base), device="cpu", batch_size=3))
    assert {(one.conditions.model, one.conditions.model_args) for by in tuned.values() for one in by.values()} == {("base", "")}
    options: dict[str, Any] = {"masks": tmp_path / "run" / "masks", "alpha": "tuned", "device": "cpu"}
    found = {name: other_documents(tasks[name], 4) for name in ("clas_mini_nli_hi", "clas_mini_qa_de")}
    lm = CLASLM(f"{same}/", batch_size=2, **options)  # one model may lie at two places
    evaluate(lm, found, limit=2, bootstrap_iters=0)
    assert not log.warnings
    lm = CLASLM(str(other), batch_size=2, add_bos_token=False, **options)
    evaluate(lm, found, limit=2, bootstrap_iters=0)
    assert [one.partition("in 'hi' with ")[2] for one in log.warnings] == [
        "model other, tuned with base; another strength may be better here.",
        "model arguments add_bos_token=False, tuned with none; another strength may be better here.",
    ]
    told = "model arguments add_bos_token=False, tuned with none; model other, tuned with base"
    assert lm.get_model_info()["clas"]["unlike_tuning"] == {"hi in clas_mini_nli": told, "de in clas_mini_qa": told}


@pytest.mark.parametrize(
    ("pretrained", "arguments", "model", "told"),
    [
        ("google/gemma-3-270m", {}, "gemma-3-270m", ""),
        ("/data/gemma-3-270m/", {"device": "cpu", "batch_size": 4, "dtype": "float16", "token": "secret"}, "gemma-3-270m", ""),
        ("/hub/models--google--gemma-3-270m/snapshots/0123abcd", {"revision": "main", "peft": None}, "gemma-3-270m", ""),
        ("a/b", {"revision": "v2", "peft": "/home/me/adapter", "load_in_4bit": True}, "b",
         "load_in_4bit=True,peft=adapter,revision=v2"),
        ("a/b", {"load_in_4bit": False, "add_bos_token": False}, "b", "add_bos_token=False"),
        (None, {"revision": "v2"}, None, None),
    ],
)  # fmt: skip
def test_a_model_is_told_by_the_end_of_its_path_and_by_what_decides_its_answers(
    pretrained: str | None, arguments: dict[str, Any], model: str | None, told: str | None
) -> None:
    assert loaded_as(pretrained, arguments) == {"model": model, "model_args": told}


def test_the_items_of_tuning_are_known_again(
    tuned: Tuned, tokenizer: PreTrainedTokenizerFast, tasks: dict[str, Any], tmp_path: Path, log: Log
) -> None:
    lm = CLASLM(make_model(), masks=tmp_path / "run" / "masks", alpha="tuned", tokenizer=tokenizer, batch_size=2)
    evaluate(lm, {"clas_mini_nli_hi": other_documents(tasks["clas_mini_nli_hi"], 2)}, limit=5, bootstrap_iters=0)
    assert log.warnings == [
        "hf-clas: alpha=tuned is used for clas_mini_nli in 'hi' with items that it was tuned on; their scores are too high: "
        "report another split."
    ]
    assert lm.get_model_info()["clas"]["unlike_tuning"] == {"hi in clas_mini_nli": "2 of the 4 items that it was tuned on"}


def test_masks_that_were_tuned_before_documents_had_marks_know_their_items(
    tuned: Tuned, tokenizer: PreTrainedTokenizerFast, tasks: dict[str, Any], tmp_path: Path, log: Log
) -> None:
    path = tmp_path / "run" / "masks" / "clas_config.json"
    config = json.loads(path.read_text())
    task = tasks["clas_mini_nli_hi"]
    before = [{name: value for name, value in doc.items() if name != "cluster"} for doc in list(task.eval_docs)[:4]]
    hashes = short_hashes(map(document_hash, before))
    recorded = config["tuned"]["clas_mini_nli"]["hi"]
    assert not set(hashes.split()) & set(recorded["documents"].split())
    recorded["documents"] = hashes
    path.write_text(json.dumps(config))
    lm = CLASLM(make_model(), masks=path.parent, alpha="tuned", tokenizer=tokenizer, batch_size=2)
    evaluate(lm, {"clas_mini_nli_hi": other_documents(task, 1)}, limit=5, bootstrap_iters=0)
    assert len(log.warnings) == 1
    assert lm.get_model_info()["clas"]["unlike_tuning"] == {"hi in clas_mini_nli": "3 of the 4 items that it was tuned on"}


def test_tasks_over_the_same_passages_are_tuned_on_the_same_clusters(masks: MaskSet) -> None:
    """Four passages of three questions in each of two tasks."""
    passage = "The night train leaves the capital at nine in the evening and reaches the coast at dawn"
    docs = {name: [{"context": f"{passage} {number // 3}"} for number in range(12)] for name in ("made_hi", "made_dev_hi")}
    made = {
        name: SimpleNamespace(eval_docs=its, aggregation=lambda: {"acc": None}, higher_is_better=dict)
        for name, its in docs.items()
    }
    scores = [
        ItemScores(
            task=name,
            objective="metric",
            metric="acc",
            languages={"hi": LanguageItems(documents=[(name, n, "a" * 64) for n in range(12)], values=[[1.0] * 12])},
        )
        for name in made
    ]
    found = {name: units(scores, made, masks, cluster=name)[0] for name in ("none", "context")}
    (unclear,) = units(scores, made, masks)
    assert unclear.tasks == ("made_hi", "made_dev_hi")
    assert found["none"].clusters is not None
    assert found["none"].clusters.count == 24
    for one in (found["context"], unclear):
        assert one.clusters is not None
        assert one.clusters.numbers.tolist() == [number // 3 for number in range(12)] * 2
        assert one.cluster_fields == ("context",)


def test_what_older_masks_do_not_record_is_not_compared(
    tuned: Tuned, tokenizer: PreTrainedTokenizerFast, tasks: dict[str, Any], tmp_path: Path, log: Log
) -> None:
    path = tmp_path / "run" / "masks" / "clas_config.json"
    config = json.loads(path.read_text())
    for by_language in config["tuned"].values():
        for one in by_language.values():
            for name in ("conditions", "documents", "dropped"):
                del one[name]
    path.write_text(json.dumps(config))
    lm = CLASLM(make_model(), masks=path.parent, alpha="tuned", tokenizer=tokenizer, batch_size=2, scoring="stock")
    samples(lm, "clas_mini_nli_hi", tasks["clas_mini_nli_hi"], 2)
    assert lm.get_model_info()["clas"]["unlike_tuning"] == {}
    assert not log.warnings


def test_tuned_needs_tuned_masks(masks: MaskSet, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ClasError, match="run 'clas tune'"):
        CLASLM(make_model(), masks=masks, alpha="tuned", tokenizer=tokenizer)


@pytest.mark.usefixtures("tuned")
def test_a_run_folder_is_kept_to_one_run(run: Run) -> None:
    with pytest.raises(ClasError, match="other objective"):
        run(objective="loglikelihood")
    with pytest.raises(ClasError, match="has no metric 'bleu', only"):
        run("another", metric="bleu")


def test_a_run_that_measured_nothing_makes_room_for_another(masks: MaskSet, tmp_path: Path) -> None:
    recipe(masks, model="no-such-model").claim(tmp_path)
    plan = recipe(masks, model="model")
    plan.claim(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["model"] == "model"
    write_text(tmp_path / "partial" / "task.jsonl.1", "")
    with pytest.raises(ClasError, match="holds a run with other model; give another --out, or delete it"):
        recipe(masks, model="another").claim(tmp_path)


@pytest.mark.parametrize("added", [False, True])
def test_a_folder_of_a_run_notices_other_weights_in_the_same_place(
    checkpoint: Path, masks: MaskSet, tmp_path: Path, added: bool
) -> None:
    local = shutil.copytree(checkpoint, tmp_path / "model")
    named = {"model": "user/name", "model_args": f"dtype=auto,peft={local}"} if added else {"model": str(local)}
    plan, folder = recipe(masks, **named), tmp_path / "run"
    plan.claim(folder)
    write_text(folder / "scores" / "task.json", "{}")
    for path in local.iterdir():
        os.utime(path, (1, 1))
    plan.claim(folder)  # as after they were copied
    make_model(seed=1).save_pretrained(local)
    with pytest.raises(ClasError, match="holds a run with other weights; give another --out"):
        plan.claim(folder)
    known = json.loads((folder / "run.json").read_bytes())
    del known["weights"]
    (folder / "run.json").write_text(json.dumps(known))
    plan.claim(folder)  # a run of before weights were looked at


def unit(language: str, *rows: list[float], **changes: Any) -> Unit:
    return Unit("task", language, ("task",), "metric", "acc", "", rows, **changes)


@pytest.mark.parametrize(
    ("objective", "metric", "scores", "told"),
    [
        ("metric", "f1_lang", [0.25, 0.5], "points"),
        ("metric", "nats_per_byte", [-0.5, -0.25], "nats per byte"),
        ("metric", "word_perplexity", [0.5, 0.75], "word_perplexity"),
        ("metric", "some_count", [3.0, 4.0], "some_count"),
        ("loglikelihood", "log-likelihood of the gold answer", [-0.5, -0.25], "nats"),
    ],
)
def test_a_strength_is_told_in_the_unit_of_its_scores(objective: str, metric: str, scores: list[float], told: str) -> None:
    settings = [Setting(alpha, 0.4, 0.2, (2, 3)) for alpha in (0.0, 1.0)]
    made = replace(unit("hi", *([one] * 8 for one in scores)), objective=objective, metric=metric)
    tuned = choose([made], settings)
    assert unit_tuned_in(tuned["task"]["hi"]).name == tuned_curves(tuned)[0].unit == told


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


def test_one_strength_for_all_needs_gains_in_one_unit() -> None:
    settings = (Setting(0, 0.4, 0.2, (1,)), Setting(1, 0.4, 0.2, (1,)), Setting(-2, 0.4, 0.2, (1,)))
    points = unit("hi", [0.0] * 8, [0.25] * 8, [0.0] * 8)
    nats = replace(unit("hi", [-9.0] * 8, [-9.5] * 8, [-8.0] * 8), family="gold", metric="nats_per_byte")
    assert {family: by["hi"].chosen.alpha for family, by in choose([points, nats], settings).items()} == {"task": 1, "gold": -2}
    with pytest.raises(ClasError, match=r"gains have none \(task in points; gold in nats per byte\); tune tasks of one unit"):
        choose([points, nats], settings, shared=True)
    likely = [replace(one, objective="loglikelihood", metric="of the gold answer") for one in (points, nats)]
    assert {by["hi"].chosen.alpha for by in choose(likely, settings, shared=True).values()} == {-2}
    # Of a metric of our own, 0.5 could be a share, if it were not 3 elsewhere.
    counts = [replace(unit(code, [0.0] * 8, [one] * 8, [0.0] * 8), metric="words") for code, one in (("hi", 0.5), ("de", 3.0))]
    assert {one.chosen.alpha for one in choose(counts, settings, shared=True)["task"].values()} == {1}


def test_gains_without_a_mean_are_refused_before_the_model_is_loaded(
    masks: MaskSet, tasks: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks["clas_mini_qa_de"], "aggregation", lambda: {"nats_per_byte": None})
    with Progress(disable=True) as progress, pytest.raises(ClasError, match="clas_mini_qa_de in nats per byte"):
        run_tuning(
            recipe(masks),
            tasks,
            masks,
            tmp_path / "run",
            tmp_path / "masks",
            load=must_not_load,
            progress=progress,
            shared=True,
        )


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
    pairs = ["wmt16-de-en", "mt_en-hi", "flores_hin_Deva-deu_Latn"]
    assert tunable(pairs, masks)[0] == pairs[1:]
    assert tunable(pairs, masks, "source")[0] == [pairs[0], pairs[2]]
    kept, skipped = tunable([*pairs, "some_task"], masks, "off")
    assert (kept, list(skipped)) == (["some_task"], pairs)
    assert skipped["mt_en-hi"] == "its name has two languages, 'en' and 'hi', and neither counts"
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


def test_prompts_have_the_examples_and_the_template_that_were_asked_for(
    clas: Callable[..., Any], chatty: Path, masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts_of(FastLM, monkeypatch)
    found: dict[str, list[str]] = {}
    for name, options in {"plain": [], "shots": ["--num-fewshot", 2], "chat": ["--apply-chat-template"]}.items():
        asked.clear()
        masks.save(tmp_path / name)
        arguments = [
            "--tasks",
            "clas_mini_nli_hi",
            "--alphas",
            1,
            "--limit",
            2,
            "--device",
            "cpu",
            "--out",
            tmp_path / f"{name}-run",
        ]
        code, _, error = clas("tune", "--model", chatty, "--masks", tmp_path / name, *arguments, *options)
        assert code == 0, error
        found[name] = sorted(set(asked))
    assert len(found["plain"]) == 2
    for prompt in found["shots"]:
        assert prompt.count("\n\n") == 2
        assert any(prompt.endswith(plain) for plain in found["plain"])
    assert all("<user>" in prompt for prompt in found["chat"])
    recorded = MaskSet.load(tmp_path / "shots").config.tuned["clas_mini_nli"]["hi"].conditions
    assert recorded.model_dump() == {
        "num_fewshot": 2, "apply_chat_template": False, "dtype": "float32", "scoring": "fast", "model": "small-llama",
        "model_args": "",
    }  # fmt: skip
    assert MaskSet.load(tmp_path / "chat").config.tuned["clas_mini_nli"]["hi"].conditions.apply_chat_template


def overflowing(lm: FastLM, alpha: float, item: str) -> FastLM:
    """The model, with log-likelihoods that are no numbers for one item's prompt at one strength."""
    answer = lm.loglikelihood

    def spoiled(requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        answers = answer(requests, disable_tqdm)
        strengths = [steerer.steering.alpha for steerer in STEERERS if steerer._open_blocks]
        if (strengths[0] if strengths else 0) != alpha:
            return answers
        return [(math.nan, False) if item in one.args[0] else two for one, two in zip(requests, answers, strict=True)]

    lm.loglikelihood = spoiled  # type: ignore[method-assign]
    return lm


STEERERS: list[Any] = []


@pytest.fixture
def spoiled(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast, tasks: dict[str, Any]
) -> Callable[..., FastLM]:
    from lm_eval_clas.harness import sweep

    class Remembered(sweep.ActivationSteerer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            STEERERS.append(self)

    STEERERS.clear()
    monkeypatch.setattr(sweep, "ActivationSteerer", Remembered)

    def load(alpha: float, name: str = "clas_mini_nli_hi", number: int = 2) -> FastLM:
        task = tasks[name]
        text = task.doc_to_text(dict(enumerate(task.eval_docs))[number])
        return overflowing(FastLM(make_model(), tokenizer=tokenizer, batch_size=3), alpha, text)

    return load


def must_not_load() -> FastLM:
    raise AssertionError


@pytest.mark.parametrize("objective", ["metric", "loglikelihood"])
def test_a_strength_without_a_finite_score_is_left_out_and_the_rest_is_kept(
    run: Run, spoiled: Callable[..., FastLM], tmp_path: Path, capsys: pytest.CaptureFixture[str], objective: str
) -> None:
    tuned = run(load=lambda: spoiled(2), objective=objective)
    one = tuned["clas_mini_nli"]["hi"]
    assert [measured.alpha for measured in one.measured] == [0, -3]
    assert [dropped.alpha for dropped in one.dropped] == [2]
    assert "item 2 of clas_mini_nli_hi is not a finite number" in one.dropped[0].why
    assert one.chosen.alpha in (0, -3)
    others = [tuned["clas_mini_nli"]["zh"], tuned["clas_mini_qa"]["de"]]
    assert all(len(other.measured) == 3 and not other.dropped for other in others)

    strict = json.loads((tmp_path / "run" / "scores" / "clas_mini_nli_hi.json").read_text(), parse_constant=pytest.fail)
    assert [row.count(None) for row in strict["languages"]["hi"]["values"]] == [0, 0, 1]
    json.loads((tmp_path / "run" / "tuned.json").read_text(), parse_constant=pytest.fail)
    rows = pd.read_csv(tmp_path / "run" / "scores.csv").set_index(["task", "language", "alpha"])
    assert rows.loc[("clas_mini_nli", "hi", 2.0), ["score", "gain", "low", "high"]].isna().all()
    assert len(rows) == 9
    assert MaskSet.load(tmp_path / "run" / "masks").config.tuned == tuned
    curve = next(curve for curve in tuned_curves(tuned) if curve.language == "hi")
    assert (curve.alphas, curve.missing) == ([-3, 0], [2])

    assert run(load=must_not_load, objective=objective) == tuned
    assert run(load=must_not_load, objective=objective, shared=True)["clas_mini_nli"]["zh"].chosen.alpha != 2


def test_a_language_without_a_finite_score_at_alpha_0_is_left_out(
    run: Run, spoiled: Callable[..., FastLM], tmp_path: Path
) -> None:
    tuned = run(load=lambda: spoiled(0))
    assert {family: set(by) for family, by in tuned.items()} == {"clas_mini_nli": {"zh"}, "clas_mini_qa": {"de"}}
    assert run(load=must_not_load) == tuned


def test_what_is_left_out_is_told_once_with_task_language_item_and_strength() -> None:
    settings = (
        Setting(0, 0.4, 0.2, (1,)),
        Setting(1, 0.4, 0.2, (1,)),
        Setting(2, 0.4, 0.2, (1,)),
        Setting(2, 0.4, 0.1, (1, 2)),
    )
    documents = [("task_hi", 7, "a" * 64), ("task_hi", 9, "b" * 64)]
    told: list[str] = []
    good = unit("de", [0.0, 1.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0])
    bad = unit("hi", [0.0, 0.0], [1.0, 1.0], [9.0, None], [None, None], documents=documents)
    spoiled = unit("zh", [None, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], documents=documents)
    tuned = choose([good, bad, spoiled], settings, shared=True, report=told.append)
    assert told == [
        "task in hi: alpha 2, beta 0.4, gamma 0.2, layers 1 is left out: acc of item 9 of task_hi is not a finite number "
        "there.",
        "task in hi: alpha 2, beta 0.4, gamma 0.1, layers 1-2 is left out: acc of item 7 of task_hi (and 1 more) is not a "
        "finite number there.",
        "task in zh is not tuned: acc of item 7 of task_hi is not a finite number at alpha 0.",
    ]
    assert {language: one.chosen.alpha for language, one in tuned["task"].items()} == {"de": 1, "hi": 1}
    assert choose([good, bad], settings)["task"]["de"].chosen.alpha == 2


def test_a_metric_of_all_items_that_overflows_drops_its_strength() -> None:
    def perplexity(items: Any) -> float:
        return math.exp(-sum(items) / len(items))

    told: list[str] = []
    settings = (Setting(0, 0.4, 0.2, (1,)), Setting(1, 0.4, 0.2, (1,)), Setting(8, 0.4, 0.2, (1,)))
    values = ([-1.0, -2.0], [-1.0, -1.0], [-2000.0, -1.0])
    one = choose([unit("hi", *values, aggregate=perplexity, higher_is_better=False)], settings, report=told.append)["task"][
        "hi"
    ]
    assert told == [
        "task in hi: alpha 8 is left out: acc over all items, or without one of them, is not a finite number there."
    ]
    assert one.chosen.alpha == 1


def test_nothing_finite_is_one_sentence_and_keeps_the_scores(
    run: Run, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    def ruined() -> FastLM:
        lm = FastLM(make_model(), tokenizer=tokenizer, batch_size=3)
        answer = lm.loglikelihood  # the model runs, as one that does not has no score at all
        lm.loglikelihood = lambda requests, disable_tqdm=False: [(math.nan, False) for _ in answer(requests, disable_tqdm)]  # type: ignore[method-assign]
        return lm

    with pytest.raises(ClasError, match=r"Nothing is tuned: every task and language has .* kept in '.*scores'"):
        run(load=ruined, objective="loglikelihood")
    assert len(values(tmp_path / "run")) == 3


def test_a_metric_that_only_some_documents_have(run: Run, tasks: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    task = tasks["clas_mini_nli_hi"]
    own = task.process_results
    second = dict(enumerate(task.eval_docs))[1]

    def some(doc: Any, results: Any) -> dict[str, Any]:
        return {"other": 1.0} if doc == second else own(doc, results)

    monkeypatch.setattr(task, "process_results", some)
    tuned = run()
    assert tuned["clas_mini_nli"]["hi"].items == 3
    monkeypatch.setattr(task, "process_results", lambda doc, results: {"other": 1.0})
    assert set(run("none")["clas_mini_nli"]) == {"zh"}


@pytest.mark.parametrize("kind", ["another", "fewer"])
def test_kept_scores_of_other_documents_are_refused(
    run: Run, tuned: Tuned, tasks: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    task = tasks["clas_mini_nli_zh"]
    docs = list(task.eval_docs)
    others = {"another": [{**doc, "more": at} if at == 2 else doc for at, doc in enumerate(docs)], "fewer": docs[:2]}
    (tmp_path / "run" / "scores" / "clas_mini_qa_de.json").unlink()  # whose turn comes before, and needs the model
    with monkeypatch.context() as patched:
        patched.setattr(task, "test_docs", lambda: others[kind])
        with pytest.raises(
            ClasError, match=r"clas_mini_nli_zh\.json' has scores of other documents .* \(number 2 is the first"
        ):
            run(load=must_not_load)
    assert run() == tuned


def test_documents_are_known_without_the_mark_of_what_hangs_together() -> None:
    """Scores may have been kept before documents of our tasks had one."""
    digest = document_hash({"question": "?"})
    scores = ItemScores(
        task="made_hi",
        objective="metric",
        metric="acc",
        languages={"hi": LanguageItems(documents=[("made_hi", 0, digest)], values=[[1.0]])},
    )
    for doc in ({"question": "?"}, {"question": "?", "cluster": "passage 1"}):
        scores.require_documents([doc], Path("made_hi.json"))
    with pytest.raises(ClasError, match="number 0 is the first"):
        scores.require_documents([{"question": "!"}], Path("made_hi.json"))


@pytest.mark.parametrize(
    "content",
    [
        "{", "[]", "null", '{"task": "clas_mini_nli_hi"}', '{"other": 1}', "[" * 100_000, "\xff",
        '{"task": "x", "objective": "metric", "metric": "acc", "languages": {}}',
        '{"task": "clas_mini_nli_hi", "objective": "o", "metric": "acc", "languages": {"hi": {"documents": [], "values": []}}}',
    ],
)  # fmt: skip
def test_damaged_scores_name_their_file(run: Run, tmp_path: Path, content: str) -> None:
    path = tmp_path / "run" / "scores" / "clas_mini_nli_hi.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ClasError, match=r"scores/clas_mini_nli_hi.json' is damaged .* measures the task again"):
        run()
