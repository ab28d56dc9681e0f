"""Fast scoring: the same answers as the harness's own path, for every family, and only the work that is read."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from items_made import WORDS, items
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from small_models import FAMILIES, make_model
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lm_eval_clas import CLASLM, ClasError, MaskSet
from lm_eval_clas.decoder.prefixes import Continuation, Group, can_share_prefixes, group_by_prefix
from lm_eval_clas.decoder.scoring import Scorer, group_batches
from lm_eval_clas.families.tiny_models import tiny_model
from lm_eval_clas.harness.fast_lm import FastLM


def both(family: str, tokenizer: PreTrainedTokenizerFast, **options: Any) -> tuple[HFLM, CLASLM]:
    return (
        HFLM(make_model(family), tokenizer=tokenizer, **options),
        CLASLM(make_model(family), tokenizer=tokenizer, **options),
    )


def assert_same(answers: list[tuple[float, bool]], reference: list[tuple[float, bool]]) -> None:
    assert [flag for _, flag in answers] == [flag for _, flag in reference]
    assert [value for value, _ in answers] == pytest.approx([value for value, _ in reference], rel=1e-4)


@pytest.mark.parametrize("kind", ["choices", "letters", "sentences", "few-shot"])
@pytest.mark.parametrize("family", FAMILIES)
def test_fast_equals_stock_for_every_family(family: str, kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    # The inputs reach beyond the sliding window of 64 of those families that have one.
    stock, fast = both(family, tokenizer, batch_size=4)
    assert fast.scoring == "fast"
    requests = items(kind)
    assert_same(fast.loglikelihood(requests), stock.loglikelihood(requests))


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bloom"])
def test_rolling_log_likelihoods_equal_stock(family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    stock, fast = both(family, tokenizer, batch_size=2, max_length=48)
    requests = [Instance("loglikelihood_rolling", {}, (" ".join(WORDS[i:] * 2),), 0) for i in range(3)]
    assert fast.loglikelihood_rolling(requests) == pytest.approx(stock.loglikelihood_rolling(requests), rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 5, "auto", "auto:3", "auto:8"])
def test_batch_sizes_and_truncation(batch_size: int | str, tokenizer: PreTrainedTokenizerFast) -> None:
    stock, fast = both("llama", tokenizer, batch_size=batch_size, max_batch_size=8, max_length=40)
    for kind in ("choices", "letters"):
        requests = items(kind)
        assert max(len(tokenizer.encode(request.args[0])) for request in requests) > 40
        assert_same(fast.loglikelihood(requests), stock.loglikelihood(requests))


@pytest.mark.parametrize("parts", [1, 2, 4, 8, 13])
def test_an_automatic_batch_size_is_found_where_batches_pass_over_whole_parts(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FastLM, "_detect_batch_size", lambda self, groups, at: min(64, 16 + at // 4))
    for count in range(1, 520):
        lm = FastLM.__new__(FastLM)
        lm.batch_schedule, lm.batch_sizes, lm.max_batch_size = parts, {}, 64
        groups = [Group((1,), {() if number % 3 else (1,): [number]}) for number in range(count)]
        batches = list(group_batches(groups, lambda at, lm=lm, groups=groups: lm._batch_scheduler(at, groups)))  # type: ignore[misc]
        assert sorted(owner for batch in batches for one in batch for (owner,) in one.members.values()) == list(range(count))
        # Never more than fits where the batch's longest one is, which its first one is.
        assert all(len(batch) <= min(64, 16 + next(iter(batch[0].members.values()))[0] // 4) for batch in batches)
        assert lm.batch_schedule == parts


@pytest.mark.parametrize("batch_size", [0, -4, "0", "-1", "auto:0", "auto:", "automatic", "8.0", "", True, None])
def test_what_is_no_batch_size_is_refused_before_anything_is_loaded(batch_size: object) -> None:
    with pytest.raises(ClasError, match=f"batch_size must be a whole number from 1 on, auto, or auto:N .*not '{batch_size}'"):
        CLASLM("no-such-model", batch_size=batch_size)


def test_logits_in_chunks_and_soft_capping(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    stock, fast = both("gemma2", tokenizer, batch_size=4)
    assert fast.model.config.final_logit_softcapping
    assert fast._scorer is not None
    monkeypatch.setattr(fast._scorer._logits, "_chunk", 3)
    shapes = []
    fast.model.get_output_embeddings().register_forward_hook(lambda module, args, output: shapes.append(output.shape))
    requests = items("sentences")
    assert_same(fast.loglikelihood(requests), stock.loglikelihood(requests))
    assert max(rows for _, rows, _ in shapes) == 3
    assert "forward" not in vars(fast.model.base_model)  # the decoder is its own again


def test_only_what_is_read_is_computed(tokenizer: PreTrainedTokenizerFast) -> None:
    _, fast = both("llama", tokenizer, batch_size=4)
    rows, tokens = [], []
    fast.model.get_output_embeddings().register_forward_hook(lambda module, args, output: rows.append(output.shape[1]))
    fast.model.get_input_embeddings().register_forward_hook(
        lambda module, args, output: tokens.append(output.shape[:2].numel())
    )
    requests = items("letters", count=8)
    fast.loglikelihood(requests)
    assert sum(rows) == 8  # one row an item
    rows.clear()
    tokens.clear()
    requests = items("sentences", count=8)
    fast.loglikelihood(requests)
    alone = sum(len(tokenizer.encode(request.args[1])) for request in requests)
    assert sum(tokens) < 0.75 * alone


def test_scoring_is_checked_and_told(tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> None:
    with pytest.raises(ClasError, match="one of fast, stock"):
        CLASLM(make_model(), tokenizer=tokenizer, scoring="slow")
    assert CLASLM(make_model(), tokenizer=tokenizer).steering_info()["scoring"] == "fast"
    lm = CLASLM(make_model(), tokenizer=tokenizer, masks=masks, scoring="stock")
    assert lm.steering_info()["scoring"] == "stock"


def test_a_model_whose_head_is_not_called_falls_back_to_stock(tokenizer: PreTrainedTokenizerFast) -> None:
    stock, fast = both("llama", tokenizer, batch_size=4)
    elsewhere = torch.nn.Linear(1, 1)
    fast._scorer._logits._head = elsewhere  # type: ignore[union-attr]
    requests = items("choices")
    assert fast.loglikelihood(requests) == stock.loglikelihood(requests)
    assert fast.scoring == "stock"


@pytest.mark.parametrize("seed", range(5))
def test_grouping_keeps_every_request_and_never_costs_more(seed: int) -> None:
    chance = random.Random(seed)
    stems = [tuple(chance.choices(range(3), k=chance.randint(1, 30))) for _ in range(6)]
    requests = []
    for _ in range(40):
        tokens = chance.choice(stems) + tuple(chance.choices(range(3), k=chance.randint(1, 8)))
        requests.append(Continuation(tokens, tokens[-1:]))
    groups = group_by_prefix(requests, share=True)
    found = {}
    for group in groups:
        for suffix, owners in group.members.items():
            for owner in owners:
                assert owner not in found
                found[owner] = group.prefix + suffix
    assert [found[i] for i in range(40)] == [request.tokens for request in requests]
    run = sum(len(group.prefix) + sum(map(len, group.members)) for group in groups)
    assert run <= sum(map(len, {request.tokens for request in requests}))
    assert [group.longest for group in groups] == sorted((group.longest for group in groups), reverse=True)


@pytest.mark.parametrize(
    "change", [{"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, {"attention_chunk_size": 8}]
)
def test_prefixes_are_not_shared_where_that_is_not_exact(change: dict[str, Any]) -> None:
    model = make_model()
    assert can_share_prefixes(model)
    for name, value in change.items():
        setattr(model.config, name, value)
    assert not can_share_prefixes(model)


@pytest.mark.parametrize("family", ["dory", "xlm"])
def test_a_family_whose_code_takes_no_shared_prefix_runs_every_request_whole(family: str) -> None:
    if family not in CONFIG_MAPPING:
        pytest.skip("this version of transformers does not have the family")
    model = tiny_model(family)
    assert not can_share_prefixes(model)
    start = tuple(range(20, 50))
    requests = [Continuation((*start, 60 + i), (60 + i, 61 + i)) for i in range(3)]
    scorer = Scorer(model, torch.device("cpu"))
    groups = scorer.plan(requests)
    assert not any(group.has_suffixes for group in groups)
    for answer in scorer.score(groups, requests):
        tokens, targets = requests[answer.position].tokens, requests[answer.position].targets
        with torch.no_grad():
            told = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -2:].log_softmax(-1)
        assert answer.log_likelihood == pytest.approx(float(told[0, targets[0]] + told[1, targets[1]]), rel=1e-4)


def test_whether_a_prefix_can_be_shared_is_tried_once() -> None:
    model, passes = make_model(), []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    assert can_share_prefixes(model)
    assert can_share_prefixes(model)
    assert len(passes) == 2
