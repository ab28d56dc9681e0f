"""Steering is one factor per neuron, applied by one hook: identities against slow references."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from slow_steering import reference
from small_models import FAMILIES, LAYERS, NEURONS, columns, make_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_clas import ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, profile
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.steering.options import SteeringOptions
from lm_eval_clas.texts.corpora import ParallelTexts

IDS = torch.arange(7, 47).reshape(2, 20)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("alpha", [1.0, -5.0, 0.3])
@pytest.mark.parametrize("language", ["hi", "zh", "en"])
def test_hook_equals_the_papers_equations(model: PreTrainedModel, masks: MaskSet, alpha: float, language: str) -> None:
    with ActivationSteerer(model, masks, alpha=alpha) as steerer, steerer.language(language):
        steered = logits(model)
    plain = logits(model)
    for layer, projection in enumerate(find_projections(model)):
        projection.module.register_forward_pre_hook(
            lambda module, args, layer=layer: (reference(masks, language, alpha, 0.4, 0.2, layer, args[0]),)
        )
    torch.testing.assert_close(steered, logits(model), rtol=1e-5, atol=1e-5)
    assert torch.equal(steered, plain) == (language == "en")


@pytest.mark.parametrize("family", FAMILIES)
def test_hook_equals_scaled_columns_of_the_down_projection(
    family: str, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    model = make_model(family)
    found = profile(model, tokenizer, texts, max_tokens=100)
    masks = MaskSet.from_profile(found, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4")
    steerer = ActivationSteerer(model, masks, alpha=-3.0)
    with steerer.language("de"):
        steered = logits(model)
    unsteered = logits(model)
    steerer.close()
    with torch.no_grad():
        for layer, projection in enumerate(find_projections(model)):
            columns(projection.module).mul_(steerer.factors("de")[layer])
    torch.testing.assert_close(steered, logits(model), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(steered, unsteered, atol=1e-3)


def test_factors_are_the_closed_form(model: PreTrainedModel, masks: MaskSet) -> None:
    steerer = ActivationSteerer(model, masks, alpha=2.0, beta=0.5, gamma=0.25)
    factors = steerer.factors("hi")
    assert factors.dtype == torch.float32
    assert factors.shape == (LAYERS, NEURONS)
    outside = [layer for layer in range(LAYERS) if layer not in masks.bridge_layers]
    assert bool((factors[outside] == 1).all())
    bridge = list(masks.bridge_layers)
    expected = np.choose(masks.categories[bridge], [1.0, 1 - 2 * 0.25, 1 + 2 * 0.5, 1.0])
    np.testing.assert_allclose(factors[bridge].numpy(), expected)
    assert bool((steerer.factors("en") == 1).all())


def test_scopes_narrow_the_masks(model: PreTrainedModel, masks: MaskSet) -> None:
    def changed(**options: str) -> np.ndarray:
        with ActivationSteerer(model, masks, alpha=1.0, **options) as steerer:
            return (steerer.factors("hi") != 1).numpy()

    hindi, english = masks.active_in("hi"), masks.active_in("en")
    everything, partial, specific = changed(), masks.categories == 2, masks.categories == 1
    inside = np.isin(np.arange(LAYERS), masks.bridge_layers)[:, None]
    assert (everything == (inside & (partial | specific))).all()
    assert (changed(specific_scope="own") == (inside & (partial | (specific & hindi)))).all()
    assert (changed(partial_scope="own") == (inside & ((partial & hindi) | specific))).all()
    assert (changed(partial_scope="anchor") == (inside & ((partial & hindi & english) | specific))).all()


def test_controls_keep_layers_and_size(model: PreTrainedModel, masks: MaskSet) -> None:
    def factors(**options: object) -> torch.Tensor:
        with ActivationSteerer(model, masks, alpha=1.5, **options) as steerer:
            return steerer.factors("hi")

    clas, uniform = factors(), factors(method="uniform")
    torch.testing.assert_close(uniform, clas.mean(1, keepdim=True).expand_as(clas))
    one, again, other = (factors(method="random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(one.sort(1).values, clas.sort(1).values)
    one_layer = factors(method="random", seed=1, layers="3")
    assert torch.equal(one_layer[3], one[3])


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"method": "off"}, {"alpha": {"default": 0.0}}])
def test_nothing_to_steer_means_no_hook(model: PreTrainedModel, masks: MaskSet, options: dict[str, object]) -> None:
    before = logits(model)
    steerer = ActivationSteerer(model, masks, **options)
    assert not any(projection.module._forward_pre_hooks for projection in find_projections(model))
    with steerer.language("hi"):
        assert torch.equal(logits(model), before)


def test_hooks_are_registered_once_and_all_removed(model: PreTrainedModel, masks: MaskSet) -> None:
    before = logits(model)

    def hooks() -> int:
        return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())

    steerer = ActivationSteerer(model, masks)
    assert hooks() == len(masks.bridge_layers)
    for language in ("hi", "de", "hi", "en"):
        with steerer.language(language):
            logits(model)
            assert hooks() == len(masks.bridge_layers)
    assert torch.equal(logits(model), before)
    steerer.close()
    assert hooks() == 0
    assert torch.equal(logits(model), before)


def test_blocks_nest_and_survive_errors(model: PreTrainedModel, masks: MaskSet) -> None:
    steerer = ActivationSteerer(model, masks, alpha=3.0)
    plain = logits(model)
    with steerer.language("hi"):
        hindi = logits(model)
        with steerer.language("en"):
            assert torch.equal(logits(model), plain)
        with pytest.raises(RuntimeError), steerer.language("zh"):
            raise RuntimeError
        assert torch.equal(logits(model), hindi)
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_steers_in_its_own_dtype(masks: MaskSet, dtype: torch.dtype) -> None:
    model, wide = make_model(dtype=dtype), make_model()
    with torch.no_grad():
        for mine, theirs in zip(wide.parameters(), model.parameters(), strict=True):
            mine.copy_(theirs)
    with ActivationSteerer(model, masks, alpha=2.0) as steerer, steerer.language("hi"):
        half = logits(model)
    with ActivationSteerer(wide, masks, alpha=2.0) as steerer, steerer.language("hi"):
        full = logits(wide)
    assert half.dtype == dtype
    rounding, effect = (half.float() - full).abs().mean(), (full - logits(wide)).abs().mean()
    assert rounding < 0.1 * effect


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_generation_steers_prompt_and_every_new_token_with_left_padding(
    masks: MaskSet, tokenizer: PreTrainedTokenizerFast, options: dict[str, int]
) -> None:
    """Cached decoding under the hook gives the tokens that a model with scaled weights gives."""
    prompts = ["a", "ein langer Satz", "बीच का"]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    assert (inputs["attention_mask"][0] == 0).any()

    def generate(model: PreTrainedModel) -> torch.Tensor:
        return model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=None, **options)

    model = make_model()
    plain = generate(model)
    steerer = ActivationSteerer(model, masks, alpha=4.0)
    with steerer.language("hi"):
        steered = generate(model)
    steerer.close()
    with torch.no_grad():
        for layer, projection in enumerate(find_projections(model)):
            projection.module.weight.mul_(steerer.factors("hi")[layer])
    assert torch.equal(steered, generate(model))
    assert not torch.equal(steered, plain)


def test_a_peft_adapter_is_steered_with_its_base(masks: MaskSet) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    lora = peft.LoraConfig(target_modules=["down_proj"], r=2, init_lora_weights=False)
    wrapped = peft.get_peft_model(make_model(), lora).eval()
    with ActivationSteerer(wrapped, masks, alpha=2.0) as steerer, steerer.language("hi"):
        hooked = logits(wrapped)
    merged = wrapped.merge_and_unload()
    with ActivationSteerer(merged, masks, alpha=2.0) as steerer, steerer.language("hi"):
        torch.testing.assert_close(hooked, logits(merged), rtol=1e-4, atol=1e-4)


def test_an_offloaded_layer_gets_its_factors(masks: MaskSet) -> None:
    """accelerate moves an offloaded layer's weights in and out around each call; the factors follow the activation."""
    from accelerate import cpu_offload

    model = make_model()
    with ActivationSteerer(model, masks, alpha=2.0) as steerer, steerer.language("hi"):
        expected = logits(model)
    offloaded = cpu_offload(make_model(), execution_device=torch.device("cpu"))
    with ActivationSteerer(offloaded, masks, alpha=2.0) as steerer, steerer.language("hi"):
        assert torch.equal(logits(offloaded), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"hi": -2, "hi": 3, "default": 1}', r"cannot be read \(it has 'hi' twice\)"),
        ('{"hi": "1_0", "default": 1}', "must have a finite number for 'hi', not '1_0'"),
        ('{"hi": true, "default": 1}', "must have a finite number for 'hi', not True"),
        ('{"hi": NaN, "default": 1}', "must have a finite number for 'hi', not nan"),
        ('{"hi": 1' + "0" * 400 + ', "default": 1}', r"cannot be read \(it has a number that is too large\)"),
        ('{"hi": ' + "[" * 5000 + "]" * 5000 + "}", r"cannot be read \(it is nested too deeply\)"),
        ("[1]", r"cannot be read \(it is no JSON object\); it holds one number by language"),
        (
            '{"en": 1, "default": 1}',
            "has 1 for 'en', the anchor of these masks, which is never steered; take it out",
        ),
    ],
)
def test_a_wrong_alpha_file_is_one_sentence(masks: MaskSet, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "alpha.json"
    path.write_text(content)
    with pytest.raises(ClasError, match=message) as caught:
        SteeringOptions.parse(masks, alpha=str(path))
    assert str(path) in str(caught.value)


def test_languages_of_alphas_may_be_spelled_otherwise_and_the_anchor_may_have_0(masks: MaskSet) -> None:
    parsed = SteeringOptions.parse(masks, alpha={"HIN": -2, "zh-CN": 3, "de": 1, "en": 0})
    assert [parsed.strength(one) for one in masks.languages] == [0, -2, 1, 3]


def test_alpha_by_language(model: PreTrainedModel, masks: MaskSet, tmp_path: Path) -> None:
    path = tmp_path / "alpha.json"
    path.write_text(json.dumps({"hi": -2, "default": 0.5}))
    by_file = ActivationSteerer(model, masks, alpha=str(path))
    for language, alpha in [("hi", -2.0), ("zh", 0.5)]:
        assert torch.equal(by_file.factors(language), ActivationSteerer(model, masks, alpha=alpha).factors(language))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": "strong"}, "alpha must be a number"),
        ({"alpha": float("nan")}, "alpha must be a number"),
        ({"alpha": True}, "alpha must be a number"),
        ({"alpha": "tuned"}, "differs by task"),
        ({"alpha": {"hi": 1.0}}, "no number for de, zh"),
        ({"alpha": "1_0"}, "alpha must be a number or a .json file with one by language, not '1_0'"),
        ({"alpha": "\u0663"}, "alpha must be a number"),
        ({"alpha": 10**400}, "alpha must be a number"),
        ({"alpha": "1e999"}, "alpha must be a number"),
        ({"beta": "1_0"}, "beta must be a finite number in plain digits, not '1_0'"),
        ({"gamma": True}, "gamma must be a finite number"),
        ({"alpha": {"default": "1"}}, "finite number for 'default', not '1'"),
        ({"alpha": {"default": True}}, "finite number for 'default', not True"),
        ({"alpha": {"default": 10**400}}, "finite number for 'default'"),
        ({"alpha": {"hi": 1, "HI": 2, "default": 1}}, "two numbers for 'hi', as 'hi' and as 'HI'"),
        ({"alpha": {"zh-CN": 1, "zh": 1, "default": 1}}, "two numbers for 'zh', as 'zh-CN' and as 'zh'"),
        ({"alpha": {"en": -2, "default": 1}}, "has -2 for 'en', the anchor of these masks, which is never steered"),
        ({"alpha": {"eng_Latn": -2, "default": 1}}, "for 'en', the anchor"),
        ({"alpha": {"xx": 1.0, "default": 1}}, "do not have: xx"),
        ({"alpha": "missing.json"}, "There is no alpha file 'missing.json'"),
        ({"beta": "x"}, "beta must be a finite number"),
        ({"gamma": float("inf")}, "gamma must be a finite number"),
        ({"method": "magic"}, "method must be one of clas, off, uniform, random, int-mu"),
        ({"method": "int-mu"}, "which these masks do not hold"),
        ({"layers": "4-9"}, r"out of range: this model has layers 0-5"),
        ({"layers": "x"}, "range like 24-29"),
        ({"layers": "4-2"}, "out of range"),
        ({"layers": []}, "out of range"),
        ({"specific_scope": "some"}, "specific_scope must be one of all, own"),
        ({"partial_scope": "some"}, "partial_scope must be one of all, own, anchor"),
        ({"seed": "x"}, "seed must be a whole number"),
    ],
)
def test_bad_options_are_one_sentence(model: PreTrainedModel, masks: MaskSet, options: dict[str, object], message: str) -> None:
    with pytest.raises(ClasError, match=message):
        ActivationSteerer(model, masks, **options)


def test_an_unknown_language_is_refused_before_the_pass(model: PreTrainedModel, masks: MaskSet) -> None:
    steerer = ActivationSteerer(model, masks)
    with pytest.raises(ClasError, match="no language 'fr', only en, hi, de, zh"), steerer.language("fr"):
        pass


@pytest.mark.parametrize(("field", "word"), [("num_hidden_layers", "layers 6"), ("intermediate_size", "neurons per layer 48")])
def test_masks_of_another_model_are_refused(masks: MaskSet, field: str, word: str) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4, "vocab_size": 300}
    other = LlamaForCausalLM(LlamaConfig(**{**sizes, field: 2 * sizes[field]}))
    with pytest.raises(ClasError, match=f"made for another model: {word}"):
        ActivationSteerer(other, masks)
    with pytest.raises(ClasError, match="type llama there, qwen2"):
        ActivationSteerer(make_model("qwen2"), masks)
