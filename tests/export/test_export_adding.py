"""What a method adds leaves as biases of a checkpoint, where the family can have them: hook and checkpoint are one function."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporting import made_masks, small_model, token_loglikelihoods, write
from safetensors.torch import load_file
from small_models import FAMILIES, HIDDEN, LAYERS, Run, make_model
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lm_eval_clas import ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, profile
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.disk.tensor_bytes import header
from lm_eval_clas.export import added_biases
from lm_eval_clas.export.biased_forms import choose_form
from lm_eval_clas.export.ia3_adapter import adapter_files
from lm_eval_clas.export.outline import outline, require_expressible, scalings
from lm_eval_clas.export.ways_out import ways_out
from lm_eval_clas.masks.residual_means import ResidualMeans
from lm_eval_clas.texts.corpora import ParallelTexts

METHODS = {"int-mu": 0.7, "arithmetic": 1.5, "diffmean": 0.5, "random-direction": -0.5}
OF_NEURONS = ("int-mu", "arithmetic")
# What a reader of the families' code finds. All others have no bias there, whatever their configuration says.
WITH_NEURONS = {"llama", "gpt_neox", "opt", "bloom", "xglm", "gpt2", "falcon"}
WITH_OUTPUTS = {*WITH_NEURONS, "cohere"}  # attention beside the MLP: the bias of its way out is as good
WITH_HEADS = {*WITH_OUTPUTS, "qwen3", "olmo2", "gemma2", "gemma3_text"}
NORM_BEHIND = {"gemma2", "gemma3_text", "olmo2", "glm4"}
EXPERTS = {
    "hidden_size": HIDDEN, "moe_intermediate_size": 16, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip


def lively(model: PreTrainedModel) -> PreTrainedModel:
    """The same with biases that are not 0, where it has any."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


def with_means(masks: MaskSet) -> MaskSet:
    """Masks with random numbers for all that methods need."""
    chance = np.random.default_rng(1)
    size = masks.config.model.fingerprint

    def numbers(*shape: int) -> np.ndarray:
        return chance.standard_normal(shape).astype(np.float32)

    residual = ResidualMeans(
        masks.languages, masks.bridge_layers, numbers(4, size.layers, HIDDEN), 5 + numbers(4, size.layers) ** 2,
        numbers(4, len(masks.bridge_layers), 3, HIDDEN),
    )  # fmt: skip
    return dataclasses.replace(masks, means=numbers(4, size.layers, size.neurons), residual=residual)


def small(family: str, folder: Path, **options: Any) -> tuple[PreTrainedModel, MaskSet]:
    """A small model, saved in a folder, and masks that fit it."""
    model = lively(small_model(family, **options))
    model.save_pretrained(folder, max_shard_size="20KB")
    return model, with_means(made_masks(model))


def hooked(model: PreTrainedModel, masks: MaskSet, **options: Any) -> torch.Tensor:
    with ActivationSteerer(model, masks, **options) as steerer, steerer.language("hi"):
        return token_loglikelihoods(model)


def loaded(folder: Path) -> PreTrainedModel:
    """As anybody loads it: the family's own class, and no weight missing or left over."""
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_hook_and_checkpoint_are_one_function_or_it_is_refused(family: str, tmp_path: Path) -> None:
    model, masks = small(family, tmp_path / "model")
    plain = token_loglikelihoods(model)
    for method in METHODS if family == "llama" else ("int-mu", "diffmean"):
        options: dict[str, Any] = {"method": method, "alpha": METHODS[method]}
        out = tmp_path / method
        of_neurons = method in OF_NEURONS
        if family in (WITH_NEURONS if of_neurons else WITH_OUTPUTS):
            expected = hooked(model, masks, **options)
            merged = loaded(write("merged", masks, tmp_path / "model", out, **options))
            torch.testing.assert_close(token_loglikelihoods(merged), expected, rtol=1e-5, atol=0)
            assert type(merged) is type(model)
            assert not torch.allclose(plain, expected, rtol=1e-4)
            continue
        why = "a norm, a factor, a gate" if family in NORM_BEHIND and not of_neurons else "needs a bias on .* has none there"
        with pytest.raises(ClasError, match=rf"method={method} cannot be merged into .*{why}.*evaluate it with"):
            write("merged", masks, tmp_path / "model", out, **options)
        assert not out.exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_which_families_can_have_biases_behind_their_heads(family: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(make_model(family).config)
    wanted = [[one.name] for one in find_projections(model, "attn")]
    found = choose_form(model, wanted)
    assert (found is not None) == (family in WITH_HEADS)
    assert found is None or found[1] == [name for (name,) in wanted]


def test_a_biased_llama_differs_in_what_it_needs_alone(tmp_path: Path) -> None:
    _, masks = small("llama", tmp_path / "model")
    folder = write("merged", masks, tmp_path / "model", tmp_path / "merged", method="int-mu", alpha=0.7)
    told = [json.loads((place / "config.json").read_text()) for place in (tmp_path / "model", folder)]
    assert told[1] == {**told[0], "mlp_bias": True}
    assert not told[0]["mlp_bias"]
    (one,), _ = scalings(masks, ["hi"], method="int-mu", alpha=0.7)
    assert one.done.shifts is not None
    shifts, factors = torch.from_numpy(one.done.shifts), torch.from_numpy(one.factors)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    held, total = {}, 0
    for shard in sorted((tmp_path / "model").glob("*.safetensors")):
        before, after = load_file(shard), load_file(folder / shard.name)
        held |= dict.fromkeys(after, shard.name)
        total += sum(one.numel() * one.element_size() for one in after.values())
        for key, weight in before.items():
            layer = int(key.split(".")[2]) if "down_proj" in key else None
            assert torch.equal(after.pop(key), weight if layer is None else weight * factors[layer]), key
            if layer is not None:
                bias = after.pop(key.replace("weight", "bias"))
                torch.testing.assert_close(bias, weight @ shifts[layer])
                assert bool(bias.any()) == (layer in (2, 3, 4))
        assert all(key.endswith((".gate_proj.bias", ".up_proj.bias")) and not bias.any() for key, bias in after.items())
    assert index["weight_map"] == held
    assert index["metadata"]["total_size"] == total
    assert index["metadata"].get("total_parameters", loaded(folder).num_parameters()) == loaded(folder).num_parameters()


def test_one_file_and_sixteen_bits(tmp_path: Path) -> None:
    model = make_model(dtype=torch.bfloat16)
    masks = with_means(made_masks(model))
    model.save_pretrained(tmp_path / "model")
    folder = write("merged", masks, tmp_path / "model", tmp_path / "merged", method="diffmean", alpha=0.5)
    (one,), _ = scalings(masks, ["hi"], method="diffmean", alpha=0.5)
    assert one.done.shifts is not None
    file = load_file(folder / "model.safetensors")
    for layer in range(LAYERS):
        expected = torch.from_numpy(one.done.shifts[layer]).bfloat16()
        assert torch.equal(file[f"model.layers.{layer}.mlp.down_proj.bias"], expected)
    _, begin = header(folder / "model.safetensors")
    assert begin % 8 == 0
    assert {tensor.dtype for tensor in file.values()} == {torch.bfloat16}


@pytest.mark.parametrize(("multiplier", "possible"), [(1.0, True), (0.999, False)])
def test_a_residual_multiplier_is_found_by_running_the_layer(multiplier: float, possible: bool, tmp_path: Path) -> None:
    sizes = {**FAMILIES["llama"], "residual_multiplier": multiplier}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["granite"](vocab_size=300, initializer_range=0.3, **sizes)).eval()
    assert all(bool(names) == possible for names in ways_out(model, (1, 3)).values())
    model.save_pretrained(tmp_path / "model")
    masks = with_means(made_masks(model))
    for method in ("int-mu", "diffmean"):
        options: dict[str, Any] = {"method": method, "alpha": METHODS[method]}
        if method == "diffmean" and not possible:
            with pytest.raises(ClasError, match="a norm, a factor, a gate"):
                write("merged", masks, tmp_path / "model", tmp_path / method, **options)
            continue
        merged = loaded(write("merged", masks, tmp_path / "model", tmp_path / method, **options))
        torch.testing.assert_close(token_loglikelihoods(merged), hooked(model, masks, **options), rtol=1e-5, atol=0)


def test_the_ways_out_are_those_of_the_code() -> None:
    """Llama has attention before the MLP, Cohere beside it, and Gemma 3 a norm behind both."""
    assert ways_out(make_model("llama"), (1,)) == {1: ("model.layers.1.mlp.down_proj",)}
    assert set(ways_out(make_model("cohere"), (1,))[1]) == {"model.layers.1.mlp.down_proj", "model.layers.1.self_attn.o_proj"}
    assert ways_out(make_model("gemma3_text"), (0, 5)) == {0: (), 5: ()}
    model = make_model("gpt2")
    before = {name: one.clone() for name, one in model.state_dict().items()}
    assert ways_out(model, (0,)) == {0: ("transformer.h.0.mlp.c_proj",)}
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())


def test_experts_take_no_constants(tmp_path: Path) -> None:
    pytest.importorskip("transformers.integrations.moe", reason="transformers 4 has no registry of experts' functions")
    torch.manual_seed(0)
    tokens = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["qwen3_moe"](**tokens, **EXPERTS)).eval()
    model.save_pretrained(tmp_path / "model")
    masks = with_means(made_masks(model))
    with pytest.raises(ClasError, match="are experts, and what is added to their neurons is no bias"):
        write("merged", masks, tmp_path / "model", tmp_path / "out", method="arithmetic")
    with pytest.raises(ClasError, match="method=diffmean cannot be merged into"):
        write("merged", masks, tmp_path / "model", tmp_path / "out", method="diffmean")


def test_heads_take_constants_too(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, tmp_path: Path) -> None:
    model = make_model()
    profiled = profile(model, tokenizer, texts, max_tokens=60, site="attn")
    middle = NeuronCategorizer(threshold=float(np.median(profiled.mean("signed-mean", "all")[:, 2:5])))
    masks = MaskSet.from_profile(profiled, categorizer=middle, bridge="2-4", keep_means=True)
    model.save_pretrained(tmp_path / "model")
    options: dict[str, Any] = {"method": "arithmetic", "alpha": 40.0}
    merged = loaded(write("merged", masks, tmp_path / "model", tmp_path / "merged", **options))
    torch.testing.assert_close(token_loglikelihoods(merged), hooked(model, masks, **options), rtol=1e-5, atol=0)
    assert merged.config.attention_bias
    assert not merged.config.mlp_bias


@pytest.mark.parametrize("kind", ["ia3", "merged"])
@pytest.mark.parametrize("method", [*METHODS, "incline"])
def test_what_nothing_can_do_is_said_before_masks_are_looked_at(clas: Run, kind: str, method: str, tmp_path: Path) -> None:
    if kind == "merged" and method != "incline":
        require_expressible(method, kind)
        return
    code, _, error = clas(
        "export", tmp_path / "no masks", "--model", "nowhere", "--language", "hi", "--format", kind, "--method", method,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 2
    by = "by a map of that" if method == "incline" else "an adapter's vectors only multiply; use --format merged"
    assert by in " ".join(error.split())


def test_an_adapter_never_loses_what_is_added(tmp_path: Path) -> None:
    _, masks = small("llama", tmp_path / "model")
    (one,), _ = scalings(masks, ["hi"], method="int-mu", alpha=0.7)
    with pytest.raises(ClasError, match="method=int-mu is no"):
        adapter_files(one, outline(str(tmp_path / "model"), masks))


def test_the_command_tries_the_model_once_and_not_again(
    clas: Run, checkpoint: Path, full: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = full.save(tmp_path / "masks")
    command = (
        "export", masks, "--model", checkpoint, "--language", "hi,de", "--format", "merged", "--method", "diffmean",
        "--alpha", 0.3, "--out", tmp_path / "out",
    )  # fmt: skip
    tried: list[Any] = []
    monkeypatch.setattr(added_biases, "ways_out", lambda *given: tried.append(given) or ways_out(*given))
    code, _, error = clas(*command)
    assert code == 0, error
    assert len(tried) == 1
    assert "In config.json, mlp_bias is true now" in " ".join(error.split())
    for language in ("hi", "de"):
        expected = make_model()
        with ActivationSteerer(expected, full, method="diffmean", alpha=0.3) as steerer, steerer.language(language):
            scores = token_loglikelihoods(expected)
        torch.testing.assert_close(token_loglikelihoods(loaded(tmp_path / "out" / language)), scores, rtol=1e-5, atol=0)
    card = (tmp_path / "out" / "de" / "README.md").read_text()
    assert "a constant vector added to what leaves layers 2, 3, 4" in card
    assert "It is steering by `diffmean`" in card
    assert "beta" not in card
    record = json.loads((tmp_path / "out" / "de" / "clas_export.json").read_text())
    assert record["modules"] == [f"model.layers.{layer}" for layer in (2, 3, 4)]
    assert record["residual_hash"] == full.residual_hash
    code, _, error = clas(*command)
    assert (code, len(tried)) == (0, 1)
    assert "Already written, skipped: hi, de" in " ".join(error.split())
    assert full.residual is not None
    other = dataclasses.replace(full.residual, norms=2 * full.residual.norms)
    dataclasses.replace(full, residual=other).save(tmp_path / "others")
    code, _, error = clas(command[0], tmp_path / "others", *command[2:])
    assert (code, len(tried)) == (0, 2), error  # same masks, but other means: written anew


def test_strengths_that_were_tuned_are_those_of_the_method(full: MaskSet) -> None:
    with pytest.raises(ClasError, match="run 'clas tune --method diffmean' on them first"):
        scalings(full, ["hi"], method="diffmean", alpha="tuned")
