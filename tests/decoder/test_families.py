"""Every family at both sites: found, profiled and steered as slow references say, which name each family's modules."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from family_modules import SITES, modules
from requests_made import requests
from slow_steering import reference
from small_models import FAMILIES, HIDDEN, LAYERS, columns, make_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, Profile, profile
from lm_eval_clas.decoder.projections import Site, find_projections
from lm_eval_clas.texts.corpora import ParallelTexts

IDS = torch.arange(7, 47).reshape(2, 20)


every = pytest.mark.parametrize(("family", "site"), [(family, site) for family in FAMILIES for site in SITES])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(scope="module")
def profiles(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts):
    """Profiles of small models by family and site, each made once."""
    return cache(lambda family, site: profile(make_model(family), tokenizer, texts, max_tokens=60, site=site))


def masks_of(profiled: Profile, **options: object) -> MaskSet:
    """Masks with all categories: the threshold is the middle of all means in the bridge."""
    middle = float(np.median(profiled.mean("signed-mean", "all")[:, 2:5]))
    return MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=middle, **options), bridge="2-4")


@every
def test_finds_what_a_reader_of_the_code_would_name(family: str, site: Site) -> None:
    model = make_model(family)
    found = find_projections(model, site)
    assert [projection.module for projection in found] == modules(model, family, site)
    assert all(columns(one.module).shape == (HIDDEN, one.neurons) for one in found)
    assert [one.heads for one in found] == [4 if site == "attn" else None] * LAYERS


@every
def test_profiles_equal_the_sums_of_handmade_hooks(
    family: str, site: Site, profiles, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    """One text at a time, without padding, in float64."""
    profiled, model = profiles(family, site), make_model(family)
    seen: list[torch.Tensor] = []
    for module in modules(model, family, site):
        module.register_forward_pre_hook(lambda module, args: seen.append(args[0].reshape(-1, args[0].shape[-1])[1:].double()))
    sums, last = 0.0, 0.0
    for text in texts.texts["hi"]:
        seen.clear()
        with torch.no_grad():
            model(tokenizer(text, return_tensors="pt", truncation=True, max_length=60)["input_ids"])
        h = torch.stack(seen).numpy()  # [layers, tokens without BOS, neurons]
        sums, last = sums + h.sum(1), last + np.abs(h[:, -1])
    found = profiled.by_language["hi"]
    np.testing.assert_allclose(found.sums["all", "signed-mean"], sums, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.sums["last", "mean-abs"], last, rtol=1e-4, atol=1e-4)
    assert profiled.config.site == site
    assert profiled.config.fingerprint.neurons == sums.shape[1]


@every
def test_steering_equals_the_papers_equations_and_scaled_columns(family: str, site: Site, profiles) -> None:
    masks = masks_of(profiles(family, site))
    model = make_model(family)
    plain = logits(model)
    with ActivationSteerer(model, masks, alpha=-3.0) as steerer, steerer.language("de"):
        steered, factors = logits(model), steerer.factors("de")
    with ActivationSteerer(model, masks, alpha=0.0) as steerer, steerer.language("de"):
        assert torch.equal(logits(model), plain)
    with ActivationSteerer(model, masks, alpha=-3.0) as steerer, steerer.language("en"):
        assert torch.equal(logits(model), plain)
    assert not torch.allclose(steered, plain, atol=1e-3)
    handles = [
        module.register_forward_pre_hook(
            lambda module, args, layer=layer: (reference(masks, "de", -3.0, 0.4, 0.2, layer, args[0]), *args[1:])
        )
        for layer, module in enumerate(modules(model, family, site))
    ]
    torch.testing.assert_close(steered, logits(model), rtol=1e-4, atol=1e-4)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        for layer, module in enumerate(modules(model, family, site)):
            columns(module).mul_(factors[layer])
    torch.testing.assert_close(steered, logits(model), rtol=1e-4, atol=1e-4)


@every
def test_zeroed_neurons_are_zeroed_columns(family: str, site: Site) -> None:
    model = make_model(family)
    gone = torch.arange(find_projections(model, site)[3].neurons) % 3 == 0
    hook = find_projections(model, site)[3].module.register_forward_pre_hook(lambda module, args: (args[0] * ~gone, *args[1:]))
    without = logits(model)
    hook.remove()
    with torch.no_grad():
        columns(modules(model, family, site)[3])[:, gone] = 0
    torch.testing.assert_close(without, logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "bloom"])  # always 4 x hidden wide
def test_an_mlp_as_wide_as_the_model_is_found(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    width = {"ffn_dim": HIDDEN, "n_inner": HIDDEN, "ffn_hidden_size": HIDDEN, "intermediate_size": HIDDEN}
    own = FAMILIES[family]
    monkeypatch.setitem(FAMILIES, family, own | {name: value for name, value in width.items() if name in own})
    model = make_model(family)
    for site in SITES:
        assert [one.module for one in find_projections(model, site)] == modules(model, family, site)


def moe(name: str, **options: object) -> PreTrainedModel:
    import transformers

    torch.manual_seed(0)
    sizes = {
        "hidden_size": HIDDEN,
        "intermediate_size": 24,
        "moe_intermediate_size": 16,
        "num_hidden_layers": LAYERS,
        "head_dim": 8,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_experts_per_tok": 2, "initializer_range": 0.3}
    config = getattr(transformers, f"{name}Config")(vocab_size=300, pad_token_id=0, **sizes, **heads, **options)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


@pytest.mark.parametrize(("name", "experts"), [("Mixtral", "num_local_experts"), ("Qwen3Moe", "num_experts")])
def test_the_attention_of_a_mixture_is_steered(
    name: str, experts: str, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    model = moe(name, **{experts: 4})
    if not hasattr(model, "set_experts_implementation"):  # transformers 4 has a module for each expert, and several in a layer
        with pytest.raises(ClasError, match=r"mixture of experts that are .*--site attn"):
            find_projections(model)
    plain = logits(model)
    masks = masks_of(profile(model, tokenizer, texts, max_tokens=60, site="attn"))
    with ActivationSteerer(model, masks, alpha=-3.0) as steerer, steerer.language("de"):
        steered, factors = logits(model), steerer.factors("de")
    with torch.no_grad():
        for layer in range(LAYERS):
            model.model.layers[layer].self_attn.o_proj.weight.mul_(factors[layer])
    torch.testing.assert_close(steered, logits(model), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(steered, plain, atol=1e-3)


def test_a_dense_mlp_beside_the_experts_is_steered_by_its_name() -> None:
    model = moe("Qwen2Moe", num_experts=4, shared_expert_intermediate_size=40)
    found = find_projections(model, pattern="*.shared_expert.down_proj")
    assert [one.neurons for one in found] == [40] * LAYERS


@pytest.mark.parametrize("options", [{"load_in_8bit": True}, {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32}])
@pytest.mark.parametrize("site", SITES)
def test_quantised_weights_are_profiled_and_steered(
    options: dict[str, object], site: Site, tmp_path, monkeypatch, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    """The hook multiplies the input of the quantised module: the same as multiplying by hand."""
    pytest.importorskip("bitsandbytes", reason="8-bit and 4-bit weights need bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    monkeypatch.setitem(FAMILIES, "llama", FAMILIES["llama"] | {"hidden_size": 64, "intermediate_size": 128})  # whole blocks
    make_model("llama").save_pretrained(tmp_path)
    quantised = BitsAndBytesConfig(**options)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantised, dtype=torch.float32, device_map="cpu")
    assert type(find_projections(model, site)[0].module).__name__.startswith("Linear")
    assert type(find_projections(model, site)[0].module) is not torch.nn.Linear
    masks = masks_of(profile(model, tokenizer, texts, max_tokens=60, site=site))
    plain = logits(model)
    with ActivationSteerer(model, masks, alpha=-3.0) as steerer, steerer.language("de"):
        steered, factors = logits(model), steerer.factors("de")
    assert not torch.allclose(steered, plain, atol=1e-2)
    assert torch.equal(logits(model), plain)
    for row, module in zip(factors, modules(model, "llama", site), strict=True):
        module.register_forward_pre_hook(lambda module, args, row=row: (args[0] * row,))
    # Bit for bit, as the kernels round activations themselves, where the last bit of float32 may tip the balance.
    assert torch.equal(logits(model), steered)


@pytest.mark.parametrize("options", [{"load_in_8bit": True}, {"load_in_4bit": True}])
def test_a_checkpoint_saved_in_few_bits_is_steered_in_the_harness(
    options: dict[str, bool], tmp_path, monkeypatch, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    pytest.importorskip("bitsandbytes", reason="8-bit and 4-bit weights need bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    monkeypatch.setitem(FAMILIES, "llama", FAMILIES["llama"] | {"hidden_size": 64, "intermediate_size": 128})
    make_model("llama").save_pretrained(tmp_path / "wide")
    tokenizer.save_pretrained(tmp_path / "narrow")
    quantised = BitsAndBytesConfig(**options)
    AutoModelForCausalLM.from_pretrained(tmp_path / "wide", quantization_config=quantised, device_map="cpu").save_pretrained(
        tmp_path / "narrow"
    )
    lm = CLASLM(str(tmp_path / "narrow"), device="cpu", batch_size=2)
    assert type(find_projections(lm.model)[0].module) is not torch.nn.Linear
    masks = masks_of(profile(lm.model, tokenizer, texts, max_tokens=60))
    asked = requests("loglikelihood", ("de",))
    plain = lm.loglikelihood(asked)
    steered = CLASLM(str(tmp_path / "narrow"), masks=masks, alpha=-4.0, device="cpu", batch_size=2)
    assert steered.loglikelihood(asked) != plain
    off = CLASLM(str(tmp_path / "narrow"), masks=masks, alpha=0, device="cpu", batch_size=2)
    assert off.loglikelihood(asked) == plain
