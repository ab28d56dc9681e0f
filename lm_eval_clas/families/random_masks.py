"""Masks of random neurons that fit any model at any site, without a profile."""

from __future__ import annotations

import numpy as np
from torch import nn

from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.projections import Site, find_projections
from lm_eval_clas.masks.mask_config import CorpusSource, MaskConfig, ModelSource
from lm_eval_clas.masks.mask_set import MaskSet


def random_masks(model: nn.Module, site: Site = "mlp", pattern: str | None = None, seed: int = 0) -> MaskSet:
    """Every layer that has neurons is in the bridge; a neuron is active in each of three languages in every second case."""
    size = ModelFingerprint.of(model, find_projections(model, site, pattern))
    active = np.random.default_rng(seed).random((3, size.layers, size.neurons)) < 0.5
    config = MaskConfig(
        model=ModelSource(name="random", fingerprint=size),
        languages=["en", "de", "hi"],
        anchor="en",
        site=site,
        projection=pattern,
        corpus=CorpusSource(name="none", sha256="", samples=1, tokens={}),
        bridge_layers=[layer for layer in range(size.layers) if layer not in size.empty_layers],
        bridge_rule="all",
    )
    return MaskSet(config, active if size.exists is None else active & size.exists)
