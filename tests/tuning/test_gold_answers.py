"""The log-likelihood objective takes the gold answer as the harness does, and tunes to none that is hidden or missing."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.tasks import TaskManager
from rich.progress import Progress
from small_models import make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import ClasError, MaskSet
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.task_loading import tasks_of
from lm_eval_clas.masks.strengths import Tuned
from lm_eval_clas.tuning.gold_answers import GoldAnswers
from lm_eval_clas.tuning.measuring import TuningPlan, grid
from lm_eval_clas.tuning.tuning_run import run_tuning

CASES = Path(__file__).parent.parent / "cases" / "tasks"
CHOICES = ["yes", "no", "maybe"]


def load(folder: Path, name: str) -> Any:
    return tasks_of(TaskManager(include_path=str(folder), include_defaults=False), [name])[name]


def case(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    monkeypatch.chdir(CASES)  # its data files are named relative to it
    return load(CASES, name)


def made(folder: Path, rows: list[dict[str, Any]], **config: Any) -> Any:
    """A task of these documents."""
    (folder / "made_hi.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = {
        "task": "made_hi", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
        "dataset_kwargs": {"data_files": {"test": str(folder / "made_hi.jsonl")}}, "doc_to_text": "{{q}}",
        "doc_to_target": "{{g}}", "metric_list": [{"metric": "acc"}], **config,
    }  # fmt: skip
    (folder / "made_hi.yaml").write_text(yaml.safe_dump(whole))
    return load(folder, "made_hi")


def chosen(task: Any, limit: int | None = None) -> list[int]:
    """The position of each document's gold answer among three responses, of which one is the likeliest."""
    golds = GoldAnswers("made_hi", task, limit)
    responses = [[(-1.0 * place, False)] for place in range(4)]
    return [-int(golds.log_likelihood(number, responses)) for number, _ in task.doc_iterator(limit=limit)]


def of_harness(task: Any) -> list[list[int]]:
    """The positions for which the harness's accuracy is 1."""
    found = []
    for _, doc in task.doc_iterator():
        count = len(task.doc_to_choice(doc))
        answers = [[(0.0 if one == best else -9.0, False) for one in range(count)] for best in range(count)]
        found.append([best for best, given in enumerate(answers) if task.process_results(doc, given)["acc"] == 1])
    return found


def test_texts_are_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    task = case(monkeypatch, "text_gold_hi")
    assert [[one] for one in chosen(task)] == of_harness(task)
    assert chosen(task) == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("limit", [None, 2])
def test_digits_that_can_only_be_choices_are_choices(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Of four choices, `4` is no position; the harness would take `2` for the third choice, and the user is told."""
    ours = logging.getLogger("lm_eval.models.hf_clas")
    monkeypatch.setattr(ours, "handlers", [*ours.handlers, caplog.handler])
    assert chosen(case(monkeypatch, "digit_choices_hi"), limit) == [0, 1, 2, 3, 0, 1, 2, 3][:limit]
    assert "digits that are choices themselves" in caplog.text


@pytest.mark.parametrize(
    ("rows", "config", "expected"),
    [
        ([{"q": "a", "g": "2"}, {"q": "b", "g": "1"}], {"doc_to_target": "g", "doc_to_choice": ["1", "2", "3"]}, [1, 0]),
        ([{"q": "a", "g": 2}, {"q": "b", "g": 0}], {"doc_to_target": "g", "doc_to_choice": CHOICES}, [2, 0]),
        ([{"q": "a", "g": 2}, {"q": "b", "g": 0}], {"doc_to_choice": CHOICES}, [2, 0]),
        # Stars from 1 on, as positions from 0 on: the text "1" stands for the second choice.
        ([{"q": "a", "g": 1}, {"q": "b", "g": 2}], {"doc_to_target": "{{g - 1}}", "doc_to_choice": ["1", "2", "3"]}, [0, 1]),
        ([{"q": "a", "g": 1}, {"q": "b", "g": 2}], {"doc_to_choice": ["1", "2", "3"]}, [1, 2]),
        ([{"q": "a", "g": [2, 1]}, {"q": "b", "g": [0, 7]}], {"doc_to_target": "g", "doc_to_choice": CHOICES}, [1, 0]),
        (
            [{"a": "He is", "b": "She is", "end": "tall", "g": 1}, {"a": "It is", "b": "We are", "end": "here", "g": 0}],
            {"doc_to_text": "g", "doc_to_target": "end", "doc_to_choice": "{{[a, b]}}"},
            [1, 0],
        ),
    ],
    ids=["digits in a field", "positions", "positions by template", "stars", "ambiguous digits", "several", "contexts"],
)  # fmt: skip
def test_labels_of_every_kind(tmp_path: Path, rows: list[dict[str, Any]], config: dict[str, Any], expected: list[int]) -> None:
    task = made(tmp_path, rows, **config)
    assert chosen(task) == expected
    assert all(one in right for one, right in zip(expected, of_harness(task), strict=True))


@pytest.mark.parametrize(
    ("rows", "config", "message"),
    [
        ([{"q": "a", "g": 0}, {"q": "b", "g": 3}], {}, "document 1 of the task made_hi has no gold answer .its label is 3."),
        ([{"q": "a", "g": None}], {"doc_to_target": "g"}, "label is None"),
        ([{"q": "a", "g": ""}], {}, "label is ''"),
        ([{"q": "a", "g": "perhaps"}], {}, "label is 'perhaps'"),
        ([{"q": "a", "g": [1]}, {"q": "b", "g": []}], {"doc_to_target": "g"}, r"document 1 .*label is \[\]"),
        (
            [{"q": "a", "g": "fine"}, {"q": "b", "g": " "}],
            {"output_type": "generate_until", "doc_to_choice": None},
            "document 1",
        ),
    ],
)
def test_without_a_gold_answer_nothing_is_tuned(
    tmp_path: Path, rows: list[dict[str, Any]], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClasError, match=message):
        GoldAnswers("made_hi", made(tmp_path, rows, **{"doc_to_choice": CHOICES, **config}))


def test_generated_answers_are_the_harness_s_texts(tmp_path: Path) -> None:
    rows = [{"q": "a", "g": 12}, {"q": "b", "g": 7}]
    generating = {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n"]},
        "metric_list": [{"metric": "exact_match"}],
    }
    numbers = made(tmp_path, rows, doc_to_target="g", **generating)
    golds = GoldAnswers("made_hi", numbers)
    assert golds.generated
    assert [golds.text(doc) for _, doc in numbers.doc_iterator()] == [" 12", " 7"]


@pytest.mark.parametrize("template", [False, True])
@pytest.mark.parametrize("prefix", [None, "So:", "So: "])
def test_generated_answers_are_scored_as_choices_are(tmp_path: Path, prefix: str | None, template: bool) -> None:
    rows = [{"q": "a", "g": "yes"}, {"q": "b", "g": "no"}]
    choices = made(tmp_path, rows, doc_to_choice=CHOICES, gen_prefix=prefix)
    expected = [
        choices.construct_requests(doc, "?", apply_chat_template=template, metadata=("made_hi", number, 1))[number].args[1]
        for number, doc in choices.doc_iterator()
    ]
    generating = {"output_type": "generate_until", "generation_kwargs": {"until": ["\n"]}, "gen_prefix": prefix}
    texts = made(tmp_path, rows, **generating, metric_list=[{"metric": "exact_match"}])
    golds = GoldAnswers("made_hi", texts, apply_chat_template=template)
    assert [golds.text(doc) for _, doc in texts.doc_iterator()] == expected


def test_a_chat_template_is_heard_of_where_gold_answers_are_scored(
    chatty: Path, masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"q": "a", "g": "yes"}, {"q": "b", "g": "no"}]
    generating = {"output_type": "generate_until", "generation_kwargs": {"until": ["\n"]}}
    task = made(tmp_path, rows, **generating, metric_list=[{"metric": "exact_match"}])
    asked: list[str] = []
    scored = FastLM.loglikelihood

    def noting(self: Any, requests: Any, **options: Any) -> Any:
        asked.extend(request.args[1] for request in requests)
        return scored(self, requests, **options)

    monkeypatch.setattr(FastLM, "loglikelihood", noting)
    plan = TuningPlan("m", "", masks.hash, ("made_hi",), grid(masks, [-2]), objective="loglikelihood", apply_chat_template=True)
    with Progress(disable=True) as progress:
        run_tuning(
            plan, {"made_hi": task}, masks, tmp_path / "run", tmp_path / "tuned", progress=progress,
            load=lambda: FastLM(str(chatty), device="cpu", batch_size=3),
        )  # fmt: skip
    assert set(asked) == {"yes", "no"}


@pytest.fixture
def tune(tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tmp_path: Path) -> Iterator[Any]:
    with Progress(disable=True) as progress:

        def go(task: Any, name: str, alphas: list[float], model: type[FastLM] = FastLM, **options: Any) -> Tuned:
            plan = TuningPlan("m", "", masks.hash, (name,), grid(masks, alphas), objective="loglikelihood", limit=4)
            return run_tuning(
                plan, {name: task}, masks, tmp_path / "run", tmp_path / "tuned", progress=progress,
                load=lambda: model(make_model(), tokenizer=tokenizer, batch_size=3), **options,
            )  # fmt: skip

        yield go


def test_hidden_labels_are_refused_before_the_model_is_loaded(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def model(*args: Any, **options: Any) -> FastLM:
        raise AssertionError("the model is loaded")

    with pytest.raises(ClasError, match=r"document 0 of the task hidden_label_hi has no gold answer \(its label is '-1'\)"):
        tune(case(monkeypatch, "hidden_label_hi"), "hidden_label_hi", [-2], model)


def test_the_score_is_that_of_the_gold_answer(
    tune: Any, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    from lm_eval.api.instance import Instance

    task = case(monkeypatch, "digit_choices_hi")
    one = tune(task, "digit_choices_hi", [-2])["digit_choices"]["hi"]
    asked = [Instance("loglikelihood", doc, (doc["q"], f" {doc['g']}"), 0) for _, doc in task.doc_iterator(limit=4)]
    answers = FastLM(make_model(), tokenizer=tokenizer, batch_size=1).loglikelihood(asked)
    assert one.measured[0].score == pytest.approx(sum(answer for answer, _ in answers) / 4, rel=1e-5)


def test_scores_that_are_no_numbers_leave_a_strength_out(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = tune(case(monkeypatch, "text_gold_hi"), "text_gold_hi", [1e38, 1])["text_gold"]["hi"]
    assert [tried.alpha for tried in one.measured] == [0, 1]
    assert [tried.alpha for tried in one.dropped] == [1e38]
    assert math.isfinite(one.chosen.score)


class _AtAlpha0(FastLM):
    """A model whose answers are no numbers, whatever steers it; it runs, as one that does not has no score at all."""

    answer = math.nan

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return [(self.answer, False) for _ in super().loglikelihood(requests, disable_tqdm)]


class _Constant(_AtAlpha0):
    answer = -2.5


def test_scores_that_are_no_numbers_without_steering_tune_nothing(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClasError, match="without a finite score at alpha 0"):
        tune(case(monkeypatch, "text_gold_hi"), "text_gold_hi", [1], _AtAlpha0)


@pytest.mark.parametrize("options", [{}, {"guard": True}, {"shared": True}])
def test_constant_scores_and_ties_choose_no_steering(
    tune: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    one = tune(case(monkeypatch, "text_gold_hi"), "text_gold_hi", [-4, 1, 2], _Constant, **options)["text_gold"]["hi"]
    assert (one.chosen.alpha, one.best.alpha, one.best.gain, one.p_value) == (0, 0, 0, 1)
    assert [(tried.score, tried.gain, tried.low, tried.high) for tried in one.measured] == [(-2.5, 0, None, None)] * 4
