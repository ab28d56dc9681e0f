"""Mixtures of experts: what is read, steered, merged and counted, for families whose experts transformers' registry runs."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporting import write
from letters_drawn import hard_to_read
from lm_eval.evaluator import evaluate
from requests_made import requests
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, FineGrainedFP8Config, PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, profile
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.mixtures.expert_taps import tap
from lm_eval_clas.decoder.mixtures.expert_weights import expert_scales
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.decoder.resuming import Tape, can_resume
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.disk.hash_lines import RECORD
from lm_eval_clas.families.random_masks import random_masks
from lm_eval_clas.families.tiny_models import tiny_model
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.masks import expert_picture
from lm_eval_clas.masks.expert_choice import expert_choices, jensen_shannon
from lm_eval_clas.masks.expert_picture import plot_experts
from lm_eval_clas.masks.inspection import summary
from lm_eval_clas.masks.mask_place import strange_masks
from lm_eval_clas.neurons.instances import profile_instances
from lm_eval_clas.neurons.profile_folder import Profile
from lm_eval_clas.steering.methods.intervention import Intervention
from lm_eval_clas.texts.corpora import ParallelTexts
from lm_eval_clas.tuning.measuring import grid
from lm_eval_clas.verifying.merged_weights import merged

pytest.importorskip("transformers.integrations.moe", reason="transformers 4 has no registry of experts' functions")
FAMILIES = [
    "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v2", "deepseek_v3", "gpt_oss", "glm4_moe", "qwen3_next",
    "granitemoe", "jamba",
]  # fmt: skip
IDS = torch.arange(7, 47).reshape(2, 20)
every = pytest.mark.parametrize("family", FAMILIES)


def lively(family: str, implementation: str | None = None) -> nn.Module:
    """A tiny mixture, with weights so large that steering shows."""
    model = livelier(tiny_model(family))
    if implementation is not None:
        model.set_experts_implementation(implementation)
    return model


def livelier(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def logits(model: nn.Module, ids: torch.Tensor = IDS, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **inputs).logits


def units_before(model: nn.Module, layer: int) -> int:
    """MLPs that all tokens share come first on a layer's axis."""
    return sum(1 for one in find_projections(model) if one.layer == layer and not one.experts)


def halves(texts: ParallelTexts) -> list[ParallelTexts]:
    return [
        ParallelTexts(texts.name, texts.ids[part], {one: lines[part] for one, lines in texts.texts.items()})
        for part in (slice(0, 3), slice(3, None))
    ]


@pytest.fixture(scope="module")
def profiles(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts):
    """Profiles of tiny mixtures by family, each made once."""
    return cache(lambda family: profile(lively(family), tokenizer, texts, max_tokens=60, name=family))


@every
@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_steering_equals_scaled_weights_and_is_nothing_where_nothing_is_steered(family: str, implementation: str) -> None:
    model = lively(family, implementation)
    plain, masks = logits(model), random_masks(model)
    with ActivationSteerer(model, masks, alpha=0.0) as steerer, steerer.language("de"):
        assert torch.equal(logits(model), plain)
    with ActivationSteerer(model, masks, alpha=-3.0) as steerer:
        assert torch.equal(logits(model), plain)
        with steerer.language("en"):
            assert torch.equal(logits(model), plain)
        with steerer.language("de") as block:
            steered = logits(model)
        factors = steerer.factors("de")
    assert set(block.positions.values()) == {IDS.numel()}
    assert torch.equal(logits(model), plain)
    with merged(find_projections(model), Intervention(factors.numpy())):
        torch.testing.assert_close(steered, logits(model), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(steered, plain, atol=1e-2)
    assert model.config.get_text_config()._experts_implementation == implementation


@every
def test_batch_and_padding_do_not_matter(family: str) -> None:
    model = lively(family)
    with ActivationSteerer(model, random_masks(model), alpha=-3.0) as steerer, steerer.language("de"):
        alone = logits(model, IDS[:1, :13])
        padded = IDS.clone()
        padded[0, 13:] = 0
        mask = torch.ones_like(IDS)
        mask[0, 13:] = 0
        together = logits(model, padded, attention_mask=mask)
    torch.testing.assert_close(together[:1, :13], alone, rtol=1e-3, atol=1e-3)


@every
def test_a_profile_is_that_of_a_slow_reference(family: str, profiles, tokenizer, texts: ParallelTexts) -> None:
    """Each expert's activations, computed by hand from its weights, for the tokens that the router sent to it."""
    model, profiled = lively(family, "eager"), profiles(family)
    places = [one for one in find_projections(model) if one.experts]
    given: dict[int, tuple[torch.Tensor, ...]] = {}
    for one in places:
        one.module.register_forward_pre_hook(lambda module, args, at=one.layer: given.__setitem__(at, args))
    size = ModelFingerprint.of(model, find_projections(model))
    sums = np.zeros((size.layers, size.neurons))
    counts, last = (np.zeros((size.layers, size.layout.units), dtype=int) for _ in range(2))
    for text in texts.texts["hi"]:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=60)["input_ids"]
        logits(model, ids)
        for one in places:
            hidden, index, _ = given[one.layer]
            module, first = one.module, units_before(model, one.layer)
            for expert in range(one.experts):
                tokens = [token for token in range(1, len(hidden)) if expert in index[token]]  # without BOS
                name = "gate_up_proj" if getattr(module, "has_gate", True) else "up_proj"
                weight = getattr(module, name)[expert]
                up = hidden[tokens] @ (weight if module.is_transposed else weight.T)
                up = up + getattr(module, f"{name}_bias")[expert] if module.has_bias else up
                h = module._apply_gate(up) if getattr(module, "has_gate", True) else module.act_fn(up)
                width = one.neurons // one.experts
                at = one.start + expert * width
                sums[one.layer, at : at + width] += h.detach().double().sum(0).numpy()
                counts[one.layer, first + expert] += len(tokens)
                last[one.layer, first + expert] += int(expert in index[-1])
    found = profiled.by_language["hi"]
    for one in places:
        np.testing.assert_allclose(
            found.sums["all", "signed-mean"][one.layer, one.here], sums[one.layer, one.here], rtol=1e-3, atol=1e-3
        )
        first = units_before(model, one.layer)
        here = (one.layer, slice(first, first + one.experts))
        assert found.routed["all"][here].tolist() == counts[here].tolist()
        assert found.routed["last"][here].tolist() == last[here].tolist()
        assert last[here].sum() == len(texts.ids) * given[one.layer][1].shape[-1]  # each text has one last token


@every
def test_profiles_of_halves_are_the_whole_and_batches_do_not_matter(
    family: str, profiles, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    model, whole = lively(family), profiles(family)
    one, other = (profile(model, tokenizer, half, max_tokens=60, name=family, batch_size=1) for half in halves(texts))
    both = one.merge(other)
    for language in texts.languages:
        a, b = whole.by_language[language], both.by_language[language]
        assert a.counts == b.counts
        for tokens in ("all", "last"):
            assert np.array_equal(a.routed[tokens], b.routed[tokens])
        for key in a.sums:
            np.testing.assert_allclose(a.sums[key], b.sums[key], rtol=1e-3, atol=2e-3)


@every
def test_passes_are_resumed(family: str) -> None:
    model = lively(family)
    assert can_resume(model, 2)
    tape, masks = Tape(model, 2), random_masks(model)
    with ActivationSteerer(model, masks, alpha=-2.0, layers="2-3") as steerer, steerer.language("de"):
        full = logits(model, use_cache=False)
        for _ in range(2):
            with tape.running():
                assert torch.equal(logits(model, use_cache=False), full)


@every
def test_a_merged_checkpoint_is_the_hook(family: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = lively(family)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    masks = random_masks(model)
    out = write("merged", masks, tmp_path / "model", tmp_path / "merged", language="de")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with ActivationSteerer(again, masks, alpha=-2.0) as steerer, steerer.language("de"):
        steered = logits(again)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(out)), steered, rtol=1e-4, atol=1e-4)
    with pytest.raises(ClasError, match="An \\(IA\\)3 adapter has one vector for a linear module"):
        write("ia3", masks, tmp_path / "model", tmp_path / "ia3", language="de")


def test_heads_that_predict_further_tokens_stay_as_they_are(tmp_path: Path) -> None:
    """Checkpoints of Qwen 3 Next have a layer of their own for them, which transformers leaves out."""
    model = lively("qwen3_next")
    model.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    heads = {f"mtp.{key.partition('.')[2]}": one.clone() for key, one in weights.items() if ".layers.0.mlp." in key}
    assert sum(".experts." in key and "down_proj" in key for key in heads) == model.config.num_experts
    save_file({**weights, **heads}, file, metadata={"format": "pt"})
    masks = random_masks(model)
    out = write("merged", masks, tmp_path / "model", tmp_path / "merged", language="de")
    merged_weights = load_file(out / "model.safetensors")
    assert all(torch.equal(merged_weights[key], one) for key, one in heads.items())
    with ActivationSteerer(model, masks, alpha=-2.0) as steerer, steerer.language("de"):
        steered = logits(model)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(out)), steered, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt_oss", "qwen3_moe"])  # the first keeps its second product transposed
def test_experts_as_wide_as_the_model_are_scaled_by_channel(family: str, tmp_path: Path) -> None:
    """Those of gpt-oss are: 2,880 channels, and a hidden size of 2,880."""
    config = tiny_model(family).config
    config.intermediate_size = config.moe_intermediate_size = config.hidden_size
    torch.manual_seed(0)
    model = livelier(AutoModelForCausalLM.from_config(config).float().eval())
    places = [one for one in find_projections(model) if one.experts]
    assert {one.module.down_proj.shape[1:] for one in places} == {(config.hidden_size, config.hidden_size)}
    model.save_pretrained(tmp_path / "model")
    masks = random_masks(model)
    out = write("merged", masks, tmp_path / "model", tmp_path / "merged", language="de")
    with ActivationSteerer(model, masks, alpha=-2.0) as steerer, steerer.language("de"):
        steered = logits(model)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(out)), steered, rtol=1e-4, atol=1e-4)


def test_masks_leave_out_what_too_few_tokens_reached(profiles, tmp_path: Path) -> None:
    profiled = profiles("qwen2_moe")
    seen = profiled.tokens_seen("all")
    enough = int(np.median(seen.min(axis=0)[:, 1:])) + 1  # some experts, and not all
    masks = MaskSet.from_profile(
        profiled, categorizer=NeuronCategorizer(threshold=0.0, min_tokens=enough), bridge="1-3", keep_means=True
    )
    few = masks.config.model.fingerprint.layout.spread(seen.min(axis=0) < enough)
    assert 0 < few.sum() < few.size
    assert np.array_equal(masks.categories == 4, few)
    assert not masks.active[:, few].any()
    read = MaskSet.load(masks.save(tmp_path / "masks"))
    assert (read.hash, read.config.min_tokens) == (masks.hash, enough)
    assert np.array_equal(read.categories, masks.categories)
    for method in ("clas", "uniform", "random", "int-mu"):
        with ActivationSteerer(lively("qwen2_moe"), read, alpha=-2.0, method=method) as steerer:
            factors = steerer.factors("de").numpy()
        assert (factors[few] == 1).all()
        assert (factors[1:][~few[1:]] != 1).any()


def test_a_profile_is_kept_and_read(profiles, tmp_path: Path) -> None:
    profiled = profiles("deepseek_v3")
    profiled.save(tmp_path / "profile")
    read = Profile.load_finished(tmp_path / "profile")
    assert np.array_equal(read.mean("signed-mean", "all"), profiled.mean("signed-mean", "all"))
    assert np.array_equal(read.tokens_seen("last"), profiled.tokens_seen("last"))
    assert read.by_language["hi"].sums["all", "mean-abs"].dtype == np.float32


def test_expert_choice_is_counted_and_drawn(profiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = MaskSet.from_profile(profiles("qwen3_moe"), categorizer=NeuronCategorizer(min_tokens=1), bridge="1-3")
    choices = expert_choices(masks)
    assert [one.layer for one in choices] == [0, 1, 2, 3]
    assert all(np.allclose(one.shares.sum(axis=1), 1) for one in choices)
    assert all(one.distances[masks.index("en")] == 0 for one in choices)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1.0
    kept: list[Any] = []
    monkeypatch.setattr(expert_picture, "save", lambda figure, path: kept.append(figure) or path)
    for width in (None, 3.25):
        plot_experts(masks, tmp_path / "experts.png", width)
        figure = kept.pop()
        assert figure.get_figwidth() == (width or 6.3)
        assert not hard_to_read(figure)


def test_what_cannot_be_said_of_experts_is_refused(tokenizer, texts: ParallelTexts, masks: MaskSet) -> None:
    with pytest.raises(ClasError, match="no categories input by input of a mixture of experts"):
        profile_instances(lively("mixtral"), tokenizer, texts)
    with pytest.raises(ClasError, match="masks are of a model without experts"):
        expert_choices(masks)
    with pytest.raises(ClasError, match="min-tokens must be a whole number from 1 on"):
        NeuronCategorizer(min_tokens=0)


def test_the_handle_of_a_tap_that_is_off_takes_off_no_other() -> None:
    module = next(one.module for one in find_projections(lively("mixtral")) if one.experts)
    for first in (False, True):
        old = tap(module, lambda *_: None, first)
        old.remove()
        new = tap(module, lambda *_: None, first)
        assert not old.on
        old.remove()
        assert new.on
        new.remove()


def test_only_a_second_product_by_name_is_scaled() -> None:
    """Experts without a gate have a first product of the same shape, the other way round."""
    factors = np.full((4, 48), 2.0, dtype=np.float32)
    layer = "model.layers.1.mlp.experts"
    for name in ("down_proj", "w2_weight", "fc2.weight"):
        there = {f"{layer}.up_proj": (4, 48, 32), f"{layer}.{name}": (4, 32, 48)}
        assert set(expert_scales(layer, False, 32, factors, there)) == {f"{layer}.{name}"}
    alone = {f"{layer}.up_proj": (4, 48, 32)}
    each = {f"{layer}.{i}.up_t.weight": (32, 48) for i in range(4)}
    for there in (alone, each, {**alone, **each}):
        with pytest.raises(ClasError, match="has no weights of a known name and their shape for the second product"):
            expert_scales(layer, False, 32, factors, there)
    named = {f"{layer}.{i}.w2.weight": (32, 48) for i in range(4)}
    assert set(expert_scales(layer, False, 32, factors, {**alone, **each, **named})) == set(named)


def test_where_a_square_second_product_lies_is_told_by_its_name() -> None:
    factors, layer = np.full((4, 32), 2.0, dtype=np.float32), "model.layers.1.mlp.experts"
    for transposed, shape in ((True, (4, 32, 1)), (False, (4, 1, 32))):
        found = expert_scales(layer, transposed, 32, factors, {f"{layer}.down_proj": (4, 32, 32)})
        assert {key: one.shape for key, one in found.items()} == {f"{layer}.down_proj": shape}
        with pytest.raises(ClasError, match="has no weights of a known name and their shape"):
            expert_scales(layer, transposed, 32, factors, {f"{layer}.down_projs": (4, 32, 32)})


def experts_in(place: str) -> dict[str, tuple[int, int]]:
    return {f"{place}.experts.{i}.down_proj.weight": (32, 48) for i in range(4)}


@pytest.mark.parametrize(
    ("own", "module"),
    [
        ("model.layers.1.mlp", "model.layers.1.mlp"),
        ("model.layers.1.block_sparse_moe", "model.layers.1.mlp"),
        ("model.language_model.layers.1.mlp", "model.layers.1.mlp"),
        ("language_model.model.layers.1.mlp", "model.language_model.layers.1.mlp"),
        ("layers.1.mlp", "model.layers.1.mlp"),
    ],
)
def test_experts_of_another_decoder_in_a_checkpoint_are_told_apart(own: str, module: str) -> None:
    factors, ours = np.full((4, 48), 2.0, dtype=np.float32), experts_in(own)
    for beside in ("mtp.layers.1.mlp", "vision_tower.layers.1.mlp"):
        for there in ({**ours, **experts_in(beside)}, {**experts_in(beside), **ours}):
            assert set(expert_scales(f"{module}.experts", False, 32, factors, there)) == set(ours)


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ({**experts_in("backbone.layers.1.mlp"), **experts_in("mtp.layers.1.mlp")}, "several weights that could be it"),
        ({**experts_in("model.layers.1.mlp"), **experts_in("model.layers.1.again")}, "several weights that could be it"),
        ({"model.layers.1.mlp.gate.weight": (4, 32), **experts_in("mtp.layers.1.mlp")}, "no weights of a known name"),
    ],
)
def test_experts_that_cannot_be_told_apart_are_refused(there: dict[str, tuple[int, int]], why: str) -> None:
    with pytest.raises(ClasError, match=why):
        expert_scales("model.layers.1.mlp.experts", False, 32, np.ones((4, 48), dtype=np.float32), there)


def test_quantised_experts_are_refused() -> None:
    quantised = pytest.importorskip("transformers.integrations.finegrained_fp8")
    if not hasattr(quantised, "FP8Experts"):
        pytest.skip("this version of transformers has no experts in 8 bits")
    model = lively("qwen3_moe")
    quantised.replace_with_fp8_linear(model, ["lm_head"], FineGrainedFP8Config())
    kind = r"experts that are FP8Experts \('mlp\.experts'\), whose weights are quantised; supported are unquantised experts"
    with pytest.raises(ClasError, match=kind):
        find_projections(model)
    assert len(find_projections(model, "attn")) == model.config.num_hidden_layers


def test_experts_whose_weights_are_no_parameters_are_told_as_experts() -> None:
    """As those of gpt-oss in 4 bits, of which nothing but biases are."""
    model = lively("gpt_oss")
    for module in [one.module for one in find_projections(model)]:
        for name in ("gate_up_proj", "down_proj"):
            del module._parameters[name]
            setattr(module, name, object())
    with pytest.raises(ClasError, match=r"experts that are GptOssExperts \('mlp\.experts'\), which transformers runs by code"):
        find_projections(model)


def test_masks_of_a_mixture_are_told_as_ours_without_their_configuration(profiles, tmp_path: Path) -> None:
    masks = MaskSet.from_profile(profiles("mixtral"), categorizer=NeuronCategorizer(min_tokens=7), bridge="1-3")
    folder = masks.save(tmp_path / "masks")
    for name in (RECORD, "clas_config.json"):
        (folder / name).unlink(missing_ok=True)
    assert strange_masks(folder) == []  # as a killed process leaves it
    assert summary(masks)["min_tokens"] == 7


def test_a_copy_and_another_implementation_are_told() -> None:
    model = lively("mixtral")
    with ActivationSteerer(model, random_masks(model), alpha=-3.0) as steerer:
        with steerer.language("de"), pytest.raises(ClasError, match="This is a copy of the model"):
            logits(copy.deepcopy(model))
        model.set_experts_implementation("eager")
        with pytest.raises(ClasError, match="has lost its hook"):
            steerer.language("de")


def test_hf_clas_scores_and_writes_with_steered_experts(profiles, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    lively("qwen3_moe").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    masks = MaskSet.from_profile(profiles("qwen3_moe"), categorizer=NeuronCategorizer(min_tokens=1), bridge="1-3")
    asked = requests("loglikelihood", ("de",))
    options = {"device": "cpu", "batch_size": 2}
    plain = CLASLM(str(tmp_path), **options).loglikelihood(asked)
    assert CLASLM(str(tmp_path), masks=masks, alpha=0, **options).loglikelihood(asked) == plain
    assert CLASLM(str(tmp_path), masks=masks, alpha=-4.0, **options).loglikelihood(asked) != plain


@pytest.mark.parametrize("family", ["qwen3_next", "qwen3_moe"])  # the second shares prefixes, and writes all settings at once
def test_a_sweep_resumes_under_steered_experts(
    family: str, profiles, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """As `clas tune` runs it, in log-likelihoods and in generation."""
    masks = MaskSet.from_profile(profiles(family), categorizer=NeuronCategorizer(min_tokens=1), bridge="2-3")
    settings = grid(masks, [-3, 2])
    for name, task in load_tasks(["clas_mini_nli_hi", "clas_mini_qa_de"], [str(shipped("tasks"))]).items():
        answers = []
        for resume in (True, False):
            sweep = Sweep(FastLM(lively(family), tokenizer=tokenizer, batch_size=2), masks, settings, resume)
            assert (sweep._tape is not None) == resume
            sweep.start(tmp_path / f"{name}{resume}.jsonl", lambda done, total: None)
            rows = []
            for sweep.setting in range(len(settings)):
                samples = evaluate(sweep, {name: task}, limit=3, bootstrap_iters=0)["samples"][name]
                rows.append([one["resps"] for one in samples])
            answers.append(rows)
        assert answers[0] == answers[1]
