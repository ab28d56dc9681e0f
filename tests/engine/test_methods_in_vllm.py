"""Methods that add, inside vLLM: vectors by row, on neurons and on what leaves the layers, as `hf-clas` adds them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import made_masks
from measured_masks import with_measured
from small_engines import (
    MISSING,
    STARTING,
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
from torch import nn
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import MaskSet
from lm_eval_clas.base.errors import ClasError

pytest.importorskip("vllm", reason=MISSING)

from lm_eval_clas.engine.row_sweep import RowSweep, load_rows
from lm_eval_clas.engine.steered_layers import find_row_outputs
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.tuning.measuring import grid

KINDS = {"loglikelihood": choices(3), "loglikelihood_rolling": whole_texts("hi"), "generate_until": questions(2)}
METHODS: dict[str, dict[str, Any]] = {
    "arithmetic": {"method": "arithmetic", "alpha": 0.7},
    "int-mu": {"method": "int-mu", "alpha": 0.6},
    "diffmean": {"method": "diffmean", "alpha": -0.3},
    "random-direction": {"method": "random-direction", "alpha": 0.3, "seed": 3},
}
TABLES = {
    "arithmetic": ("neurons", ("shifts",)),
    "int-mu": ("neurons", ("factors", "shifts")),
    "diffmean": ("outputs", ("shifts",)),
    "random-direction": ("outputs", ("shifts",)),
}


@pytest.fixture(scope="module")
def engine_for(start: Callable[..., Any]) -> Callable[[str], Any]:
    """An engine for each method; a test that changes its steering changes it back."""
    return functools.cache(lambda method: start(**METHODS[method]))


@pytest.fixture(params=METHODS)
def adding(request: pytest.FixtureRequest, engine_for: Callable[[str], Any]) -> tuple[str, Any]:
    return request.param, engine_for(request.param)


@pytest.fixture
def moved(engine_for: Callable[[str], Any]) -> Any:
    """One that moves what leaves the layers."""
    return engine_for("diffmean")


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_list_is_answered_as_by_hf_clas(
    kind: str, adding: tuple[str, Any], plain: Any, engine_checkpoint: Path, engine_masks: MaskSet
) -> None:
    method, lm = adding
    assert (lm._room.place, lm._room.operands) == TABLES[method]
    asked = [one for one in KINDS[kind] if kind != "loglikelihood_rolling" or len(one.args[0].encode()) < 500]
    ours, theirs = (getattr(one, kind)(asked) for one in (lm, hf(engine_checkpoint, engine_masks, **METHODS[method])))
    assert all(map(close, ours, theirs)), list(zip(ours, theirs, strict=True))
    unsteered = getattr(plain, kind)(asked)
    same = {one.doc["language"]: close(a, b) for one, a, b in zip(asked, ours, unsteered, strict=True)}
    assert same == {"en": True, "hi": False, "de": False, "zh": False}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_is_bit_equal_to_each_request_alone_and_the_anchor_s_to_plain_vllm(
    kind: str, adding: tuple[str, Any], plain: Any
) -> None:
    _, lm = adding
    mixed = getattr(lm, kind)(KINDS[kind])
    assert same_answers(one_by_one(lm, kind, KINDS[kind]), mixed)
    anchor = [one.doc["language"] == "en" for one in KINDS[kind]]
    alone = getattr(plain, kind)([one for one, here in zip(KINDS[kind], anchor, strict=True) if here])
    assert [answer for answer, here in zip(mixed, anchor, strict=True) if here] == alone


def test_what_was_steered_is_told_as_by_hf_clas(
    adding: tuple[str, Any], engine_checkpoint: Path, engine_masks: MaskSet
) -> None:
    method, lm = adding
    told = []
    for one in (lm, hf(engine_checkpoint, engine_masks, **METHODS[method])):
        one.get_model_info()  # whatever was asked before
        one.loglikelihood(choices())
        told.append(one.get_model_info()["clas"])
    ours, theirs = told
    same = set(ours) - {"scoring", "witness"}
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert ours["means_hash" if lm._room.place == "neurons" else "residual_hash"]
    assert set(ours["witness"]) == {"hi", "de", "zh"}
    for language, witness in ours["witness"].items():
        assert (witness["requests"], witness["layers"]) == (2, [2, 3, 4])
        assert witness["factors_hash"] == theirs["witness"][language]["factors_hash"]
        asked = [one.args for one in choices() if one.doc["language"] == language]
        assert witness["positions"] == sum(1 + len(text.encode()) + len(ending) for text, ending in asked)


def test_strength_0_is_plain_vllm(start: Callable[..., Any], plain: Any) -> None:
    off = start(**{**METHODS["diffmean"], "alpha": 0})
    assert "worker_cls" not in off.model_args
    assert off.loglikelihood(choices()) == plain.loglikelihood(choices())


def test_another_strength_or_method_in_the_same_tables_needs_no_new_engine(
    engine_for: Callable[[str], Any], engine_checkpoint: Path, engine_masks: MaskSet
) -> None:
    for first, then in (("int-mu", {**METHODS["arithmetic"], "alpha": -1}), ("diffmean", METHODS["random-direction"])):
        lm = engine_for(first)
        before = lm.loglikelihood(choices())
        lm.steer(**then)
        after = lm.loglikelihood(choices())
        assert after != before
        assert all(map(close, after, hf(engine_checkpoint, engine_masks, **then).loglikelihood(choices())))
        lm.steer(**{"seed": 0, **METHODS[first]})
        assert lm.loglikelihood(choices()) == before


def test_methods_that_need_other_tables_or_none_are_refused_while_the_engine_runs(steered: Any, moved: Any) -> None:
    before = steered.loglikelihood(choices())
    needs = "and this method needs one of what"
    for lm, method, told in (
        (steered, "diffmean", f"tables of what multiplies neurons, {needs} is added to what leaves the layers; start another"),
        (steered, "int-mu", f"tables of what multiplies neurons, {needs} is added to neurons; start another"),
        (moved, "clas", f"tables of what is added to what leaves the layers, {needs} multiplies neurons; start another"),
        (steered, "incline", "method=incline adds a linear map of the activation"),
    ):
        with pytest.raises(ClasError, match=told):
            lm.steer(method=method)
    assert steered.loglikelihood(choices()) == before


def test_no_score_where_a_layer_does_not_steer(moved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = moved.model.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    module = worker.row_steering._modules[3]
    monkeypatch.setattr(module, "__class__", type(module).__mro__[1])
    with pytest.raises(ClasError, match=r"Layer 3 steered 0 positions of the \d+ that vLLM ran for '.*', so there is no score"):
        moved.loglikelihood(choices())


# What their layers give in vLLM: the whole output first, with something behind it that nobody reads, or alone.
OTHER_FAMILIES: dict[str, dict[str, Any]] = {
    "cohere": {},  # whose head vLLM always takes from the embeddings
    "granite": {"residual_multiplier": 0.5},
    "gemma3_text": {"tie_word_embeddings": False, "layer_types": ["full_attention"] * 6},
}


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_what_leaves_the_layers_of_other_families(
    family: str, start: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = engine_model(family, **OTHER_FAMILIES[family])
    checkpoint, masks = saved(model, tokenizer, tmp_path_factory.mktemp(family)), with_measured(made_masks(model))
    lm = start(masks, checkpoint, **METHODS["diffmean"])
    theirs = hf(checkpoint, masks, **METHODS["diffmean"]).loglikelihood(choices(3))
    assert all(map(close, lm.loglikelihood(choices(3)), theirs))


def test_layers_that_vllm_runs_in_another_way_are_refused() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    model = Model()
    every = [0, 1, 2]
    assert list(find_row_outputs(model, 3, every, torch.float16)) == every
    model.layers[1].routed_scaling_factor = 16.0
    assert list(find_row_outputs(model, 3, every, torch.bfloat16)) == every
    with pytest.raises(ClasError, match=r"scales what leaves its layers down in float16, .*; use dtype=bfloat16"):
        find_row_outputs(model, 3, every, torch.float16)
    model.layers[2].forward = lambda h: h
    with pytest.raises(ClasError, match=r"in the place of layer 'layers\.2', .* \(cpu_offload_gb\), .*; start without that"):
        find_row_outputs(model, 3, every, torch.bfloat16)
    assert list(find_row_outputs(model, 3, [0], torch.float16)) == [0]  # nobody steers the others
    with pytest.raises(ClasError, match="Found no list of 4 decoder layers in vLLM's Model"):
        find_row_outputs(model, 4, every, torch.bfloat16)


@pytest.mark.parametrize("method", ["arithmetic", "diffmean"])
def test_a_sweep_is_answered_as_with_hf(
    method: str, start: Callable[..., Any], engine_checkpoint: Path, engine_masks: MaskSet, tmp_path: Path
) -> None:
    settings = grid(engine_masks, [0, METHODS[method]["alpha"], -0.2])
    rowed = load_rows(str(engine_checkpoint), STARTING, engine_masks, settings, method)
    start.kept.append(rowed)  # type: ignore[attr-defined]
    plain = FastLM(str(engine_checkpoint), dtype="float32", device="cpu", batch_size=2)
    found = []
    for kind in (RowSweep, Sweep):
        sweep = kind(rowed if kind is RowSweep else plain, engine_masks, settings, method=method)
        sweep.start(tmp_path / kind.__name__, lambda done, total: None)
        answers = []
        for sweep.setting in range(len(settings)):
            answers.append(sweep.loglikelihood(choices()))
        found.append(answers)
        sweep.finish()
    ours, theirs = found
    assert all(map(close, chain(*ours), chain(*theirs)))
    assert all(one != other for one, other in zip(ours[0][2:], ours[1][2:], strict=True))
    assert ours[0][:2] == ours[1][:2]  # the anchor's


def test_a_map_is_refused_before_anything_is_loaded(engine_masks: MaskSet) -> None:
    from lm_eval_clas.engine.vllm_clas import VLLMCLAS

    told = (
        r"^method=incline adds a linear map of the activation, and in vLLM a request has factors and vectors, which no map is; "
        r"use --model hf-clas\.$"
    )
    with pytest.raises(ClasError, match=told):
        VLLMCLAS("there/is-no-such-model", engine_masks, method="incline", **STARTING)
    with pytest.raises(ClasError, match=told):
        load_rows("there/is-no-such-model", STARTING, engine_masks, grid(engine_masks, [0, 1]), "incline")
