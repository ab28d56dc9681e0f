"""Requests of every kind, and `hf-clas` around the small model."""

from __future__ import annotations

import random
from typing import Any

from lm_eval.api.instance import Instance
from small_models import make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, MaskSet

TEXTS = {
    "en": ["The stork builds a nest.", "Tea grows on wet hills."],
    "hi": ["सारस घोंसला बनाता है।", "चाय गीली पहाड़ियों पर उगती है।"],
    "de": ["Der Storch baut ein Nest.", "Tee wächst auf feuchten Hügeln."],
    "zh": ["鹳在筑巢。", "茶树生长在潮湿的山上。"],
}


def requests(kind: str, languages: tuple[str, ...] = ("en", "hi", "de", "zh")) -> list[Instance]:
    """Requests whose language the task's name tells, mixed and of unequal length."""
    made = []
    for language in languages:
        for number, text in enumerate(TEXTS[language]):
            arguments: list[tuple[Any, ...]] = {
                "loglikelihood": [(text, " yes"), (text, " no way"), (text, "?")],
                "loglikelihood_rolling": [(text,)],
                "generate_until": [(text, {"until": ["\n"], "max_gen_toks": 8, "do_sample": False})],
            }[kind]
            made += [
                Instance(kind, {}, one, i, (f"test_{language}", number, 1))  # type: ignore[arg-type]
                for i, one in enumerate(arguments)
            ]
    random.Random(0).shuffle(made)
    return made


KINDS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


def clas(tokenizer: PreTrainedTokenizerFast, masks: MaskSet | None, **options: Any) -> CLASLM:
    return CLASLM(make_model(), masks=masks, tokenizer=tokenizer, batch_size=3, **{"scoring": "stock", **options})
