"""Methods that add: against models whose layers are written out, with numbers worked out in another way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import HIDDEN, LAYERS, make_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_clas import ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, ParallelInputBuilder, Profile
from lm_eval_clas.decoder.projections import find_projections, layer_outputs
from lm_eval_clas.decoder.resuming import Tape, can_resume
from lm_eval_clas.neurons.profiling import profile_residual
from lm_eval_clas.neurons.residual_folder import ResidualProfile
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.methods.incline import SHARES
from lm_eval_clas.steering.methods.method_table import METHODS
from lm_eval_clas.steering.options import SteeringOptions
from lm_eval_clas.texts.corpora import ParallelTexts
from lm_eval_clas.verifying.merged_weights import merged

IDS = torch.arange(7, 47).reshape(2, 20)
ADDING = ["arithmetic", "diffmean", "random-direction", "incline"]
ON_OUTPUTS = ["diffmean", "random-direction", "incline"]


def states(tokenizer: PreTrainedTokenizerFast, text: str) -> np.ndarray:
    """One text alone, float64 [layers, tokens, hidden] without BOS; the last layer before the final normalisation."""
    model, last = make_model(), []
    model.model.layers[-1].register_forward_hook(lambda module, args, output: last.append(output))
    ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=200)["input_ids"]
    with torch.no_grad():
        found = model(ids, output_hidden_states=True).hidden_states
    last = [one[0] if isinstance(one, tuple) else one for one in last]
    return np.stack([one[0, 1:].double().numpy() for one in (*found[1:LAYERS], *last)])


def test_what_replaces_the_forward_of_a_layer_is_there_again_after_its_merged_form(full: MaskSet) -> None:
    """As accelerate does, where a model is spread over devices."""
    model = make_model()
    places = layer_outputs(model)
    layer = places[2].module
    before, calls = layer.forward, []

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return before(*args, **kwargs)

    layer.forward = counting
    steering = SteeringOptions.parse(full, method="diffmean", alpha=0.3)
    with merged([places[2]], intervention_in(full, steering, "hi")):
        model(IDS)
    assert (layer.forward, len(calls)) == (counting, 1)


def test_a_residual_profile_equals_a_slow_reference(
    residual: ResidualProfile, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    for language in ("hi", "en"):
        each = [states(tokenizer, text) for text in texts.texts[language]]
        together, one = np.concatenate(each, axis=1), residual.by_language[language]
        assert one.count == together.shape[1]
        np.testing.assert_allclose(one.total / one.count, together.mean(axis=1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.norms / one.count, np.linalg.norm(together, axis=2).mean(axis=1), rtol=1e-5)
        np.testing.assert_allclose(one.sentences, [h.mean(axis=1) for h in each], rtol=1e-4, atol=1e-5)


def test_batches_do_not_matter_and_halves_merge_to_the_whole(
    residual: ResidualProfile, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, tmp_path: Path
) -> None:
    halves = []
    for half in ("first", "second"):
        built = ParallelInputBuilder("mini", list(texts.languages), 6, half=half).build()  # type: ignore[arg-type]
        options: dict[str, Any] = {"name": "small-llama", "max_tokens": 200, "batch_size": 1, "out": tmp_path / half}
        profile_residual(make_model(), tokenizer, built, **options)
        halves.append(ResidualProfile.load_finished(tmp_path / half))
    together = halves[0].merge(halves[1])
    assert together.config.samples == residual.config.samples
    for language, whole in residual.by_language.items():
        one = together.by_language[language]
        assert one.count == whole.count
        np.testing.assert_allclose(one.total, whole.total, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(one.norms, whole.norms, rtol=1e-5)
        np.testing.assert_allclose(one.sentences, whole.sentences[[0, 2, 4, 1, 3, 5]], rtol=1e-4, atol=1e-5)


def test_finished_languages_are_not_run_again(
    residual: ResidualProfile, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, tmp_path: Path
) -> None:
    residual.save(tmp_path)
    (tmp_path / "hi.safetensors").unlink()
    seen: list[str] = []
    again = profile_residual(
        make_model(seed=3),  # of the same shape: only what it runs tells it from the other
        tokenizer,
        texts,
        name="small-llama",
        max_tokens=200,
        out=tmp_path,
        report=lambda language, done, _: seen.append(language),
    )
    np.testing.assert_array_equal(again.by_language["de"].total, residual.by_language["de"].total)
    assert not np.allclose(again.by_language["hi"].total, residual.by_language["hi"].total)
    with pytest.raises(ClasError, match="is a profile of site residual, and not of neurons"):
        Profile.load(tmp_path)


def test_masks_keep_it_and_their_hash(full: MaskSet, profiled: Profile, residual: ResidualProfile, tmp_path: Path) -> None:
    plain = MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4")
    assert plain.hash == full.hash
    assert plain.residual_hash is None
    back = MaskSet.load(full.save(tmp_path))
    assert back.residual is not None
    assert back.residual_hash == full.residual_hash is not None
    assert back.residual.sentences.shape == (4, 3, 6, HIDDEN)
    plain.save(tmp_path)
    assert not (tmp_path / "residual.safetensors").exists()
    others = dataclasses.replace(residual, config=residual.config.model_copy(update={"corpus_sha256": "0"}))
    with pytest.raises(ClasError, match="and not of the texts of the masks"):
        plain.with_residual(others)
    size = residual.config.fingerprint.model_copy(update={"hidden_size": 8})
    others = dataclasses.replace(residual, config=residual.config.model_copy(update={"fingerprint": size}))
    with pytest.raises(ClasError, match="is of another model than the masks \\(hidden_size 8, and the masks have 32\\)"):
        plain.with_residual(others)


@pytest.mark.parametrize("method", ADDING)
def test_masks_without_what_a_method_needs_are_refused(masks: MaskSet, method: str) -> None:
    needed = "--keep-means" if method == "arithmetic" else "--residual RESIDUAL_PROFILE"
    with pytest.raises(ClasError, match=needed):
        SteeringOptions.parse(masks, method=method)


def test_layers_without_sentences_are_refused_by_the_map_alone(full: MaskSet) -> None:
    with pytest.raises(ClasError, match="needs sentences of layers 1, and these masks have those of 2, 3, 4"):
        SteeringOptions.parse(full, method="incline", layers="1-3")
    SteeringOptions.parse(full, method="diffmean", layers="1-3")


class Moved(torch.nn.Module):
    """A layer whose result goes through a function."""

    def __init__(self, layer: torch.nn.Module, move: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.move = layer, move

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.layer(*args, **kwargs)
        return (self.move(output[0]), *output[1:]) if isinstance(output, tuple) else self.move(output)


def primal_ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """W of y = W x in its primal form, the ridge by the definition of generalised cross-validation."""
    fits = []
    for share in SHARES:
        inverse = np.linalg.inv(x.T @ x + share * np.trace(x @ x.T) / len(x) * np.eye(x.shape[1]))
        hat = x @ inverse @ x.T
        left = np.square(y - hat @ y).sum() / np.trace(np.eye(len(x)) - hat) ** 2
        fits.append((left, (inverse @ x.T @ y).T))
    return min(fits, key=lambda one: one[0])[1]


def written_out(
    method: str, language: str, alpha: float, residual: ResidualProfile, masks: MaskSet, seed: int = 0
) -> PreTrainedModel:
    """The small Llama, moved in layers 2-4 by the equations of the design."""
    model = make_model()
    there, here = residual.by_language[language], residual.by_language["en"]
    for layer in (2, 3, 4):
        norm = np.mean([one.norms[layer] / one.count for one in residual.by_language.values()])
        x, y = (one.sentences[:, layer].astype(float) for one in (there, here))
        if method == "incline":
            matrix = torch.from_numpy(primal_ridge(x, y))
            move = lambda h, matrix=matrix: (h + alpha * h.double() @ matrix.T).float()  # noqa: E731
        elif method == "arithmetic":
            assert masks.means is not None
            some = [masks.active[:, layer].sum(0) == 1] * 2
            own = (some[0] & masks.active_in(language)[layer]) | (some[1] & masks.active_in("en")[layer])
            means = masks.means[:, layer]
            step = np.where(own, means[masks.index(language)] - means[masks.index("en")], 0)
            down = model.model.layers[layer].mlp.down_proj
            down.bias = torch.nn.Parameter(alpha * (down.weight.data @ torch.from_numpy(step)))
            continue
        else:
            vector = there.total[layer] / there.count - here.total[layer] / here.count
            if method == "random-direction":
                vector = intervention_in(masks, SteeringOptions.parse(masks, 1.0, method=method, seed=seed), language).shifts[
                    layer
                ]
            step = torch.from_numpy(alpha * norm * vector / np.linalg.norm(vector)).float()
            move = lambda h, step=step: h + step  # noqa: E731
        model.model.layers[layer] = Moved(model.model.layers[layer], move)
    return model


def logits(model: torch.nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("method", ADDING)
def test_logits_equal_a_model_written_out(
    model: PreTrainedModel, full: MaskSet, residual: ResidualProfile, method: str
) -> None:
    plain = logits(model)
    for language, alpha in (("hi", 0.4), ("zh", -0.2)):
        with ActivationSteerer(model, full, method=method, alpha=alpha) as steerer, steerer.language(language) as block:
            steered = logits(model)
        assert block.positions == dict.fromkeys(steerer.steered_layers(language), IDS.numel())
        assert set(block.positions) <= {2, 3, 4}
        expected = logits(written_out(method, language, alpha, residual, full))
        torch.testing.assert_close(steered, expected, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(steered, plain, atol=1e-2)
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("method", ADDING)
def test_strength_zero_and_the_anchor_change_no_bit(model: PreTrainedModel, full: MaskSet, method: str) -> None:
    plain = logits(model)
    for alpha, language in ((0.0, "hi"), ({"hi": 0.0, "default": 0.5}, "hi"), (0.5, "en")):
        with ActivationSteerer(model, full, method=method, alpha=alpha) as steerer, steerer.language(language) as block:
            assert torch.equal(logits(model), plain)
            assert not block.positions


@pytest.mark.parametrize("method", ADDING)
def test_steered_rows_are_those_of_a_pass_alone(model: PreTrainedModel, full: MaskSet, method: str) -> None:
    plain = logits(model)
    with ActivationSteerer(model, full, method=method, alpha=0.3) as steerer:
        with steerer.language("hi"):
            alone = logits(model)
        with steerer.language("hi") as block:
            block.rows, block.sequences = slice(1, 2), 2
            mixed = logits(model)
    torch.testing.assert_close(mixed[1], alone[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixed[0], plain[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ADDING)
def test_what_is_computed_without_hooks_is_the_same(model: PreTrainedModel, full: MaskSet, method: str) -> None:
    with ActivationSteerer(model, full, method=method, alpha=0.3) as steerer:
        with steerer.language("hi"):
            steered = logits(model)
        done = steerer.intervention("hi")
    places = layer_outputs(model) if METHODS[method].acts_on == "outputs" else find_projections(model)
    plain = logits(model)
    with merged([place for place in places if done.changes_at(place.layer, place.here)], done):
        torch.testing.assert_close(logits(model), steered, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("method", ON_OUTPUTS)
def test_passes_resumed_above_the_first_layer_are_full_ones(model: PreTrainedModel, full: MaskSet, method: str) -> None:
    steerers = [ActivationSteerer(model, full, method=method, alpha=alpha) for alpha in (0.0, 0.2, -0.3)]
    first = steerers[0].first_rerun
    assert first == 3  # layer 2 is recorded: what leaves it is changed behind it
    assert can_resume(model, first)
    tape = Tape(model, first)
    for steerer in steerers:
        with tape.running(), steerer.language("hi"):
            resumed = logits(model)
        with steerer.language("hi"):
            assert torch.equal(resumed, logits(model))


def test_random_directions_differ_by_layer_language_and_seed_alone(full: MaskSet) -> None:
    def direction(language: str, seed: int = 0) -> np.ndarray:
        steering = SteeringOptions.parse(full, 1.0, method="random-direction", seed=seed)
        shifts = intervention_in(full, steering, language).shifts
        assert shifts is not None
        return shifts[2:5] / np.linalg.norm(shifts[2:5], axis=1, keepdims=True)

    hi = direction("hi")
    np.testing.assert_array_equal(hi, direction("hi"))
    every = np.concatenate([hi, direction("zh"), direction("hi", 1)])
    alike = np.abs(every @ every.T - np.eye(len(every)))
    assert alike.max() < 0.7
    of_mean = intervention_in(full, SteeringOptions.parse(full, 1.0, method="diffmean"), "hi").shifts
    of_chance = intervention_in(full, SteeringOptions.parse(full, 1.0, method="random-direction"), "hi").shifts
    assert of_mean is not None
    assert of_chance is not None
    np.testing.assert_allclose(np.linalg.norm(of_mean, axis=1), np.linalg.norm(of_chance, axis=1), rtol=1e-5)


def test_layers_that_give_something_else_are_refused(model: PreTrainedModel, full: MaskSet) -> None:
    model.model.layers[2].register_forward_hook(lambda module, args, output: output[..., :8])
    with pytest.raises(ClasError, match="methods that act there do not go with this model"):
        ActivationSteerer(model, full, method="diffmean")


@pytest.mark.parametrize("family", ["gemma3_text", "gpt_neox", "opt", "bloom", "falcon"])
def test_layers_of_other_families_give_what_steering_makes_of_them(family: str) -> None:
    """Some return tuples; the check when a steerer attaches compares what leaves each layer."""
    from lm_eval_clas.families.random_masks import random_masks
    from lm_eval_clas.masks.residual_means import ResidualMeans

    model = make_model(family)
    chance = np.random.default_rng(0)
    made = random_masks(model)
    means = chance.standard_normal((3, LAYERS, HIDDEN)).astype(np.float32)
    residual = ResidualMeans(("en", "de", "hi"), (0,), means, np.ones((3, LAYERS), np.float32), means[:, None])
    made = dataclasses.replace(made, residual=residual)
    plain, read = logits(model), []
    with ActivationSteerer(model, made, method="diffmean", alpha=0.5, layers="0") as steerer:
        assert steerer.check is not None
        assert steerer.check.difference <= steerer.check.tolerance
        following = layer_outputs(model)[1].module
        handle = following.register_forward_pre_hook(
            lambda module, args, kwargs: read.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
        with steerer.language("hi"):
            steered = logits(model)
        logits(model)
        handle.remove()
        shift = steerer.shifts("hi")
    assert shift is not None
    torch.testing.assert_close(read[0], read[1] + shift[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(steered, plain, atol=1e-3)
