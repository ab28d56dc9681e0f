"""`vllm-clas` on a small model: it scores and generates as `hf-clas` does, in one batch, and tells what it did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from small_engines import (
    BLOCK,
    MISSING,
    NEURONS,
    STARTING,
    STEERING,
    choices,
    close,
    engine_model,
    hf,
    one_by_one,
    questions,
    same_answers,
    saved,
    whole_texts,
)
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import MaskSet
from lm_eval_clas.base.errors import ClasError

pytest.importorskip("vllm", reason=MISSING)

from lm_eval_clas.engine.vllm_clas import VLLMCLAS
from lm_eval_clas.families.random_masks import random_masks

KINDS = {"loglikelihood": choices(3), "loglikelihood_rolling": whole_texts(), "generate_until": questions(2)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_list_is_answered_as_by_hf_clas(
    kind: str, steered: Any, engine_checkpoint: Path, engine_masks: MaskSet
) -> None:
    ours = getattr(steered, kind)(KINDS[kind])
    theirs = getattr(hf(engine_checkpoint, engine_masks, **STEERING), kind)(KINDS[kind])
    assert all(map(close, ours, theirs)), list(zip(ours, theirs, strict=True))
    unsteered = getattr(hf(engine_checkpoint, None), kind)(KINDS[kind])
    changed = {one.doc["language"] for one, a, b in zip(KINDS[kind], ours, unsteered, strict=True) if not close(a, b)}
    assert changed == {"hi", "de", "zh"}


MIXED = {**KINDS, "loglikelihood_rolling": [*whole_texts("en"), *whole_texts("hi")]}


@pytest.mark.parametrize("kind", MIXED)
def test_the_anchor_in_a_mixed_batch_is_bit_equal_to_plain_vllm(kind: str, steered: Any, plain: Any) -> None:
    mixed = getattr(steered, kind)(MIXED[kind])
    alone = getattr(plain, kind)([one for one in MIXED[kind] if one.doc["language"] == "en"])
    assert [answer for one, answer in zip(MIXED[kind], mixed, strict=True) if one.doc["language"] == "en"] == alone


@pytest.mark.parametrize("kind", MIXED)
def test_a_mixed_batch_is_bit_equal_to_each_request_alone(kind: str, steered: Any) -> None:
    mixed = getattr(steered, kind)(MIXED[kind])
    assert same_answers(one_by_one(steered, kind, MIXED[kind]), mixed)


def test_alpha_0_is_the_harness_s_own_path(plain: Any, start: Callable[..., Any]) -> None:
    off = start(alpha=0)
    assert "worker_cls" not in off.model_args
    assert off.loglikelihood(choices()) == plain.loglikelihood(choices())
    assert off.get_model_info()["clas"]["method"] == "off"


def test_strengths_that_are_all_tuned_to_0_need_no_rows(plain: Any, start: Any, engine_masks: MaskSet) -> None:
    from strengths_made import with_strengths

    off = start(with_strengths(engine_masks, {"task": {"hi": 0.0}}), alpha="tuned")
    assert off.loglikelihood(choices()) == plain.loglikelihood(choices())
    assert off.get_model_info()["clas"]["left_alone"]["hi in task"] == "tuned to 0"


def test_tuned_strengths_are_those_of_hf_clas(start: Any, engine_checkpoint: Path, engine_masks: MaskSet) -> None:
    from strengths_made import with_strengths

    tuned = with_strengths(engine_masks, {"task": {"hi": -3.0, "de": 2.0}})
    ours, theirs = start(tuned, alpha="tuned"), hf(engine_checkpoint, tuned, alpha="tuned")
    assert all(map(close, ours.loglikelihood(choices()), theirs.loglikelihood(choices())))
    told, other = (lm.get_model_info()["clas"] for lm in (ours, theirs))
    assert set(told["witness"]) == set(other["witness"]) == {"hi in task", "de in task"}
    assert told["left_alone"] == other["left_alone"]


def test_a_task_that_says_nothing_of_sampling_is_greedy(steered: Any) -> None:
    """As with `hf`; the harness's `vllm` samples then."""
    silent = questions(2)
    for one in silent:
        one.arguments[1].pop("do_sample")
    assert steered.generate_until(silent) == steered.generate_until(questions(2))


def test_another_alpha_needs_no_new_engine(steered: Any, engine_checkpoint: Path, engine_masks: MaskSet) -> None:
    long = questions(BLOCK // 10)
    before = steered.generate_until(long)
    engine = steered.model
    steered.steer(alpha=2.0)
    try:
        assert steered.model is engine
        theirs = hf(engine_checkpoint, engine_masks, **{**STEERING, "alpha": 2.0}).generate_until(long)
        assert steered.generate_until(long) == theirs != before
        assert steered.get_model_info()["clas"]["alpha"] == 2.0
        with pytest.raises(ClasError, match="Layers 1 have no tables in the engine that is running"):
            steered.steer(layers="1-4")
    finally:
        steered.steer(alpha=STEERING["alpha"], layers=None)
    assert steered.generate_until(long) == before


def test_what_was_steered_is_told_as_by_hf_clas(steered: Any, engine_checkpoint: Path, engine_masks: MaskSet) -> None:
    other = hf(engine_checkpoint, engine_masks, **STEERING)
    told = []
    for lm in (steered, other):
        lm.get_model_info()  # whatever was asked before
        lm.loglikelihood(choices())
        told.append(lm.get_model_info()["clas"])
    ours, theirs = told
    assert list(ours) == list(theirs)
    same = set(ours) - {"scoring", "witness"}
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert ours["scoring"] == "vllm"
    assert set(ours["witness"]) == {"hi", "de", "zh"}
    for language, witness in ours["witness"].items():
        assert witness["requests"] == 2
        assert witness["layers"] == [2, 3, 4]
        assert witness["factors_hash"] == theirs["witness"][language]["factors_hash"]
    # Two choices, whose tokens are bytes, and BOS in front of each; vLLM runs the last token, too.
    asked = [one.args for one in choices() if one.doc["language"] == "hi"]
    assert ours["witness"]["hi"]["positions"] == sum(1 + len(text.encode()) + len(ending) for text, ending in asked)


def test_no_score_where_the_projections_do_not_steer(steered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.layers.linear import RowParallelLinear

    worker = steered.model.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    module = worker.row_steering._modules[3]
    monkeypatch.setattr(module, "__class__", RowParallelLinear)
    with pytest.raises(ClasError, match=r"Layer 3 steered 0 positions of the \d+ that vLLM ran for '.*', so there is no score"):
        steered.loglikelihood(choices())


def test_layers_of_two_widths(
    start: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The layers of Gemma 4 that take keys and values from others may be twice as wide."""
    shape = {"num_kv_shared_layers": 2, "use_double_wide_mlp": True, "layer_types": ["sliding_attention", "full_attention"] * 3}
    small = {"global_head_dim": 32, "hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": 300}
    model = engine_model("gemma4_text", **shape, **small)
    checkpoint, masks = saved(model, tokenizer, tmp_path_factory.mktemp("two_widths")), random_masks(model)
    assert masks.config.model.fingerprint.widths == [NEURONS] * 4 + [2 * NEURONS] * 2
    lm = start(masks, checkpoint, **STEERING, layers="3-4")
    asked = choices(3)
    ours, theirs, plain = (
        one.loglikelihood(asked) for one in (lm, hf(checkpoint, masks, **STEERING, layers="3-4"), hf(checkpoint, None))
    )
    assert all(map(close, ours, theirs)), list(zip(ours, theirs, strict=True))
    assert not any(close(a, b) for one, a, b in zip(asked, ours, plain, strict=True) if one.doc["language"] in ("hi", "de"))


def test_the_attention_site(start: Callable[..., Any], engine_checkpoint: Path) -> None:
    from exporting import made_masks

    from lm_eval_clas.decoder.fingerprint import ModelFingerprint
    from lm_eval_clas.decoder.projections import find_projections

    model = engine_model()
    found = find_projections(model, "attn")
    masks = made_masks(model)
    config = masks.config.model_copy(
        update={
            "site": "attn",
            "model": masks.config.model.model_copy(update={"fingerprint": ModelFingerprint.of(model, found)}),
        }
    )
    attention = MaskSet(config, masks.active[:, :, : found[0].neurons])
    ours = start(attention, **STEERING).loglikelihood(choices())
    assert all(map(close, ours, hf(engine_checkpoint, attention, **STEERING).loglikelihood(choices())))


LONGEST = 510  # of a continuation: one token less for its context, and one for what vLLM generates
UNANSWERABLE: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "too long": ("loglikelihood", ("a", "x" * (LONGEST + 1)), "A continuation of 511 tokens after . cannot be .* most 510 of"),
    "empty": ("loglikelihood", ("abc", ""), "A continuation of 0 tokens after . cannot be scored"),
    "nothing": ("loglikelihood", ("", ""), "A continuation of 0 tokens after 0 cannot be scored"),
    "no room": ("generate_until", ("abc", {"until": [], "max_gen_toks": 512}), "A text of 512 tokens cannot be generated"),
    "no text": ("generate_until", ("abc", {"until": [], "max_gen_toks": 0}), "A text of 0 tokens cannot be generated"),
    "no number": ("generate_until", ("abc", {"until": [], "max_gen_toks": "abc"}), "Texts cannot be generated with"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNANSWERABLE)
def test_requests_without_an_answer_are_refused_as_by_hf_clas(what: str, steered: Any, start: Any) -> None:
    kind, arguments, sentence = UNANSWERABLE[what]
    for lm in (steered, start(None)):
        for language in ("hi", "en"):
            with pytest.raises(ClasError, match=sentence):
                getattr(lm, kind)([Instance(kind, {"language": language}, arguments, 0, ("task", 0, 1))])  # type: ignore[arg-type]


def test_the_longest_continuation_is_scored_as_a_whole(steered: Any, start: Any, engine_checkpoint: Path) -> None:
    asked = [(None, [70], [71, 80, 90] * (LONGEST // 3))]
    theirs = hf(engine_checkpoint, None)._loglikelihood_tokens(asked)  # type: ignore[arg-type]
    for lm in (steered, start(None)):
        assert all(map(close, lm._loglikelihood_tokens(asked), theirs))


def test_an_empty_prompt_has_the_first_token_of_the_tokenizer(
    steered: Any, engine_checkpoint: Path, engine_masks: MaskSet
) -> None:
    asked = [Instance("generate_until", {"language": "hi"}, ("", questions()[0].args[1]), 0, ("task", 0, 1))]
    assert steered.generate_until(asked) == hf(engine_checkpoint, engine_masks, **STEERING).generate_until(asked)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [True, False])
def test_bars_that_are_turned_off(kind: str, rows: bool, steered: Any, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment, vLLM divides by the time that a bar of its own did not measure."""
    lm = steered if rows else start(None)
    original, shown = lm.model.generate, []

    def generate(*arguments: Any, use_tqdm: bool = True, **named: Any) -> Any:
        shown.append(use_tqdm)
        return original(*arguments, use_tqdm=use_tqdm, **named)

    monkeypatch.setattr(lm.model, "generate", generate)
    getattr(lm, kind)(KINDS[kind], disable_tqdm=True)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert len(getattr(lm, kind)(KINDS[kind])) == len(KINDS[kind])
    assert shown
    assert not any(shown)


def test_a_cache_that_hf_clas_filled_has_nothing_for_vllm_clas(
    start: Any, engine_checkpoint: Path, engine_masks: MaskSet, tmp_path: Path
) -> None:
    database, asked = str(tmp_path / "cache.db"), questions()
    for options in (STEERING, {"alpha": 0}):
        other = CachingLM(hf(engine_checkpoint, engine_masks, **options), database)
        other.loglikelihood(choices())
        lm = start(**options)
        expected = lm.loglikelihood(choices()), lm.generate_until(asked)
        cached = CachingLM(lm, database)
        assert (cached.loglikelihood(choices()), cached.generate_until(asked)) == expected
    lm = start(**STEERING)
    cached = CachingLM(lm, database)
    lm.steer(alpha=2.0)
    after = cached.generate_until(asked)
    lm.steer(alpha=STEERING["alpha"])
    assert cached.generate_until(asked) != after
    lm.get_model_info()
    lm.steer(alpha=2.0)
    assert cached.generate_until(asked) == after
    assert {one.get("from_cache") for one in lm.get_model_info()["clas"]["languages"].values()} == {1}


@pytest.mark.parametrize("options", [STEERING, {"alpha": 0}])
def test_a_run_that_was_killed_goes_on_where_its_last_piece_ended(
    options: dict[str, Any], start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, database, asked = start(**options), str(tmp_path / "cache.db"), choices()
    expected, whole = lm.loglikelihood(asked), lm.get_model_info()["clas"]
    monkeypatch.setattr("lm_eval_clas.engine.vllm_clas._AT_ONCE", 3)
    generate, sizes = lm.model.generate, []

    def killed(prompts: Any, *arguments: Any, **named: Any) -> Any:
        sizes.append(len(prompts))
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return generate(prompts, *arguments, **named)

    monkeypatch.setattr(lm.model, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        CachingLM(lm, database).loglikelihood(asked)
    assert sizes == [3, 3, 2]
    assert all(map(close, CachingLM(lm, database).loglikelihood(asked), expected))
    assert sizes == [3, 3, 2, 2]
    if options is STEERING:
        told = lm.get_model_info()["clas"]
        assert told["witness"] == {"zh": whole["witness"]["zh"]}
        assert [told["languages"][one].get("from_cache") for one in ("en", "hi", "de", "zh")] == [2, 2, 2, None]
        CachingLM(lm, str(tmp_path / "other.db")).loglikelihood(asked)
        assert lm.get_model_info()["clas"]["witness"] == whole["witness"]  # of all pieces


def test_factors_that_are_all_1_are_refused_before_anything_runs(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weak = start(**{**STEERING, "alpha": {"hi": -3.0, "de": 1e-4, "default": -3.0}}, dtype="bfloat16")
    asked: list[Any] = []
    monkeypatch.setattr(weak.model, "generate", lambda *args, **kwargs: asked.append(args))
    with pytest.raises(ClasError, match="2 requests in 'de' are to be steered so weakly that nothing changes in bfloat16"):
        weak.loglikelihood(choices())
    assert not asked


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a map": ({"method": "incline"}, "method=incline adds a linear map of the activation, and in vLLM a request has factors"),
    "no replicas": ({"data_parallel_size": 0}, "data_parallel_size=0: give the number of replicas, 1 or more"),
    "worker": ({"worker_cls": "my.Worker"}, "worker_cls is what steers in vLLM"),
    "scheduler": ({"scheduler_cls": "my.Scheduler"}, "scheduler_cls is what steers in vLLM"),
    "language": ({"language": "tlhh"}, "language=tlhh is not a language"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what: str, engine_checkpoint: Path, engine_masks: MaskSet) -> None:
    options, told = REFUSED[what]
    with pytest.raises(ClasError, match=told):
        VLLMCLAS(str(engine_checkpoint), engine_masks, **options, **STARTING)


def test_one_request_at_a_time_is_warned_of(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("lm_eval_clas.engine.rowed_vllm.logger.warning", told.append)
    start(**STEERING, batch_size=1)
    (one,) = told
    assert "with batch_size 1, vLLM gets one request at a time; with --batch_size auto, requests of all languages run" in one
    start(**{**STEERING, "alpha": {"hi": -3.0, "default": 0}}, batch_size=1)
    assert told == [one]  # none where there is one row


ENGINES: dict[str, tuple[dict[str, Any], str]] = {
    "adapters": ({"enable_lora": True}, r"LoRA adapters \(enable_lora\)"),
    "drafts": (
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}},
        r"speculative decoding \(speculative_config\)",
    ),
    "pooling": ({"runner": "pooling"}, "pooling models"),
}


@pytest.mark.parametrize("what", ENGINES)
def test_engines_are_refused_before_one_is_made(
    what: str, engine_checkpoint: Path, engine_masks: MaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, told = ENGINES[what]
    monkeypatch.setattr("vllm.v1.engine.llm_engine.LLMEngine.__init__", lambda *_, **__: pytest.fail("an engine is made"))
    with pytest.raises(ClasError, match=f"vllm-clas does not go with {told}.*; start without it"):
        VLLMCLAS(str(engine_checkpoint), engine_masks, **options, **STARTING)


def test_masks_of_another_model_are_refused_before_anything_is_loaded(masks: MaskSet, engine_checkpoint: Path) -> None:
    with pytest.raises(ClasError, match="This mask folder was made for another model: neurons per layer 48 there, 96 in"):
        VLLMCLAS(str(engine_checkpoint), masks, **STARTING)


def test_a_launcher_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ClasError, match="without a launcher, and give tensor_parallel_size"):
        VLLMCLAS("none")
