"""No steered number without a witness: the check of a steerer, the positions that are counted, models that change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from family_modules import SITES, modules
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from requests_made import KINDS, clas, requests
from small_models import FAMILIES, make_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, profile
from lm_eval_clas.decoder.projections import Site, find_projections
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.methods.intervention import factors_hash
from lm_eval_clas.texts.corpora import ParallelTexts

IDS = torch.arange(7, 47).reshape(2, 20)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def widths_run(model: PreTrainedModel) -> list[int]:
    """Rows times width of every pass of the decoder's first layer, by a hook of its own."""
    seen: list[int] = []

    def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        seen.append(hidden.shape[0] * hidden.shape[1])

    model.model.layers[0].register_forward_pre_hook(note, with_kwargs=True)
    return seen


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom", "gemma3_text", "falcon"])
def test_a_steerer_checks_itself_and_counts_rows_times_tokens(
    family: str, site: Site, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    model = make_model(family)
    profiled = profile(model, tokenizer, texts, max_tokens=60, site=site)
    masks = MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4")
    inputs = tokenizer(["a", "ein langer Satz"], return_tensors="pt", padding=True, return_token_type_ids=False)
    with ActivationSteerer(model, masks, alpha=-3.0) as steerer:
        assert steerer.check is not None
        assert (steerer.check.dtype, steerer.check.difference) == ("float32", 0.0)
        with steerer.language("de") as block, torch.no_grad():
            layers = steerer.steered_layers("de")  # of some families, not every layer has neurons to steer
            assert layers
            assert block.layers == layers == tuple(one for one in (2, 3, 4) if (steerer.factors("de")[one] != 1).any())
            assert set(block.positions.values()) == {0}
            model(**inputs)
            assert block.positions == dict.fromkeys(layers, inputs["attention_mask"].numel())
            model(**inputs)
        assert block.positions == dict.fromkeys(layers, 2 * inputs["attention_mask"].numel())
        with steerer.language("en") as block:
            logits(model)
        assert (block.layers, block.positions) == ((), {})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_check_is_in_the_models_dtype(masks: MaskSet, dtype: torch.dtype) -> None:
    with ActivationSteerer(make_model(dtype=dtype), masks, alpha=0.3) as steerer:
        check = steerer.check
    assert check is not None
    assert check.dtype == str(dtype).removeprefix("torch.")
    assert check.difference <= check.tolerance == 4 * torch.finfo(dtype).eps


def test_the_check_leaves_modes_and_random_numbers_alone(masks: MaskSet) -> None:
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(target_modules=["down_proj"], r=2, init_lora_weights=False, lora_dropout=0.5)
    model = peft.get_peft_model(make_model(), lora).train()
    with ActivationSteerer(model, masks, alpha=2.0) as steerer:
        assert steerer.check is not None
    assert all(module.training for module in model.modules())


def skip_it(model: PreTrainedModel) -> None:
    model.model.layers[3].mlp.forward = lambda hidden: hidden


def run_it_twice(model: PreTrainedModel) -> None:
    mlp = model.model.layers[3].mlp
    original = mlp.forward
    mlp.forward = lambda hidden: original(hidden) + original(hidden)


def share_it(model: PreTrainedModel) -> None:
    model.model.layers[3].mlp = model.model.layers[2].mlp


def answer_otherwise_each_time(model: PreTrainedModel) -> None:
    projection = model.model.layers[3].mlp.down_proj
    times = iter(range(1, 100))
    projection.forward = lambda h: torch.nn.functional.linear(h, projection.weight * next(times))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (skip_it, r"'model\.layers\.3\.mlp\.down_proj' runs 0 times and not once in a pass of LlamaForCausalLM"),
        (run_it_twice, r"layers\.3\.mlp\.down_proj' runs 2 times and not once"),
        (share_it, r"layers\.2\.mlp\.down_proj' runs 2 times and not once.*projection=PATTERN"),
        (answer_otherwise_each_time, r"layers\.3\.mlp\.down_proj' does not work on the input that steering gives it"),
    ],
)
def test_what_would_not_be_steered_is_refused_and_left_as_it_was(
    masks: MaskSet, change: Callable[[PreTrainedModel], None], message: str
) -> None:
    model = make_model()
    change(model)
    hooks = sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())
    with pytest.raises(ClasError, match=message):
        ActivationSteerer(model, masks, alpha=-3.0)
    assert hooks == sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("change", [skip_it, run_it_twice, share_it])
def test_a_projection_that_does_not_run_once_is_not_profiled_as_dead(
    change: Callable[[PreTrainedModel], None], tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    model = make_model()
    change(model)
    with pytest.raises(ClasError, match=r"mlp\.down_proj' runs [02] times and not once in a pass on text alone"):
        profile(model, tokenizer, texts, max_tokens=20)


def test_a_wrapper_without_a_configuration_is_refused(model: PreTrainedModel, masks: MaskSet) -> None:
    with pytest.raises(ClasError, match="DataParallel has no configuration of a decoder; give the Hugging Face model"):
        ActivationSteerer(torch.nn.DataParallel(model), masks)


def add_lora(model: PreTrainedModel) -> None:
    peft = pytest.importorskip("peft")
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["down_proj"], r=2))


def replace_a_layer(model: PreTrainedModel) -> None:
    model.model.layers[3] = copy.deepcopy(model.model.layers[2])


def drop_a_layer(model: PreTrainedModel) -> None:
    model.model.layers = model.model.layers[:4]


def clear_hooks(model: PreTrainedModel) -> None:
    model.model.layers[4].mlp.down_proj._forward_pre_hooks.clear()


@pytest.mark.parametrize("change", [add_lora, replace_a_layer, drop_a_layer, clear_hooks])
def test_a_model_that_changed_is_noticed_at_the_next_use(
    model: PreTrainedModel, masks: MaskSet, change: Callable[[PreTrainedModel], None]
) -> None:
    steerer = ActivationSteerer(model, masks, alpha=2.0)
    with steerer.language("hi"):
        logits(model)
    change(model)
    with pytest.raises(
        ClasError, match=r"The model was changed after this ActivationSteerer was made \('.*down_proj'.*make a new one"
    ):
        steerer.language("hi")


def test_adapters_that_are_merged_away_are_noticed(masks: MaskSet) -> None:
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(make_model(), peft.LoraConfig(target_modules=["down_proj"], r=2, init_lora_weights=False))
    steerer = ActivationSteerer(wrapped, masks, alpha=2.0)
    wrapped.merge_adapter()  # weights alone, under the same modules: steered as before
    with steerer.language("hi") as block:
        logits(wrapped)
    assert set(block.positions.values()) == {IDS.numel()}
    wrapped.unmerge_adapter()
    wrapped.merge_and_unload()
    with pytest.raises(ClasError, match="is another module now"):
        steerer.language("hi")


def test_a_copy_is_not_steered_in_silence(model: PreTrainedModel, masks: MaskSet) -> None:
    plain = logits(model)
    steerer = ActivationSteerer(model, masks, alpha=2.0)
    other = copy.deepcopy(model)
    assert torch.equal(logits(other), plain)
    with steerer.language("hi"):
        hindi = logits(model)
        with pytest.raises(ClasError, match=r"a copy of the model .* make one for the copy"):
            logits(other)
    with ActivationSteerer(other, masks, alpha=2.0) as own, own.language("hi"):
        assert torch.equal(logits(other), hindi)
    steerer.close()
    assert torch.equal(logits(other), plain)


def test_a_closed_steerer_refuses(model: PreTrainedModel, masks: MaskSet) -> None:
    for alpha in (0.0, 2.0):
        steerer = ActivationSteerer(model, masks, alpha=alpha)
        steerer.close()
        with pytest.raises(ClasError, match="is closed and steers nothing any more; make a new one"):
            steerer.language("hi")


def test_factors_that_the_dtype_rounds_to_1_are_no_steering(masks: MaskSet) -> None:
    model = make_model(dtype=torch.bfloat16)
    steerer = ActivationSteerer(model, masks, alpha=0.001)
    with steerer.language("hi") as block:
        logits(model)
    assert set(block.positions.values()) == {0}
    with pytest.raises(ClasError, match="3 texts in 'hi' were to be steered, but so weakly that nothing changes in bfloat16"):
        block.require_steered("3 texts")


# In the harness.


@pytest.mark.parametrize("scoring", ["stock", "fast"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_results_say_what_the_layers_were_seen_to_steer(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, kind: str, scoring: str
) -> None:
    lm = clas(tokenizer, masks, alpha=4, scoring=scoring)
    ran = widths_run(lm.model)
    for language in ("hi", "en", "de"):
        ran.clear()
        asked = requests(kind, (language,))
        getattr(lm, kind)(asked)
        witness = lm.steering_info()["witness"]
        if language == "en":
            assert "en" not in witness
        else:
            assert (witness[language]["requests"], witness[language]["positions"]) == (len(asked), sum(ran))
            assert witness[language]["layers"] == list(masks.bridge_layers)
            expected = intervention_in(masks, lm._steerer.steering, language).factors
            assert witness[language]["factors_hash"] == factors_hash(expected)
            assert witness[language]["check"]["difference"] <= witness[language]["check"]["tolerance"]
    assert lm.get_model_info()["clas"]["witness"] == witness
    assert lm.steering_info()["witness"] == {}


def test_stock_scoring_counts_the_padded_batches(tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> None:
    """By hand: one batch, of which HFLM makes rows as wide as the longest request without its last token."""
    lm = CLASLM(make_model(), masks=masks, tokenizer=tokenizer, batch_size=8, alpha=4, scoring="stock", language="hi")
    asked = [Instance("loglikelihood", {}, ("abc" * i, " yes"), i, ("test", i, 1)) for i in range(1, 5)]
    lm.loglikelihood(asked)
    assert lm.steering_info()["witness"]["hi"]["positions"] == 4 * (1 + 3 * 4 + len(" yes") - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_searching_a_batch_size_is_not_counted(tokenizer: PreTrainedTokenizerFast, masks: MaskSet, kind: str) -> None:
    options: dict[str, Any] = {"masks": masks, "tokenizer": tokenizer, "max_length": 128, "alpha": 2, "max_batch_size": 4}
    found = []
    for size in ("auto", 4):
        lm = CLASLM(make_model(), batch_size=size, **options)
        getattr(lm, kind)(requests(kind, ("hi",)))
        found.append(lm.steering_info()["witness"]["hi"]["positions"])
    assert found[0] == found[1]


def test_a_language_with_alpha_0_has_no_witness(tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> None:
    lm = clas(tokenizer, masks, alpha={"hi": 0, "default": 2})
    lm.loglikelihood(requests("loglikelihood"))
    assert set(lm.steering_info()["witness"]) == {"de", "zh"}  # alpha 0 steers nothing


@pytest.mark.parametrize("kind", KINDS)
def test_requests_without_steered_positions_are_an_error_and_no_score(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, kind: str
) -> None:
    lm = clas(tokenizer, masks, alpha=4)
    skip_it(lm.model)  # after the check
    asked = requests(kind, ("hi",))
    with pytest.raises(ClasError, match=rf"{len(asked)} requests in 'hi' were to be steered, but no position was in layers 3"):
        getattr(lm, kind)(asked)
    assert lm.get_model_info()["clas"]["witness"] == {}


def test_counts_do_not_leak_from_a_run_that_failed(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = clas(tokenizer, masks, alpha=4)
    with monkeypatch.context() as patched:
        patched.setattr(HFLM, "_model_call", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lm.loglikelihood(requests("loglikelihood"))
    assert lm.steering_info()["languages"] == {}
    lm.loglikelihood(requests("loglikelihood", ("de",)))
    info = lm.steering_info()
    assert (set(info["languages"]), set(info["witness"])) == ({"de"}, {"de"})


def test_the_projections_are_found_in_every_family() -> None:
    """What the check relies on: the families of the tests have a projection of their own in each layer."""
    for family in FAMILIES:
        model = make_model(family)
        assert [one.module for one in find_projections(model)] == modules(model, family, "mlp")
