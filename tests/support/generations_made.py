"""Requests to generate from prompts that start alike, and what the harness answers to each alone."""

from __future__ import annotations

import random
from typing import Any

from items_made import WORDS
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

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
