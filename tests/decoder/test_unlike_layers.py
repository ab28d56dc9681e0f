"""Decoders whose layers are not alike, or lie in a model with towers: the decoder is found, and what is left out is said."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, profile
from lm_eval_clas.decoder.anatomy.configuration import field, text_config, vocabulary
from lm_eval_clas.decoder.anatomy.layer_axes import LayerAxes
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.families.random_masks import random_masks
from lm_eval_clas.families.tiny_models import tiny_config, tiny_model
from lm_eval_clas.texts.corpora import ParallelTexts
from lm_eval_clas.verifying.merged_weights import merged

transformers = pytest.importorskip("transformers", minversion="5.0", reason="these families came with transformers 5")
IDS = torch.arange(7, 47).reshape(2, 20)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def built(name: str, **options: object) -> nn.Module:
    """A tiny model of a family, with fields changed after it was shrunk."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = tiny_config(CONFIG_MAPPING[name]())
    for key, value in options.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def test_a_configuration_without_a_vocabulary_is_one_sentence() -> None:
    model = built("llama")
    assert vocabulary(model) == model.config.vocab_size
    without = nn.Module()
    without.config = SimpleNamespace(hidden_size=8)
    with pytest.raises(ClasError, match="Module has no vocab_size"):
        vocabulary(without)


def test_a_configuration_that_cannot_say_is_read() -> None:
    """Gemma 4's raises an error of its own for head_dim, with or without a default."""
    model = built("gemma4_text")
    fields = {name: field(text_config(model), name) for name in ("head_dim", "num_attention_heads", "no such field")}
    assert fields["num_attention_heads"] == 4
    assert fields["no such field"] is None

    class Raises:
        @property
        def head_dim(self) -> int:
            raise RuntimeError("layers differ")

    assert field(Raises(), "head_dim", 3) == 3


@pytest.mark.parametrize("family", ["gemma3n_text", "gemma4_text"])
def test_the_mlp_wins_over_the_gate_of_per_layer_embeddings_and_the_low_rank_detour(family: str) -> None:
    model = tiny_model(family)
    assert any("per_layer_input_gate" in name for name, _ in model.named_modules())
    assert {one.name.split(".", 3)[3] for one in find_projections(model)} == {"mlp.down_proj"}


def test_layers_of_unequal_width_are_profiled_and_steered(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts) -> None:
    model = built("gemma3n_text", intermediate_size=[48, 24, 48, 40])
    size = ModelFingerprint.of(model, find_projections(model))
    assert (size.neurons, size.widths) == (48, [48, 24, 48, 40])
    profiled = profile(model, tokenizer, texts, max_tokens=60)
    mean = profiled.mean("signed-mean", "all")
    assert (mean[:, 1, :24] != 0).all()
    assert not mean[:, 1, 24:].any()
    masks = MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=-1.0), bridge="0-3", keep_means=True)
    assert masks.categories[1].tolist() == [3] * 24 + [5] * 24  # no neuron is neither dead nor active
    assert not masks.active[:, 1, 24:].any()
    other = random_masks(model)
    for method in ("clas", "uniform", "random"):
        with ActivationSteerer(model, other, alpha=-3.0, method=method) as steerer, steerer.language("de"):
            steered, factors = logits(model), steerer.factors("de")
        assert (factors[1, 24:] == 1).all()
        with merged(find_projections(model), factors, None):
            torch.testing.assert_close(steered, logits(model), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(steered, logits(model), atol=1e-4)


def test_masks_of_unlike_layers_are_read_as_they_were_written(tmp_path) -> None:
    masks = random_masks(built("gemma3n_text", intermediate_size=[48, 24, 48, 40]))
    read = MaskSet.load(masks.save(tmp_path / "masks"))
    assert np.array_equal(read.categories, masks.categories)
    assert (read.hash, read.config.model.fingerprint.holds) == (masks.hash, ("1x48", "1x24", "1x48", "1x40"))
    with pytest.raises(ClasError, match=r"widths by layer 1x48, 1x24, 1x40 there, None in the model"):
        ActivationSteerer(tiny_model("gemma3n_text"), read)


TOWERS = [
    "gemma3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "mistral3", "llava", "paligemma", "idefics3", "smolvlm", "internvl",
    "qwen2_audio", "voxtral",
]  # fmt: skip


@pytest.mark.parametrize("family", TOWERS)
@pytest.mark.parametrize("site", ["mlp", "attn"])
def test_a_tower_of_the_decoders_depth_and_width_is_not_in_the_way(family: str, site) -> None:
    model = tiny_model(family)
    names = [one.name for one in find_projections(model, site)]
    assert len(names) == 4
    assert all("language_model" in name or "text_model" in name for name in names)
    assert not any("vision" in name or "audio" in name or "visual" in name for name in names)


@pytest.mark.parametrize("site", ["mlp", "attn"])
def test_a_tower_is_never_taken_for_a_decoder_that_has_no_such_place(site) -> None:
    """A wrapper around Mamba: its tower has MLPs and attention, at the decoder's depth and width, and another name."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = tiny_config(CONFIG_MAPPING["llava"]())
    config.text_config = tiny_config(transformers.MambaConfig())
    model = transformers.AutoModelForImageTextToText.from_config(config)
    model.model.picture = model.model.vision_tower  # not to be told by its name
    del model.model.vision_tower
    with pytest.raises(ClasError, match=r"its modules are model\.language_model\.layers\.0"):
        find_projections(model, site)


def test_linear_attention_and_attention_are_not_mixed() -> None:
    model = tiny_model("qwen3_next")
    found = find_projections(model, "attn")
    kinds = text_config(model).layer_types
    assert [one.layer for one in found] == [layer for layer, kind in enumerate(kinds) if kind == "full_attention"]
    assert all(one.name.endswith("self_attn.o_proj") and one.heads == 4 for one in found)
    masks = random_masks(model, "attn")
    with ActivationSteerer(model, masks, alpha=-3.0) as steerer, steerer.language("de") as block:
        steered, factors = logits(model), steerer.factors("de")
    assert list(block.positions) == [one.layer for one in found]
    with merged(found, factors, None):
        torch.testing.assert_close(steered, logits(model), rtol=1e-4, atol=1e-4)


def test_heads_are_counted_by_layer(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts) -> None:
    """A head is active as a whole, in the layers that have attention; the others have no neuron."""
    model = tiny_model("qwen3_next")
    profiled = profile(model, tokenizer, texts, max_tokens=60, site="attn")
    means = profiled.mean("mean-abs", "all")
    with_heads = [one.layer for one in find_projections(model, "attn")]
    middle = float(np.median(means[:, with_heads]))
    active = NeuronCategorizer("mean-abs", threshold=middle, by="head").active(profiled)
    heads = means[:, with_heads].reshape(len(means), len(with_heads), 4, -1).mean(-1) > middle
    assert np.array_equal(active[:, with_heads], np.repeat(heads, 8, axis=-1))
    assert not active[:, [layer for layer in range(4) if layer not in with_heads]].any()


@pytest.mark.parametrize("family", ["rwkv", "mamba", "mamba2", "falcon_mamba"])
def test_a_recurrence_is_no_attention(family: str) -> None:
    with pytest.raises(ClasError, match="Found no single output projection of attention"):
        find_projections(tiny_model(family), "attn")


def test_layers_that_run_with_images_only_are_left_out_and_said_so() -> None:
    model = tiny_model("mllama")
    cross = [layer for layer in text_config(model).cross_attention_layers if layer < 4]
    size = ModelFingerprint.of(model, find_projections(model))
    assert size.empty_layers == tuple(cross)
    assert cross
    with ActivationSteerer(model, random_masks(model), alpha=-3.0) as steerer, steerer.language("de") as block:
        logits(model)
    assert set(block.positions) == set(range(4)) - set(cross)


@pytest.mark.parametrize("family", ["doge", "nemotron_h", "deepseek_v3"])
def test_a_mixture_is_told_by_modules_and_not_by_fields(family: str) -> None:
    """Their configurations name experts; here none of their layers has any."""
    options = {
        "deepseek_v3": {"first_k_dense_replace": 4},
        "nemotron_h": {"layers_block_type": ["linear_attention", "mlp"] * 2},
    }
    found = find_projections(built(family, **options.get(family, {})))
    assert found
    assert not any(one.experts for one in found)


@pytest.mark.parametrize("family", ["llama4_text", "jetmoe"])
def test_experts_of_another_make_are_refused_with_the_reason(family: str) -> None:
    with pytest.raises(ClasError, match=r"mixture of experts that are \w+Experts .* code of their own; .*--site attn"):
        find_projections(tiny_model(family))


def test_bert_keeps_the_halves_of_its_mlp_in_two_modules() -> None:
    assert {one.name.split(".", 4)[4] for one in find_projections(tiny_model("bert"))} == {"output.dense"}


@pytest.mark.parametrize(
    ("written", "widths", "units"),
    [(["1x3", "", "2x2+1x1"], [3, 0, 5], 3), (["4x2"], [8], 4)],
)
def test_a_layout_reads_what_it_writes(written: list[str], widths: list[int], units: int) -> None:
    layout = LayerAxes.parse(written)
    assert (list(layout.written), layout.widths, layout.units) == (written, widths, units)
    values = np.arange(layout.units * len(written)).reshape(len(written), -1).astype(float)
    spread = layout.spread(values)
    assert np.array_equal(layout.pool(spread) * (layout.pool(layout.exists.astype(float)) > 0), layout.pool(spread))
    assert not spread[~layout.exists].any()


@pytest.mark.parametrize("written", ["0x3", "3", "1x3+", "x", "1x2;1x2"])
def test_a_layout_of_another_form_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="does not say what a layer holds"):
        LayerAxes.parse([written])


def test_recurrent_gemma_reads_padding_with_and_without_steering() -> None:
    """Its recurrence runs over padding on the left: a padded batch is not its rows alone, in the model as it is."""
    model = tiny_model("recurrent_gemma")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    masks, row = random_masks(model), IDS[:1, :9]
    padded, mask = torch.cat([torch.zeros_like(row), row], dim=1), torch.tensor([[0] * 9 + [1] * 9])

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            return model(input_ids=row).logits[:, -1], model(input_ids=padded, attention_mask=mask).logits[:, -1]

    alone, in_batch = both()
    assert not torch.allclose(alone, in_batch, atol=0.1)
    with ActivationSteerer(model, masks, alpha=-2.0) as steerer:
        with steerer.language("de"):
            steered = both()
        with merged(find_projections(model), steerer.factors("de"), None):
            torch.testing.assert_close(steered, both(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["d_model", "n_embd"])
def test_a_hidden_size_of_another_name_is_found_and_none_is_told(name: str) -> None:
    model = tiny_model("llama")
    expected = ModelFingerprint.of(model, find_projections(model))
    setattr(model.config, name, model.config.hidden_size)
    vars(model.config)["hidden_size"] = None  # the class checks what is assigned
    assert [one.name for one in find_projections(model)] == [one.name for one in find_projections(tiny_model("llama"))]
    assert ModelFingerprint.of(model, find_projections(model)).hidden_size == expected.hidden_size
    delattr(model.config, name)
    with pytest.raises(ClasError, match="The configuration of LlamaForCausalLM has no hidden size"):
        find_projections(model)
