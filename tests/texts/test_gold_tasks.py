"""The tasks of gold answers: the items and prompts of their namesakes, and scores that a slow computation confirms."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
import hub_data
import pytest
import torch
from lm_eval.tasks import TaskManager
from logged_runs import logged_run
from rich.progress import Progress
from small_models import Run, make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import ClasError, MaskSet
from lm_eval_clas.comparing.compare_runs import compare
from lm_eval_clas.comparing.results_files import read_runs
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.task_loading import tasks_of
from lm_eval_clas.texts.gold_measures import gold_rank, nats_per_byte
from lm_eval_clas.texts.prompt_words import WORDS
from lm_eval_clas.tuning.gold_answers import GoldAnswers
from lm_eval_clas.tuning.measuring import TuningPlan, grid
from lm_eval_clas.tuning.tuning_run import run_tuning

PASSAGES = {
    "hi": [("नदी गाँव के पास बहती है।", ["नदी", "गाँव के पास", "नदी"]), ("राम ने सेब खाया।", ["राम", "सेब"])],
    "de": [("Der Fluss ist alt.", ["Der Fluss", "alt", "Der Fluss"]), ("Anna trinkt Tee.", ["Anna", "Tee"])],
}
PAIRS = {"hi": ("वह घर गया।", "वह गया।"), "de": ("Er ging heim.", "Er ging.")}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """XQuAD and XNLI of a few rows, in two languages."""

    def load_dataset(path: str, name: str, **_: Any) -> dict[str, datasets.Dataset]:
        language = name.split(".")[-1]
        if path == "google/xquad":
            asked = [(passage, answer) for passage, answers in PASSAGES[language] for answer in answers]
            rows = [
                {"id": f"q{number}", "context": passage, "question": f"? {number}", "answers": {"text": [answer]}}
                for number, (passage, answer) in enumerate(asked)
            ]
            parts = {"validation": rows}
        else:
            premise, hypothesis = PAIRS[language]
            rows = [{"premise": premise, "hypothesis": hypothesis, "label": label} for label in range(3)]
            parts = {"validation": rows * 830, "test": rows}
        made = {split: datasets.Dataset.from_list(rows) for split, rows in parts.items()}
        for one in made.values():
            one.info.config_name = name
        return made

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def load(*names: str) -> dict[str, Any]:
    return tasks_of(TaskManager(include_path=str(shipped("tasks")), include_defaults=False), list(names))


def slow(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str) -> float:
    """Log-likelihood of an answer after a prompt and a space, one forward pass over all of it."""
    whole = torch.tensor([tokenizer(f"{prompt} {answer}").input_ids])
    count = len(tokenizer(f" {answer}", add_special_tokens=False).input_ids)
    with torch.no_grad():
        chances = model(whole).logits[0].log_softmax(-1)
    return float(sum(chances[-count - 1 + place, whole[0, place - count]] for place in range(count)))


# The measures


def test_nats_per_byte_counts_bytes_and_not_characters() -> None:
    assert nats_per_byte(-6.0, "abc") == -2.0
    assert nats_per_byte(-6.0, "अआ") == -1.0  # three bytes each
    with pytest.raises(ValueError, match="empty"):
        nats_per_byte(-1.0, "")


def test_rank_of_the_gold_answer() -> None:
    assert [gold_rank([-3.0, -1.0, -2.0], gold) for gold in range(3)] == [3, 1, 2]
    assert [gold_rank([-1.0, -1.0, -2.0], gold) for gold in range(3)] == [1.5, 1.5, 3]
    assert gold_rank([-5.0], 0) == 1
    assert math.isnan(gold_rank([math.nan, -1.0], 1))


# The tasks


def test_choices_are_the_answers_of_the_passage(stub: None) -> None:
    task = load("clas_xquad_gold_de")["clas_xquad_gold_de"]
    found = [(doc["choices"], doc["gold"], doc["cluster"]) for doc in task.eval_docs]
    river, tea = (["Der Fluss", "alt"], "passage 0"), (["Anna", "Tee"], "passage 1")
    assert found == [(river[0], 0, river[1]), (river[0], 1, river[1]), (river[0], 0, river[1])] + [
        (tea[0], gold, tea[1]) for gold in (0, 1)
    ]
    requests = task.construct_requests(task.eval_docs[1], "prompt", metadata=("clas_xquad_gold_de", 1, 1))
    assert [request.args for request in requests] == [("prompt", " Der Fluss"), ("prompt", " alt")]


@pytest.mark.parametrize("template", [False, True])
def test_tuning_scores_the_strings_that_these_tasks_score(stub: None, template: bool) -> None:
    tasks = load("clas_xquad_gold_de", "clas_xquad_de")
    gold, generating = tasks["clas_xquad_gold_de"], tasks["clas_xquad_de"]
    answers = GoldAnswers("clas_xquad_de", generating, apply_chat_template=template)
    for number, doc in enumerate(gold.eval_docs):
        requests = gold.construct_requests(
            doc, "prompt", apply_chat_template=template, metadata=("clas_xquad_gold_de", number, 1)
        )
        assert requests[doc["gold"]].args == ("prompt", answers.text(generating.eval_docs[number]))


def test_choices_of_different_length_are_ranked_by_the_byte(stub: None) -> None:
    task = load("clas_xquad_gold_de")["clas_xquad_gold_de"]
    doc = task.eval_docs[1]  # its answer is `alt`, beside `Der Fluss`
    scores = task.process_results(doc, [(-4.5, False), (-3.0, False)])
    assert scores == {"nats_per_byte": -1.0, "gold_rank": 2.0}  # -0.5 a byte is better, though -4.5 is less likely
    assert task.higher_is_better() == {"nats_per_byte": True, "gold_rank": False}


def test_a_right_label_has_rank_1(stub: None) -> None:
    gold, accuracy = load("clas_xnli_gold_hi", "clas_xnli_hi").values()
    for doc in gold.eval_docs:
        for best in range(3):
            answers = [(-1.0 if one == best else -2.0 - one, False) for one in range(3)]
            scores = gold.process_results(doc, answers)
            assert (scores["gold_rank"] == 1) == (accuracy.process_results(doc, answers)["acc"] == 1)
            length = len(WORDS["hi"].choices[doc["label"]].encode())
            assert scores["nats_per_byte"] == answers[doc["label"]][0] / length


def test_scores_equal_a_slow_computation(
    stub: None, tmp_path: Path, checkpoint: Path, masks: MaskSet, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Of the harness's own run with samples: unsteered, so that transformers alone can confirm it."""
    names = ["clas_xquad_gold_hi", "clas_xquad_gold_de", "clas_xnli_gold_hi"]
    results = logged_run(tmp_path, checkpoint, masks, names, alpha=0)
    model = make_model()
    tasks = load(*names)
    for name, task in tasks.items():
        (path,) = results.parent.glob(f"samples_{name}_*.jsonl")
        samples = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert len(samples) == 3
        for sample in samples:
            doc = task.eval_docs[sample["doc_id"]]
            choices, gold = task.doc_to_choice(doc), task.doc_to_target(doc)
            found = [slow(model, tokenizer, task.doc_to_text(doc), choice) for choice in choices]
            by_byte = [one / len(choice.encode()) for one, choice in zip(found, choices, strict=True)]
            ranked = sorted(by_byte if "xquad" in name else found, reverse=True)
            assert sample["nats_per_byte"] == pytest.approx(by_byte[gold], rel=1e-4)
            assert sample["gold_rank"] == 1 + ranked.index((by_byte if "xquad" in name else found)[gold])


def test_a_table_of_gold_answers(stub: None, tmp_path: Path, checkpoint: Path, masks: MaskSet, clas: Run) -> None:
    """`clas table` finds language, clusters and the measure by itself."""
    names = ["clas_xquad_gold_hi", "clas_xquad_gold_de"]
    logged_run(tmp_path / "hf", checkpoint, masks, names, alpha=0)
    logged_run(tmp_path / "clas", checkpoint, masks, names, alpha=-3)
    runs = read_runs([f"{label}={tmp_path / label}" for label in ("hf", "clas")])
    found = compare(runs, "clas_xquad_gold", baseline="hf")
    assert (found.metric, found.languages, found.cluster_fields) == (
        "nats_per_byte",
        ["de", "hi"],
        {"de": "cluster", "hi": "cluster"},
    )
    assert found.rows[1].cells["hi"].gain
    ranks = compare(runs, "clas_xquad_gold", "gold_rank", baseline="hf")
    assert not ranks.higher_is_better
    code, out, _ = clas("table", f"hf={tmp_path / 'hf'}", f"clas={tmp_path / 'clas'}", "--baseline", "hf")
    assert code == 0, out


def test_tuning_by_log_likelihood_goes_by_the_byte_as_tables_do(
    stub: None, tmp_path: Path, masks: MaskSet, tokenizer: PreTrainedTokenizerFast
) -> None:
    names = ("clas_xquad_gold_hi", "clas_xnli_gold_hi")
    tuned = {}
    for objective in ("metric", "loglikelihood"):
        plan = TuningPlan("m", "", masks.hash, names, grid(masks, [-3, 2]), objective=objective)
        with Progress(disable=True) as progress:
            tuned[objective] = run_tuning(
                plan, load(*names), masks, tmp_path / objective, tmp_path / f"masks-{objective}", progress=progress,
                load=lambda: FastLM(make_model(), tokenizer=tokenizer, batch_size=3),
            )  # fmt: skip
    for family in ("clas_xquad_gold", "clas_xnli_gold"):
        by_metric, by_likelihood = tuned["metric"][family]["hi"], tuned["loglikelihood"][family]["hi"]
        assert by_metric.measured == by_likelihood.measured
        assert by_metric.metric == by_likelihood.metric == "nats_per_byte"
        assert by_metric.best.gain != 0


def test_scores_by_another_measure_are_not_taken(
    stub: None, tmp_path: Path, masks: MaskSet, tokenizer: PreTrainedTokenizerFast
) -> None:
    name = "clas_xquad_gold_hi"
    plan = TuningPlan("m", "", masks.hash, (name,), grid(masks, [2]), objective="loglikelihood")

    def run() -> None:
        with Progress(disable=True) as progress:
            run_tuning(
                plan, load(name), masks, tmp_path / "run", tmp_path / "masks", progress=progress,
                load=lambda: FastLM(make_model(), tokenizer=tokenizer, batch_size=3),
            )  # fmt: skip

    run()
    path = tmp_path / "run" / "scores" / f"{name}.json"
    path.write_text(path.read_text("utf-8").replace('"nats_per_byte"', '"log-likelihood of the gold answer"'), "utf-8")
    with pytest.raises(ClasError, match=r"by log-likelihood of the gold answer, and .* by nats_per_byte now; delete"):
        run()


def test_languages_and_families_of_gold_tasks(clas: Run) -> None:
    wanted = ("clas_xquad_gold", "clas_xquad_gold_tune", "clas_xnli_gold", "clas_xnli_gold_dev", "clas_xnli_gold_tune")
    code, out, _ = clas("route", *wanted, "--json")
    assert code == 0
    assert len(routes := json.loads(out)) == 2 * 12 + 3 * 15
    assert all(one["language"] == one["task"].rpartition("_")[2] for one in routes)


# On the real data


@pytest.mark.hub_data(hub_data.XQUAD)
@pytest.mark.parametrize("split", ["", "_tune"])
def test_items_and_prompts_of_xquad(split: str) -> None:
    for language in ("hi", "zh"):
        plain, gold = load(f"clas_xquad{split}_{language}", f"clas_xquad_gold{split}_{language}").values()
        assert len(plain.eval_docs) == len(gold.eval_docs)
        for doc, more in zip(plain.eval_docs, gold.eval_docs, strict=True):
            assert {name: more[name] for name in doc} == doc
            assert plain.doc_to_text(doc) == gold.doc_to_text(more)
            assert more["choices"][more["gold"]] == plain.doc_to_target(doc)
            assert len(set(more["choices"])) == len(more["choices"])
        pool, examples = (task.sampler.df for task in (plain, gold))
        assert [one["id"] for one in pool] == [one["id"] for one in examples]
        assert sum(len(doc["choices"]) > 1 for doc in gold.eval_docs) > 0.99 * len(gold.eval_docs)


@pytest.mark.hub_data(hub_data.XQUAD)
def test_choices_are_parallel_but_for_answers_that_coincide() -> None:
    """Ranks of all languages are among nearly the same number of choices."""
    hindi, chinese = load("clas_xquad_gold_hi", "clas_xquad_gold_zh").values()
    counts = [[len(doc["choices"]) for doc in task.eval_docs] for task in (hindi, chinese)]
    assert sum(one == other for one, other in zip(*counts, strict=True)) > 0.9 * len(counts[0])


@pytest.mark.hub_data(hub_data.XNLI)
@pytest.mark.parametrize("split", ["_dev", "_tune"])
def test_items_and_prompts_of_xnli(split: str) -> None:
    plain, gold = load(f"clas_xnli{split}_sw", f"clas_xnli_gold{split}_sw").values()
    assert list(plain.eval_docs) == list(gold.eval_docs)
    doc = gold.eval_docs[0]
    assert plain.doc_to_text(doc) == gold.doc_to_text(doc)
    assert plain.doc_to_choice(doc) == gold.doc_to_choice(doc) == WORDS["sw"].choices
