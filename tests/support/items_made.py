"""Requests as tasks of several kinds make them."""

from __future__ import annotations

import random

from lm_eval.api.instance import Instance

WORDS = [
    "the",
    "old",
    "river",
    "runs",
    "under",
    "a",
    "stone",
    "bridge",
    "while",
    "children",
    "count",
    "seven",
    "white",
    "boats",
    "and",
    "sing",
    "about",
    "rain",
]


def items(kind: str, seed: int = 0, count: int = 9) -> list[Instance]:
    """Requests as tasks make them: choices after a context, whole sentences without one, and single letters."""
    chance = random.Random(seed)
    requests = []
    for doc in range(count):
        context = " ".join(chance.choices(WORDS, k=chance.randint(3, 22)))
        choices = {
            "choices": [(context, " " + " ".join(chance.choices(WORDS, k=chance.randint(1, 3)))) for _ in range(3)],
            "letters": [(context, letter) for letter in "ABC"],
            "sentences": [("", f"{context}, {word} so {WORDS[doc]}") for word in ("yes", "also", "no")],
            "few-shot": [(f"{' '.join(WORDS)}. {context}", " " + word) for word in ("yes", "no")],
        }[kind]
        for i, arguments in enumerate(choices):
            requests.append(Instance("loglikelihood", {}, arguments, i, metadata=("xnli_hi", doc, 1)))
    chance.shuffle(requests)
    return requests
