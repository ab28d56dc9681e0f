"""Greedy generation from shared prefixes: the harness's own answers, for every family, with only the work that is needed."""

from __future__ import annotations

import random
from typing import Any

import pytest
import transformers
from generations_made import NEVER, asked, each_alone, prompts
from items_made import WORDS
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from small_models import FAMILIES, make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM
from lm_eval_clas.decoder.greedy import chooses_plainly
from lm_eval_clas.decoder.prefixes import can_share_prefixes


@pytest.mark.parametrize("kind", ["passages", "few-shot", "apart"])
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_stock_generations_for_every_family(family: str, kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    # Prompts reach beyond the sliding window of 64 of those families that have one.
    stock = HFLM(make_model(family), tokenizer=tokenizer, batch_size=1)
    fast = CLASLM(make_model(family), tokenizer=tokenizer, batch_size=4)
    requests = asked(prompts(kind))
    assert fast.generates_fast(NEVER) or transformers.__version__ < "5"  # where XGLM shares no prefixes, and stock answers
    answers = fast.generate_until(requests, disable_tqdm=True)
    assert answers == each_alone(stock, requests)
    assert len(set(answers)) > 1


def of_all_kinds() -> list[Instance]:
    requests = [one for kind in ("passages", "few-shot", "apart") for one in asked(prompts(kind))]
    random.Random(1).shuffle(requests)
    return requests


@pytest.fixture(scope="module")
def stock_answers(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """To prompts of all kinds, in their order."""
    return each_alone(HFLM(make_model("gemma3_text"), tokenizer=tokenizer, batch_size=1), of_all_kinds())


@pytest.mark.parametrize("size", [1, 2, 3, 16, "auto"])
def test_batch_sizes_and_the_order_of_the_answers(
    size: int | str, stock_answers: list[str], tokenizer: PreTrainedTokenizerFast
) -> None:
    fast = CLASLM(make_model("gemma3_text"), tokenizer=tokenizer, batch_size=size, max_batch_size=8)
    assert fast.generate_until(of_all_kinds(), disable_tqdm=True) == stock_answers


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bloom"])
def test_contexts_that_are_too_long_are_cut_from_the_left(family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    options: dict[str, Any] = {"tokenizer": tokenizer, "max_length": 60}
    stock, fast = HFLM(make_model(family), batch_size=1, **options), CLASLM(make_model(family), batch_size=3, **options)
    requests = asked(prompts("passages"))
    assert max(len(tokenizer.encode(request.args[0])) for request in requests) > 60
    assert fast.generate_until(requests, disable_tqdm=True) == each_alone(stock, requests)


def test_answers_end_at_texts_at_the_models_end_and_at_the_most_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    """Also where options differ between requests, and where the end is the first thing written, so that the answer is empty."""
    stock = HFLM(make_model(), tokenizer=tokenizer, batch_size=1)
    texts = prompts("passages") + prompts("apart")
    free = each_alone(stock, asked(texts, {**NEVER, "max_gen_toks": 30}))
    first = [answer[:1] for answer in free if answer]
    ends: list[Any] = [first[0], [first[1], "zzz"], [free[2][3:5], free[3][2:4]], []]
    chosen = [{"until": end, "max_gen_toks": most} for end in ends for most in (1, 30)]
    chosen += [
        {"until": ["zzz"], "max_gen_toks": 6, "do_sample": False, "temperature": 0.0},
        {"do_sample": False, "max_gen_toks": 6},
    ]
    requests = asked(texts)
    for i, request in enumerate(requests * 2):
        request.arguments = (request.args[0], chosen[i % len(chosen)])
    model = make_model()
    model.generation_config.eos_token_id = [2, tokenizer.encode(free[5][2])[1]]  # as chat models have more than one
    stock.model.generation_config.eos_token_id = model.generation_config.eos_token_id
    fast = CLASLM(model, tokenizer=tokenizer, batch_size=5)
    assert all(fast.generates_fast(options) for options in chosen)
    answers = fast.generate_until(requests, disable_tqdm=True)
    assert answers == each_alone(stock, requests)
    assert "" in answers
    assert max(map(len, answers)) > 20


def test_only_what_is_needed_is_run(tokenizer: PreTrainedTokenizerFast) -> None:
    fast = CLASLM(make_model(), tokenizer=tokenizer, batch_size=8)
    shapes: list[tuple[int, ...]] = []
    fast.model.get_input_embeddings().register_forward_hook(lambda module, args, output: shapes.append(output.shape[:2]))
    passage = " ".join(WORDS)
    texts = [f"{passage} {letter}" for letter in "abcdef"]
    ends = [answer[1] for answer in fast.generate_until(asked(texts), disable_tqdm=True)]
    shapes.clear()
    fast.generate_until(asked(texts, {"until": ends[:3], "max_gen_toks": 12}), disable_tqdm=True)
    shared = len(tokenizer.encode(passage + " "))
    assert shapes[:2] == [(1, shared), (6, 1)]
    steps = [rows for rows, tokens in shapes[2:]]
    assert steps == sorted(steps, reverse=True)  # answers that have ended are run no more
    assert steps[-1] < 6


def test_what_is_not_plainly_greedy_is_left_to_stock_generation(tokenizer: PreTrainedTokenizerFast) -> None:
    fast = CLASLM(make_model(), tokenizer=tokenizer)
    for options in (
        {"do_sample": True, "temperature": 0.7}, {"temperature": 0.5}, {"num_beams": 2}, {"repetition_penalty": 1.3},
        {"max_gen_toks": 10**6}, {"max_gen_toks": 0}, {"max_length": 40}, {"max_new_tokens": 3}, {"until": 3}, {"until": None},
    ):  # fmt: skip
        assert not fast.generates_fast({**NEVER, **options}), options
    assert not CLASLM(make_model(), tokenizer=tokenizer, scoring="stock").generates_fast(NEVER)
    sampled = {"do_sample": True, "temperature": 1.0, "top_k": 1}  # the likeliest of one
    mixed = [one for text in prompts("apart") for one in asked([text], NEVER) + asked([text], {**NEVER, **sampled})]
    answers = fast.generate_until(mixed, disable_tqdm=True)
    assert answers[::2] == answers[1::2]
    assert len(set(answers)) > 2


@pytest.mark.parametrize(
    "changed", [{"repetition_penalty": 1.2}, {"no_repeat_ngram_size": 2}, {"num_beams": 3}, {"suppress_tokens": [5]},
                {"max_new_tokens": 4}, {"forced_eos_token_id": 0}]
)  # fmt: skip
def test_models_that_choose_otherwise_are_left_to_stock_generation(
    changed: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_model()
    assert chooses_plainly(model)
    model.generation_config.update(repetition_penalty=1.0, num_beams=1, temperature=0.6, top_p=0.9, do_sample=True)
    assert chooses_plainly(model)  # these leave greedy choices as they are
    model.generation_config.update(**changed)
    assert not CLASLM(model, tokenizer=tokenizer).generates_fast(NEVER)


def test_models_whose_prefixes_cannot_be_shared_are_left_to_stock_generation(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model()
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    fast = CLASLM(model, tokenizer=tokenizer)
    assert not can_share_prefixes(model)
    assert not fast.generates_fast(NEVER)


def test_a_generate_of_its_own_is_used(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    monkeypatch.setattr(type(model), "generate", lambda *args, **kwargs: None)
    assert not CLASLM(model, tokenizer=tokenizer).generates_fast(NEVER)
