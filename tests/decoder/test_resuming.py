"""A resumed pass is a full pass, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from items_made import items
from lm_eval.api.instance import Instance
from small_models import FAMILIES, make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.decoder.resuming import Tape

FIRST = 3  # the layer that is resumed at
TEXTS = ["the river", "under the old bridge the children count seven boats", "rain"]


class Scale:
    """Steering at its simplest: one factor on the down-projection of the layer that is resumed at."""

    def __init__(self, model: Any) -> None:
        self.by = 1.0
        find_projections(model)[FIRST].module.register_forward_pre_hook(lambda module, args: (args[0] * self.by,))


def lm_with_scale(family: str, tokenizer: PreTrainedTokenizerFast, **options: Any) -> tuple[CLASLM, Scale, list[int]]:
    lm = CLASLM(make_model(family), tokenizer=tokenizer, batch_size=4, **options)
    calls: list[int] = []
    find_projections(lm.model)[0].module.register_forward_pre_hook(lambda module, args: calls.append(1))
    return lm, Scale(lm.model), calls


@pytest.mark.parametrize("family", FAMILIES)
def test_a_resumed_forward_pass_is_bitwise_a_full_one(family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    lm, scale, calls = lm_with_scale(family, tokenizer)
    inputs = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
    tape = Tape(lm.model, FIRST)
    with torch.no_grad():
        for scale.by in (1.0, -1.5, 0.0):
            full = lm.model(**inputs, use_cache=True)
            before = len(calls)
            with tape.running():
                resumed = lm.model(**inputs, use_cache=True)
            assert len(calls) - before == (1 if scale.by == 1.0 else 0)
            assert torch.equal(full.logits, resumed.logits)
            for one, other in zip(full.past_key_values.layers, resumed.past_key_values.layers, strict=True):
                assert torch.equal(one.keys, other.keys)
                assert torch.equal(one.values, other.values)


@pytest.mark.parametrize("scoring", ["fast", "stock"])
@pytest.mark.parametrize("kind", ["choices", "letters", "sentences"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "bloom"])
def test_resumed_scores_are_bitwise_full_ones(family: str, kind: str, scoring: str, tokenizer: PreTrainedTokenizerFast) -> None:
    lm, scale, calls = lm_with_scale(family, tokenizer, scoring=scoring)
    requests = items(kind, count=7)
    tape = Tape(lm.model, FIRST)
    answers = []
    for scale.by in (1.0, -1.5, 0.3):
        full = lm.loglikelihood(requests)
        before = len(calls)
        with tape.running():
            assert lm.loglikelihood(requests) == full
        assert (len(calls) == before) == bool(answers)
        answers.append(full)
    assert answers[0] != answers[1] != answers[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_generation_is_the_same_text(family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    lm, scale, calls = lm_with_scale(family, tokenizer, scoring="stock")
    options = {"until": ["zzz"], "max_gen_toks": 12, "do_sample": False}
    requests = [Instance("generate_until", {}, (text * 6, options), i) for i, text in enumerate(TEXTS)]
    tape = Tape(lm.model, FIRST)
    for scale.by in (1.0, -1.5, 0.3):
        before = len(calls)
        full = lm.generate_until(requests)
        passes, before = len(calls) - before, len(calls)
        with tape.running(passes=1):
            assert lm.generate_until(requests) == full
        assert len(calls) - before == (passes if scale.by == 1.0 else passes - 1)


def test_the_layers_are_their_own_again_after_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    lm, _, _ = lm_with_scale("llama", tokenizer)
    inputs = tokenizer(TEXTS[:1], return_tensors="pt", return_token_type_ids=False)
    tape = Tape(lm.model, FIRST)
    with pytest.raises(IndexError), tape.running():
        lm.model(input_ids=inputs["input_ids"] + 10**6)
    assert not any("forward" in vars(layer) for layer in lm.model.model.layers)
    with tape.running():  # what broke off is not replayed
        recorded = lm.model(**inputs).logits
    assert torch.equal(recorded, lm.model(**inputs).logits)
