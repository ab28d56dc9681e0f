"""`--use_cache`: a request has the answer of its own steering, within a run, between runs and after one that was killed."""

from __future__ import annotations

import json
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM, hash_args
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from requests_made import KINDS, clas, requests
from small_models import make_model
from sqlitedict import SqliteDict
from strengths_made import with_strengths
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ClasError, MaskSet
from lm_eval_clas.harness.answer_cache import drawn_by_chance
from lm_eval_clas.steering.activation_steerer import ActivationSteerer
from lm_eval_clas.steering.language_factors import LanguageFactors

CASES = Path(__file__).parent.parent / "cases" / "tasks"
SAME_PROMPT = ["same_prompt_hi", "same_prompt_de", "same_prompt_en"]
ALPHAS = {"hi": 4, "de": -6, "default": 1}


def one_prompt(kind: str, places: list[tuple[str, dict[str, Any]]]) -> list[Instance]:
    """The same request for tasks and documents."""
    arguments: dict[str, tuple[Any, ...]] = {
        "loglikelihood": ("Is it so? Answer:", " yes"),
        "loglikelihood_rolling": ("Is it so? Answer: yes",),
        "generate_until": ("Is it so? Answer:", {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}),
    }
    return [Instance(kind, doc, arguments[kind], 0, (task, i, 1)) for i, (task, doc) in enumerate(places)]  # type: ignore[arg-type]


def from_cache(lm: CLASLM) -> dict[str, int]:
    told = {language: one.get("from_cache", 0) for language, one in lm.steering_info()["languages"].items()}
    return {language: count for language, count in told.items() if count}


def test_the_same_prompt_in_three_languages_has_three_answers(
    checkpoint: Path, masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CASES)
    masks.save(tmp_path / "masks")
    (tmp_path / "alpha.json").write_text(json.dumps(ALPHAS))

    def run(tasks: list[str], **options: Any) -> dict[str, Any]:
        arguments = f"pretrained={checkpoint},masks={tmp_path / 'masks'},alpha={tmp_path / 'alpha.json'}"
        found: dict[str, Any] = simple_evaluate(
            model="hf-clas", model_args=arguments, tasks=tasks, device="cpu", bootstrap_iters=0,
            task_manager=TaskManager(include_path=str(CASES), include_defaults=False), **options,
        )  # fmt: skip
        return found

    def answers(found: dict[str, Any]) -> dict[str, list[Any]]:
        return {task: [one["resps"] for one in found["samples"][task]] for task in found["samples"]}

    fresh = answers(run(SAME_PROMPT))
    assert fresh["same_prompt_hi"] != fresh["same_prompt_de"] != fresh["same_prompt_en"] != fresh["same_prompt_hi"]
    cache = str(tmp_path / "cache")
    first, again = run(SAME_PROMPT, use_cache=cache), run(SAME_PROMPT, use_cache=cache)
    assert answers(first) == fresh == answers(again)
    counts = {one: [told.get("from_cache") for told in found["config"]["clas"]["languages"].values()] for one, found in
              (("first", first), ("again", again))}  # fmt: skip
    assert counts == {"first": [None, None, None], "again": [24, 24, 24]}
    other = str(tmp_path / "other")
    assert answers(run(["same_prompt_hi"], use_cache=other)) == {"same_prompt_hi": fresh["same_prompt_hi"]}
    assert answers(run(["same_prompt_de", "same_prompt_en"], use_cache=other)) == {
        task: fresh[task] for task in ("same_prompt_de", "same_prompt_en")
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["task", "document", "family", "forced"])
def test_whatever_tells_two_requests_apart_keeps_their_answers_apart(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tmp_path: Path, kind: str, by: str
) -> None:
    places: list[tuple[str, dict[str, Any]]] = [(f"test_{code}", {}) for code in ("en", "hi", "de", "zh")]
    options: list[dict[str, Any]] = [{"alpha": ALPHAS}]
    if by == "document":
        places = [("mixed", {"language": code}) for code in ("en", "hi", "de", "zh")]
    elif by == "family":
        masks = with_strengths(masks, {"one": {"hi": 4.0, "de": -6.0}, "two": {"hi": -5.0, "de": 0.0}})
        places = [(f"{family}_{code}", {}) for family in ("one", "two", "three") for code in ("hi", "de")]
        options = [{"alpha": "tuned"}]
    elif by == "forced":
        options = [{"alpha": ALPHAS, "language": code} for code in ("hi", "de", "zh")]
    asked = one_prompt(kind, places)
    fresh = [getattr(clas(tokenizer, masks, **one), kind)(asked) for one in options]
    assert len({str(answer) for answers in fresh for answer in answers}) > 1
    for answered in (0, len(asked)):
        for one, expected in zip(options, fresh, strict=True):
            lm = clas(tokenizer, masks, **one)
            assert getattr(CachingLM(lm, str(tmp_path / "cache.db")), kind)(asked) == expected
            assert sum(from_cache(lm).values()) == answered


def test_every_steering_has_its_own_answers_in_one_database(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tmp_path: Path
) -> None:
    database = str(tmp_path / "cache.db")
    asked = requests("loglikelihood", ("hi", "en"))
    several: list[dict[str, Any]] = [
        {"alpha": 4}, {"alpha": 3}, {"alpha": 0}, {"alpha": 4, "layers": "2-3"}, {"alpha": 4, "language": "de"},
        {"alpha": 4, "method": "random"}, {"alpha": 4, "method": "random", "seed": 1}, {"alpha": 4, "beta": 0.1},
    ]  # fmt: skip
    fresh = [clas(tokenizer, masks, **options).loglikelihood(asked) for options in several]
    for _ in range(2):
        for options, expected in zip(several, fresh, strict=True):
            assert CachingLM(clas(tokenizer, masks, **options), database).loglikelihood(asked) == expected


def test_a_steerer_that_does_not_see_modules_keeps_patterns_apart(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of `vllm-clas`, whose factors do not know which modules have the neurons."""
    monkeypatch.setattr(ActivationSteerer, "digest", LanguageFactors.digest)
    asked, database = requests("loglikelihood", ("hi", "en")), str(tmp_path / "cache.db")
    found = []
    for pattern in (None, "*.mlp.down_proj", "*.mlp.down_proj"):
        lm = clas(tokenizer, masks, alpha=4, projection=pattern)
        CachingLM(lm, database).loglikelihood(asked)
        found.append(from_cache(lm))
    assert found == [{}, {"en": 6}, {"hi": 6, "en": 6}]  # of what is not steered, modules do not matter


class StandIn(CLASLM):
    """In the place of another engine's class: it computes otherwise, and says so."""

    harness_name = "other-clas"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [None, 0, 4])
def test_another_class_dtype_or_path_finds_nothing_of_the_others(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tmp_path: Path, alpha: float | None, kind: str
) -> None:
    asked = requests(kind, ("hi", "en"))
    options: dict[str, Any] = {"tokenizer": tokenizer, "batch_size": 3, "masks": masks if alpha is not None else None}
    options |= {} if alpha is None else {"alpha": alpha}
    ways: list[Any] = [
        lambda: CLASLM(make_model(), scoring="stock", **options),
        lambda: StandIn(make_model(seed=1), scoring="stock", **options),
        lambda: CLASLM(make_model(seed=2).to(torch.bfloat16), scoring="stock", **options),
        lambda: CLASLM(make_model(seed=3), scoring="fast", **options),
        lambda: HFLM(make_model(seed=4), tokenizer=tokenizer, batch_size=3),
    ]
    fresh = [getattr(make(), kind)(asked) for make in ways]
    assert len({str(answers) for answers in fresh}) == len(ways)
    for _ in range(2):
        for make, expected in zip(ways, fresh, strict=True):
            assert getattr(CachingLM(make(), str(tmp_path / "cache.db")), kind)(asked) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_steered_is_kept_and_found(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    asked, database = requests(kind), str(tmp_path / "cache.db")
    lm = clas(tokenizer, masks, alpha=0)
    first = getattr(CachingLM(lm, database), kind)(asked[:3])
    calls: list[int] = []
    again = clas(tokenizer, masks, alpha=0)
    original = getattr(HFLM, kind)

    @wraps(original)
    def counting(self: Any, left: list[Instance], *rest: Any, **named: Any) -> Any:
        calls.append(len(left))
        return original(self, left, *rest, **named)

    monkeypatch.setattr(HFLM, kind, counting)
    found = getattr(CachingLM(again, database), kind)(asked)
    assert found[:3] == first
    assert calls == [len(asked) - 3]
    assert getattr(CachingLM(again, database), kind)(asked) == found
    assert calls == [len(asked) - 3]


def test_what_steers_may_change_and_the_database_stays(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tmp_path: Path
) -> None:
    """As `steer` of `vllm-clas` does it."""
    asked = requests("loglikelihood", ("hi", "en"))
    lm = clas(tokenizer, masks, alpha=4)
    cached = CachingLM(lm, str(tmp_path / "cache.db"))
    before = cached.loglikelihood(asked)
    lm._asked = lm._asked.changed(alpha=-4)
    lm._steer_with(lambda masks, **every: ActivationSteerer(lm.model, masks, **every))
    after = cached.loglikelihood(asked)
    assert after != before
    again = clas(tokenizer, masks, alpha=-4)
    assert CachingLM(again, str(tmp_path / "cache.db")).loglikelihood(asked) == after
    assert from_cache(again) == {"hi": 6, "en": 6}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_ends_early_keeps_what_was_answered(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    database = str(tmp_path / "cache.db")
    asked = requests(kind, ("en", "hi", "de", "zh"))
    fresh = getattr(clas(tokenizer, masks, alpha=4), kind)(asked)
    lm = clas(tokenizer, masks, alpha=4)
    forward, calls = lm._model_call if kind != "generate_until" else lm._model_generate, []

    def failing(*args: Any, **options: Any) -> Any:
        calls.append(0)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return forward(*args, **options)

    monkeypatch.setattr(lm, "_model_call" if kind != "generate_until" else "_model_generate", failing)
    with pytest.raises(KeyboardInterrupt):
        getattr(CachingLM(lm, database), kind)(asked)
    again = clas(tokenizer, masks, alpha=4)
    assert getattr(CachingLM(again, database), kind)(asked) == fresh
    assert 0 < sum(from_cache(again).values()) < len(asked)


@pytest.mark.parametrize("do_sample", [{}, {"do_sample": None}, {"do_sample": False}, {"do_sample": True}])
@pytest.mark.parametrize("temperature", [{}, {"temperature": 0}, {"temperature": 0.0}, {"temperature": 0.7}])
def test_what_is_sampled_is_what_the_harness_samples(do_sample: dict[str, Any], temperature: dict[str, Any]) -> None:
    options = {"until": ["\n"], **do_sample, **temperature}
    assert drawn_by_chance("generate_until", ("?", options)) is normalize_gen_kwargs(options)["do_sample"]


@pytest.mark.parametrize("options", [{"do_sample": True, "temperature": 0.9}, {"temperature": 0.9}])
def test_sampled_answers_are_new_each_time(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tmp_path: Path, options: dict[str, Any]
) -> None:
    asked = one_prompt("generate_until", [("test_hi", {})])
    del asked[0].arguments[1]["do_sample"]  # type: ignore[union-attr]
    asked[0].arguments[1].update(options)  # type: ignore[union-attr]
    for _ in range(2):
        lm = clas(tokenizer, masks, alpha=4)
        CachingLM(lm, str(tmp_path / "cache.db")).generate_until(asked)
        assert from_cache(lm) == {}


def test_what_cannot_be_kept_apart_is_refused(tokenizer: PreTrainedTokenizerFast, masks: MaskSet, tmp_path: Path) -> None:
    """Databases of older versions, which have steered answers under the harness's keys; and databases of another make."""
    database = SqliteDict(str(tmp_path / "old.db"), autocommit=True)
    database[hash_args("loglikelihood", ("a", "b"))] = (-1.0, False)
    database["lm-eval-clas steering"] = '{"alpha": 4}'
    database.close()
    for alpha in (0, 4):
        with pytest.raises(ClasError, match="filled by an older lm-eval-clas"):
            CachingLM(clas(tokenizer, masks, alpha=alpha), str(tmp_path / "old.db"))

    class Hook:
        dbdict: dict[str, Any] = {}  # noqa: RUF012

    with pytest.raises(ClasError, match="drop --use_cache"):
        clas(tokenizer, masks, alpha=4).set_cache_hook(Hook())
