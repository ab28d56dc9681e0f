"""Greedy generation from shared prefixes: the harness's own answers, for every family, with only the work that is needed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from items_made import WORDS
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from small_models import FAMILIES, make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM

NEVER = {"until": ["zzz"], "max_gen_toks": 12, "do_sample": False}


def prompts(kind: str, seed: int = 0) -> list[str]:
    """Questions on a few passages, few-shot prompts, or prompts that have nothing in common."""
    chance = random.Random(seed)

    def words(most: int) -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(1, most)))

    if kind == "passages":
        made = [f"{passage}\nQ: {words(6)}" for passage in (words(15), words(4), words(9)) for _ in range(4)]
        made += made[:2]  # some are asked twice
    elif kind == "few-shot":
        made = [f"{' '.join(WORDS)}\n\n{words(10)}" for _ in range(7)]
        made.append(" ".join(WORDS))  # one is the start of the others
    else:
        made = [f"{letter} {words(20)}" for letter in "abcdefg"] + ["b"]
    chance.shuffle(made)
    return made


def asked(texts: list[str], options: dict[str, Any] = NEVER) -> list[Instance]:
    return [Instance("generate_until", {}, (text, options), i) for i, text in enumerate(texts)]


def each_alone(stock: HFLM, requests: list[Instance]) -> list[str]:
    return [stock.generate_until([request], disable_tqdm=True)[0] for request in requests]


@pytest.mark.parametrize("kind", ["passages", "few-shot", "apart"])
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_stock_generations_for_every_family(family: str, kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    # Prompts reach beyond the sliding window of 64 of those families that have one.
    stock = HFLM(make_model(family), tokenizer=tokenizer, batch_size=1)
    fast = CLASLM(make_model(family), tokenizer=tokenizer, batch_size=4)
    requests = asked(prompts(kind))
    assert fast.generates_fast(NEVER)
    answers = fast.generate_until(requests, disable_tqdm=True)
    assert answers == each_alone(stock, requests)
    assert len(set(answers)) > 1


@pytest.mark.parametrize("size", [1, 2, 3, 16, "auto"])
def test_batch_sizes_and_the_order_of_the_answers(size: int | str, tokenizer: PreTrainedTokenizerFast) -> None:
    stock = HFLM(make_model("gemma3_text"), tokenizer=tokenizer, batch_size=1)
    fast = CLASLM(make_model("gemma3_text"), tokenizer=tokenizer, batch_size=size, max_batch_size=8)
    requests = [one for kind in ("passages", "few-shot", "apart") for one in asked(prompts(kind))]
    random.Random(1).shuffle(requests)
    assert fast.generate_until(requests, disable_tqdm=True) == each_alone(stock, requests)
