"""Requests with nothing in them, or too much: the harness's answer, or one sentence where it has none."""

from __future__ import annotations

from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from requests_made import clas
from small_models import make_model
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import ClasError, MaskSet

_GREEDY = {"until": ["\n"], "max_gen_toks": 5, "do_sample": False}
LONG = "x" * 600
CASES: list[tuple[str, tuple[Any, ...]]] = [
    *(
        ("loglikelihood", one)
        for one in [
            ("", ""), ("abc", ""), ("", " "), ("   ", "abc"), (" ", ""), ("", "<s>"), ("", "</s>"), ("<s>", ""), ("<s>", "a"),
            ("", LONG), ("a", LONG), (LONG, "xy"), ("", "<s></s>"),
        ]
    ),
    *(("loglikelihood_rolling", (one,)) for one in ("", "  ", "<s>", "</s>", 2 * LONG)),
    *(("generate_until", (one, _GREEDY)) for one in ("", "  ", "<s>", 2 * LONG)),
    *(("generate_until", ("abc", {**_GREEDY, "max_gen_toks": one})) for one in (511, 512, 600, 0, -3, "abc", "7", None)),
]  # fmt: skip


@pytest.mark.parametrize("scoring", ["fast", "stock"])
@pytest.mark.parametrize("bos", [True, False])
def test_every_edge_has_an_answer_or_a_sentence(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, scoring: str, bos: bool
) -> None:
    if not bos:
        core = type(tokenizer._tokenizer).from_str(tokenizer._tokenizer.to_str())
        core.post_processor = processors.ByteLevel(trim_offsets=False)
        names = ["input_ids", "attention_mask"]
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", model_input_names=names)
    plain = HFLM(make_model(), tokenizer=tokenizer, batch_size=2)
    lms = [clas(tokenizer, masks, alpha=0, scoring=scoring), clas(tokenizer, masks, alpha=3, scoring=scoring)]
    refused = 0
    for kind, arguments in CASES:

        def answer(lm: Any, task: str, kind: str = kind, arguments: tuple[Any, ...] = arguments) -> Any:
            return getattr(lm, kind)([Instance(kind, {}, arguments, 0, (task, 0, 1))], disable_tqdm=True)[0]  # type: ignore[arg-type]

        try:
            expected = answer(plain, "test_hi")
        except (IndexError, AssertionError, RuntimeError, ValueError):
            refused += 1
            for lm in lms:
                with pytest.raises(ClasError, match="cannot be"):
                    answer(lm, "test_hi")
            continue
        for lm, task in zip(lms, ("test_hi", "test_en"), strict=True):
            found = answer(lm, task)
            assert found == (pytest.approx(expected, rel=1e-5) if kind != "generate_until" else expected)
    assert refused == 5 + (6 if bos else 9)
