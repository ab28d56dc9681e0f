"""`method=int-mu` against a model whose MLPs are written out in plain torch, and everything it needs and refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.model import CachingLM
from requests_made import KINDS, clas, requests
from small_models import LAYERS, make_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, Profile
from lm_eval_clas.decoder.projections import find_projections, reading
from lm_eval_clas.decoder.resuming import Tape
from lm_eval_clas.harness.fast_lm import FastLM

IDS = torch.arange(7, 47).reshape(2, 20)


@pytest.fixture(scope="module")
def kept(profiled: Profile) -> MaskSet:
    """The small Llama's masks with means."""
    categorizer = NeuronCategorizer(threshold=0.005)
    return MaskSet.from_profile(profiled, categorizer=categorizer, bridge="2-4", keep_means=True)


def written_out(masks: MaskSet, profiled: Profile, language: str, alpha: float, layers: tuple[int, ...]) -> PreTrainedModel:
    """The small Llama, its MLPs replaced by plain operations that move one neuron after the other."""
    model = make_model()
    sums = profiled.by_language[language]
    for number in layers:
        mlp = model.model.layers[number].mlp
        own = []
        for neuron in range(mlp.down_proj.in_features):
            active = [other for other in masks.languages if masks.active_in(other)[number, neuron]]
            if active == [language]:
                mean = sums.sums["all", "signed-mean"][number, neuron] / sums.counts["all"]
                own.append((neuron, float(mean)))

        def forward(x: torch.Tensor, mlp: Any = mlp, own: list[tuple[int, float]] = own) -> torch.Tensor:
            h = torch.nn.functional.silu(x @ mlp.gate_proj.weight.T) * (x @ mlp.up_proj.weight.T)
            for neuron, mean in own:
                h[..., neuron] = h[..., neuron] + alpha * (mean - h[..., neuron])
            return h @ mlp.down_proj.weight.T

        mlp.forward = forward
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("language", ["hi", "de", "zh"])
@pytest.mark.parametrize(("alpha", "layers"), [(1.0, None), (0.4, None), (-2.0, None), (1.0, "0-5")])
def test_logits_equal_a_model_written_out(
    model: PreTrainedModel, kept: MaskSet, profiled: Profile, language: str, alpha: float, layers: str | None
) -> None:
    plain = logits(model)
    with ActivationSteerer(model, kept, method="int-mu", alpha=alpha, layers=layers) as steerer, steerer.language(language):
        steered = logits(model)
    where = kept.bridge_layers if layers is None else tuple(range(LAYERS))
    torch.testing.assert_close(steered, logits(written_out(kept, profiled, language, alpha, where)), rtol=1e-4, atol=1e-4)
    # German has no neurons of its own in layers 2-4 of this model, and is left alone there.
    own = kept.specific_in(language)[list(where)].any()
    assert own or language == "de"
    assert torch.allclose(steered, plain, atol=1e-3) == (not own)
    assert torch.equal(logits(model), plain)


def test_generated_tokens_equal_a_model_written_out(
    kept: MaskSet, profiled: Profile, tokenizer: PreTrainedTokenizerFast
) -> None:
    inputs = tokenizer(["a", "ein langer Satz", "बीच का"], return_tensors="pt", padding=True, padding_side="left")

    def generate(model: PreTrainedModel) -> torch.Tensor:
        return model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=None)

    model = make_model()
    plain = generate(model)
    with ActivationSteerer(model, kept, method="int-mu", alpha=1.0, layers="0-5") as steerer, steerer.language("hi"):
        steered = generate(model)
    assert torch.equal(steered, generate(written_out(kept, profiled, "hi", 1.0, tuple(range(LAYERS)))))
    assert not torch.equal(steered, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_own_neurons_become_the_mean_and_no_other_changes(kept: MaskSet, dtype: torch.dtype) -> None:
    model = make_model(dtype=dtype)
    first = kept.bridge_layers[0]
    read: dict[int, torch.Tensor] = {}
    with reading(find_projections(model), read.__setitem__):
        logits(model)
    plain = read[first]
    steerer = ActivationSteerer(model, kept, method="int-mu")
    with steerer.language("hi"), reading(find_projections(model), read.__setitem__):
        logits(model)
    own = torch.from_numpy(kept.specific_in("hi")[first])
    assert kept.means is not None
    mean = torch.from_numpy(kept.means[kept.index("hi"), first]).to(dtype)
    assert own.any()
    assert torch.equal(read[first][..., own], mean[own].expand_as(plain[..., own]))
    assert torch.equal(read[first][..., ~own], plain[..., ~own])


def test_methods_of_factors_alone_stay_bit_for_bit(model: PreTrainedModel, kept: MaskSet) -> None:
    for method in ("clas", "uniform", "random"):
        with ActivationSteerer(model, kept, method=method, alpha=-3.0) as steerer, steerer.language("hi"):
            steered, factors = logits(model), steerer.factors("hi")
            assert steerer.shifts("hi") is None
        handles = [
            projection.module.register_forward_pre_hook(lambda module, args, row=row: (args[0] * row,))
            for projection, row in zip(find_projections(model), factors, strict=True)
        ]
        assert torch.equal(steered, logits(model))
        for handle in handles:
            handle.remove()


def test_strengths_sizes_and_scopes_play_no_role(model: PreTrainedModel, kept: MaskSet) -> None:
    def steered(**options: Any) -> torch.Tensor:
        with ActivationSteerer(model, kept, method="int-mu", **options) as steerer, steerer.language("hi"):
            return logits(model)

    for options in ({"beta": 0, "gamma": 0}, {"specific_scope": "own"}, {"partial_scope": "anchor"}):
        assert torch.equal(steered(**options), steered())
    steerer = ActivationSteerer(model, kept, method="int-mu", alpha=0, beta=0.4)
    assert steerer.steering.does_nothing
    assert not steerer.changes("hi")


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until"])
def test_resumed_passes_equal_full_ones(kept: MaskSet, tokenizer: PreTrainedTokenizerFast, kind: str) -> None:
    """A sweep resumes at the first bridge layer, whatever is done from there on."""
    lm = FastLM(make_model(), tokenizer=tokenizer, batch_size=8)
    hindi = requests(kind, ("hi",))
    answer = getattr(lm, kind)
    tape = Tape(lm.model, kept.bridge_layers[0])
    given = []
    for options in ({"alpha": 0.0}, {"method": "int-mu"}, {"method": "int-mu", "alpha": 0.5}, {"alpha": 2.0}):
        with ActivationSteerer(lm.model, kept, **options) as steerer, steerer.language("hi"):
            with tape.running(1 if kind == "generate_until" else None):
                given.append(answer(hindi))
            assert given[-1] == answer(hindi)
    assert given[0] != given[1]


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_harness_the_anchor_is_left_alone(kept: MaskSet, tokenizer: PreTrainedTokenizerFast, kind: str) -> None:
    lm, plain = clas(tokenizer, kept, method="int-mu", layers="0-5"), clas(tokenizer, None)
    for language in ("en", "hi"):
        asked = requests(kind, (language,))
        assert (getattr(lm, kind)(asked) == getattr(plain, kind)(asked)) == (language == "en")
    info = json.loads(json.dumps(lm.steering_info()))
    assert (info["method"], info["alpha"], info["layers"]) == ("int-mu", 1.0, list(range(LAYERS)))
    assert (info["means_hash"], info["left_alone"]) == (kept.means_hash, {"en": "anchor"})
    assert not {"beta", "gamma", "specific_scope", "partial_scope"} & set(info)
    assert lm.get_model_info()["clas"] == info


def test_a_language_without_neurons_of_its_own_is_told(kept: MaskSet, tokenizer: PreTrainedTokenizerFast) -> None:
    active = kept.active.copy()
    active[kept.index("hi")] = active[kept.index("de")]
    lm = clas(tokenizer, dataclasses.replace(kept, active=active), method="int-mu")
    lm.loglikelihood(requests("loglikelihood", ("hi", "zh")))
    assert lm.steering_info()["left_alone"] == {"hi": "no neurons to steer"}


def test_a_cache_is_kept_to_the_means(kept: MaskSet, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    hindi = requests("loglikelihood", ("hi",))
    database = str(tmp_path / "cache.db")
    assert kept.means is not None
    other = dataclasses.replace(kept, means=kept.means + np.float32(1))
    assert other.hash == kept.hash
    given = [
        CachingLM(clas(tokenizer, one, method="int-mu"), database).loglikelihood(hindi) for one in (kept, other, kept, other)
    ]
    assert given[0] == given[2] != given[1] == given[3]


def test_means_come_back_from_the_folder(model: PreTrainedModel, kept: MaskSet, tmp_path: Path) -> None:
    again = MaskSet.load(kept.save(tmp_path / "masks"))
    one, other = (ActivationSteerer(model, masks, method="int-mu") for masks in (kept, again))
    for effect in ("factors", "shifts"):
        assert torch.equal(getattr(one, effect)("zh"), getattr(other, effect)("zh"))
    assert one.shifts("en") is None
    assert not one.changes("en")


@pytest.mark.parametrize(
    ("statistic", "tokens", "message"),
    [
        ("share-positive", "all", r"these masks come from share-positive over all tokens; .*clas masks PROFILE --keep-means"),
        ("signed-mean", "last", "these masks come from signed-mean over last tokens"),
    ],
)
def test_means_of_another_statistic_are_refused(profiled: Profile, statistic: Any, tokens: Any, message: str) -> None:
    categorizer = NeuronCategorizer(statistic, tokens, 0.3 if statistic == "share-positive" else 0.005)
    masks = MaskSet.from_profile(profiled, categorizer=categorizer, bridge="2-4", keep_means=True)
    with pytest.raises(ClasError, match=message):
        CLASLM("there/is-no-such-model", masks=masks, method="int-mu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unseen": "shared"}, "method=int-mu leaves alone; drop unseen"),
        ({"alpha": "tuned"}, "needs strengths tuned for method=int-mu, .*; run 'clas tune --method int-mu' on them first"),
        ({"masks": "gemma-3-270m"}, "which these masks do not hold; .*clas masks PROFILE --keep-means"),
    ],
)
def test_what_does_not_go_together_is_told_before_the_model_is_loaded(
    kept: MaskSet, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClasError, match=message) as caught:
        CLASLM("there/is-no-such-model", **{"masks": kept, "method": "int-mu", **options})
    assert "\n" not in str(caught.value)
