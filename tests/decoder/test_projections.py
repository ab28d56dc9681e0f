"""Down-projections are found by structure, or the failure names what was seen."""

from __future__ import annotations

import pytest
import torch
from family_modules import modules
from small_models import FAMILIES, HIDDEN, LAYERS, columns, make_model
from transformers import MambaConfig, MambaForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from lm_eval_clas import ClasError
from lm_eval_clas.decoder.projections import find_projections


@pytest.mark.parametrize("family", FAMILIES)
def test_finds_the_down_projection_of_every_layer(family: str) -> None:
    model = make_model(family)
    found = find_projections(model)
    assert [projection.module for projection in found] == modules(model, family, "mlp")
    for layer, projection in enumerate(found):
        assert f".{layer}." in projection.name
        assert model.get_submodule(projection.name) is projection.module
        assert columns(projection.module).shape == (HIDDEN, projection.neurons)


@pytest.mark.parametrize("family", FAMILIES)
def test_its_input_is_the_whole_path_of_the_mlp(family: str) -> None:
    """Zeroing the input of every found module takes away the MLPs and nothing else: the output changes, and the
    rest still runs."""
    model = make_model(family)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        before = model(ids).logits
        for projection in find_projections(model):
            projection.module.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
        after = model(ids).logits
        for projection in find_projections(model):
            projection.module.weight.zero_()
        assert torch.equal(model(ids).logits, after)
    assert not torch.allclose(before, after)


def test_a_peft_wrapper_is_looked_through_and_hooked_as_a_whole() -> None:
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(target_modules=["down_proj", "q_proj"], r=2)
    wrapped = peft.get_peft_model(make_model(), lora)
    found = find_projections(wrapped)
    assert len(found) == LAYERS
    assert all(hasattr(projection.module, "base_layer") for projection in found)


def test_experts_that_are_modules_of_their_own_are_refused() -> None:
    """As transformers 4 has them; transformers 5 holds all experts of a layer in one module."""
    config = Qwen3MoeConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, num_experts=4,
        moe_intermediate_size=16, num_experts_per_tok=2, head_dim=16,
    )  # fmt: skip
    model = Qwen3MoeForCausalLM(config)
    for layer in model.model.layers:
        one = torch.nn.ModuleDict({"gate_proj": torch.nn.Linear(32, 16), "down_proj": torch.nn.Linear(16, 32)})
        layer.mlp.experts = torch.nn.ModuleList([one] * 4)
    with pytest.raises(ClasError, match=r"mixture of experts that are a list of 4 modules \('mlp.experts'\)"):
        find_projections(model)


def test_an_unknown_structure_is_refused_with_the_names_that_were_seen() -> None:
    other = MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(ClasError, match=r"out_proj.*projection=PATTERN"):
        find_projections(other)
    found = find_projections(other, pattern="*.mixer.out_proj")
    assert [projection.neurons for projection in found] == [64, 64]


def test_a_pattern_must_match_one_module_in_every_layer() -> None:
    with pytest.raises(ClasError, match="matches 0 linear modules"):
        find_projections(make_model(), pattern="*.nothing")
    model = make_model()
    assert find_projections(model, pattern="*.mlp.down_proj") == find_projections(model)


def test_a_pattern_sorts_layers_by_number() -> None:
    found = find_projections(make_model(), pattern="model.layers.*.mlp.down_proj")
    assert [projection.name.split(".")[2] for projection in found] == [str(layer) for layer in range(LAYERS)]
