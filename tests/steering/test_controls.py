"""The controls `uniform` and `random`: CLAS's own factors, without knowing which neuron they belong to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import LAYERS
from transformers import PreTrainedModel

from lm_eval_clas import ActivationSteerer, MaskSet

SCOPES: list[dict[str, Any]] = [{}, {"specific_scope": "own", "partial_scope": "anchor"}, {"layers": "1-5", "gamma": 3.0}]


def factors(model: PreTrainedModel, masks: MaskSet, language: str = "hi", **options: Any) -> torch.Tensor:
    with ActivationSteerer(model, masks, **options) as steerer:
        return steerer.factors(language)


@pytest.mark.parametrize("alpha", [1.0, -5.0])
@pytest.mark.parametrize("options", SCOPES)
def test_uniform_keeps_the_mean_of_each_layer(
    model: PreTrainedModel, masks: MaskSet, alpha: float, options: dict[str, Any]
) -> None:
    clas, uniform = (factors(model, masks, method=method, alpha=alpha, **options) for method in ("clas", "uniform"))
    torch.testing.assert_close(uniform.mean(1), clas.mean(1))
    assert bool((uniform == uniform[:, :1]).all())
    assert torch.equal((uniform != 1).any(1), (clas != 1).any(1))


@pytest.mark.parametrize("alpha", [1.0, -5.0])
@pytest.mark.parametrize("options", SCOPES)
def test_random_keeps_the_factors_of_each_layer(
    model: PreTrainedModel, masks: MaskSet, alpha: float, options: dict[str, Any]
) -> None:
    clas = factors(model, masks, alpha=alpha, **options)
    seeds = [factors(model, masks, method="random", alpha=alpha, seed=seed, **options) for seed in (0, 1, 2, 0)]
    for one in seeds:
        assert torch.equal(one.sort(1).values, clas.sort(1).values)
        torch.testing.assert_close(one.norm(dim=1), clas.norm(dim=1))
        assert not torch.equal(one, clas)
    assert torch.equal(seeds[0], seeds[3])
    assert not torch.equal(seeds[0], seeds[1])
    changed = {layer for layer in range(LAYERS) if not torch.equal(seeds[0][layer], clas[layer])}
    assert changed <= {layer for layer in range(LAYERS) if bool((clas[layer] != 1).any())}


def test_random_moves_every_language_alike(model: PreTrainedModel, masks: MaskSet) -> None:
    """With the default scopes all languages share CLAS's factors, and so they do shuffled; the anchor has none."""
    assert torch.equal(*(factors(model, masks, language, method="random", seed=3) for language in ("hi", "zh")))
    for method in ("uniform", "random"):
        assert bool((factors(model, masks, "en", method=method) == 1).all())
