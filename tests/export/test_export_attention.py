"""Site attn leaves the harness as site mlp does: hook, (IA)3 adapter and merged checkpoint of every family are one function."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporting import token_loglikelihoods, write
from family_modules import modules
from safetensors.torch import load_file
from small_models import FAMILIES, HIDDEN, LAYERS, Run, make_model
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lm_eval_clas import ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, Profile, profile
from lm_eval_clas.decoder.checkpoint import weight_key
from lm_eval_clas.disk.tensor_bytes import header
from lm_eval_clas.export.cards import masks_card
from lm_eval_clas.export.outline import outline
from lm_eval_clas.neurons.activity import By
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.options import SteeringOptions
from lm_eval_clas.texts.corpora import ParallelTexts

peft = pytest.importorskip("peft")
ALPHA = -4.0
HEADS = 4
BRIDGE = (2, 3, 4)
# Half of the 20 tokens that are scored see only a part of those before them.
WINDOWED = ("mistral", "gemma2", "gemma3_text")
WINDOW = 8
EXPERTS = {
    "hidden_size": HIDDEN, "moe_intermediate_size": 16, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip


def small_model(family: str) -> PreTrainedModel:
    if family in FAMILIES:
        return make_model(family)
    torch.manual_seed(0)
    tokens = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**tokens, **EXPERTS), dtype=torch.float32).eval()


@pytest.fixture(autouse=True)
def _narrow_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for family in WINDOWED:
        monkeypatch.setitem(FAMILIES, family, FAMILIES[family] | {"sliding_window": WINDOW})


@pytest.fixture(scope="module")
def profiles(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts) -> Any:
    """Profiles of attention by family, each made once."""
    return cache(lambda family: profile(small_model(family), tokenizer, texts, max_tokens=60, site="attn"))


def masks_of(profiled: Profile, by: By) -> MaskSet:
    """Masks with a threshold in the middle, so that languages differ."""
    middle = float(np.median(profiled.units("signed-mean", "all", by)[:, BRIDGE]))
    return MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=middle, by=by), bridge="2-4")


def language_of(masks: MaskSet) -> str:
    """The language whose factors differ most within layers: a norm after attention (Gemma, OLMo 2) undoes one gain for all."""
    steering = SteeringOptions.parse(masks, ALPHA)
    return max(("hi", "de", "zh"), key=lambda one: float(intervention_in(masks, steering, one).factors.std(axis=1).sum()))


@pytest.mark.parametrize("by", ["channel", "head"])
@pytest.mark.parametrize("family", [*FAMILIES, "qwen3_moe"])
def test_hook_adapter_and_merged_checkpoint_are_one_function(family: str, by: By, profiles: Any, tmp_path: Path) -> None:
    """Of a mixture of experts, too, whose MLPs cannot be exported."""
    model, masks = small_model(family), masks_of(profiles(family), by)
    language = language_of(masks)
    model.save_pretrained(tmp_path / "model")
    plain = token_loglikelihoods(model)
    with ActivationSteerer(model, masks, alpha=ALPHA) as steerer, steerer.language(language):
        hooked, factors = token_loglikelihoods(model), steerer.factors(language)
    assert not torch.allclose(plain, hooked, rtol=1e-4)

    folder = write("merged", masks, tmp_path / "model", tmp_path / "merged", language, alpha=ALPHA)
    merged = AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.testing.assert_close(token_loglikelihoods(merged), hooked, rtol=1e-5, atol=0)

    folder = write("ia3", masks, tmp_path / "model", tmp_path / "ia3", language, alpha=ALPHA)
    adapted = peft.PeftModel.from_pretrained(model, folder)
    torch.testing.assert_close(token_loglikelihoods(adapted), hooked, rtol=1e-5, atol=0)
    vectors = load_file(folder / "adapter_model.safetensors")
    assert [tuple(one.shape) for one in vectors.values()] == [(1, factors.shape[1])] * len(BRIDGE)
    if by == "head":
        for vector in vectors.values():
            assert all(len(head.unique()) == 1 for head in vector.view(HEADS, -1))


@pytest.mark.parametrize("family", FAMILIES)
def test_merging_changes_the_output_projections_of_the_bridge_alone(family: str, profiles: Any, tmp_path: Path) -> None:
    model, masks = small_model(family), masks_of(profiles(family), "head")
    language = language_of(masks)
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    merged = write("merged", masks, tmp_path / "model", tmp_path / "merged", language, alpha=ALPHA)
    factors = torch.from_numpy(intervention_in(masks, SteeringOptions.parse(masks, ALPHA), language).factors)
    names = {id(module): name for name, module in model.named_modules()}
    outputs = {f"{names[id(one)]}.weight": layer for layer, one in enumerate(modules(model, family, "attn"))}
    moved = {key for key, layer in outputs.items() if (factors[layer] != 1).any()}
    assert moved
    assert {outputs[key] for key in moved} <= set(BRIDGE)
    changed = set()
    for shard in (tmp_path / "model").glob("*.safetensors"):
        before, after = load_file(shard), load_file(merged / shard.name)
        assert header(shard) == header(merged / shard.name)
        for key, weight in before.items():
            if not torch.equal(after[key].view(torch.uint8), weight.view(torch.uint8)):
                scale = factors[outputs[key]]
                assert torch.equal(after[key], weight * (scale[:, None] if family == "gpt2" else scale)), key
                changed.add(key)
    assert changed == moved


@pytest.mark.parametrize("by", ["channel", "head"])
def test_the_command_writes_all_languages_in_one_call(
    clas: Run, checkpoint: Path, profiles: Any, by: By, tmp_path: Path
) -> None:
    masks = masks_of(profiles("llama"), by)
    folder = masks.save(tmp_path / "masks")
    model = make_model()
    for kind in ("merged", "ia3"):
        code, printed, error = clas(
            "export", folder, "--model", checkpoint, "--language", "all", "--format", kind, "--alpha", ALPHA,
            "--out", tmp_path / kind,
        )  # fmt: skip
        assert code == 0, error
        assert str(tmp_path / kind / "zh") in printed
        assert {path.name for path in (tmp_path / kind).iterdir()} == {"hi", "de", "zh"}
    for language in ("hi", "de", "zh"):
        with ActivationSteerer(model, masks, alpha=ALPHA) as steerer, steerer.language(language):
            hooked = token_loglikelihoods(model)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged" / language).eval()
        adapted = peft.PeftModel.from_pretrained(make_model(), tmp_path / "ia3" / language)
        for one in (merged, adapted):
            torch.testing.assert_close(token_loglikelihoods(one), hooked, rtol=1e-5, atol=0)
        for kind in ("merged", "ia3"):
            told = json.loads((tmp_path / kind / language / "clas_export.json").read_text())
            assert (told["site"], told["by"], told["masks_hash"]) == ("attn", by, masks.hash)
            card = (tmp_path / kind / language / "README.md").read_text()
            assert "attention's output projection" in card
            assert "down-projection" not in card


@pytest.mark.parametrize(("by", "units"), [("channel", "channels of attention's output"), ("head", "attention heads")])
def test_the_card_of_masks_names_their_units(by: By, units: str, profiles: Any) -> None:
    assert f"Which {units} of `" in masks_card(masks_of(profiles("llama"), by), "user/name")


def test_what_cannot_leave_is_refused(profiles: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = masks_of(profiles("llama"), "head")
    monkeypatch.setitem(FAMILIES, "llama", FAMILIES["llama"] | {"num_attention_heads": 8})
    make_model().save_pretrained(tmp_path / "other")
    with pytest.raises(ClasError, match="attention heads 4 there, 8 in the model"):
        outline(str(tmp_path / "other"), masks)
    config = masks.config.model_copy(update={"site": "mlp", "by": "channel"})
    with pytest.raises(ClasError, match="neurons per layer 32 there, 48 in the model"):
        outline(str(checkpoint), MaskSet(config, masks.active))
    for path in checkpoint.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    told = json.loads((tmp_path / "config.json").read_text())
    told["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(ClasError, match=r"is quantised.*--format ia3"):
        write("merged", masks, tmp_path, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert write("ia3", masks, tmp_path, tmp_path / "ia3").is_dir()


def test_keys_of_attention_are_told_from_those_of_towers_and_mlps() -> None:
    keys = [f"language_model.model.layers.{i}.self_attn.o_proj.weight" for i in range(3)]
    towers = [f"vision_tower.layers.{i}.self_attn.o_proj.weight" for i in range(3)]
    assert weight_key("model.language_model.layers.1.self_attn.o_proj", keys + towers) == keys[1]
    gpt2 = ["h.1.mlp.c_proj.weight", "h.1.attn.c_proj.weight", "h.11.attn.c_proj.weight"]
    assert weight_key("transformer.h.1.attn.c_proj", gpt2) == gpt2[1]
    with pytest.raises(ClasError, match=r"none that ends in 'layers\.1\.self_attn\.o_proj\.weight'"):
        weight_key("model.layers.1.self_attn.o_proj", towers)
