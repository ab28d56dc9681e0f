"""Profiles of a mixture of experts that no model is needed for."""

from __future__ import annotations

import numpy as np

from lm_eval_clas import Profile
from lm_eval_clas.decoder.anatomy.layer_axes import LayerAxes
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.neurons.activity import STATISTICS, TOKENS
from lm_eval_clas.neurons.profile_folder import ProfileConfig, Sums


def mixture_profile(
    holds: tuple[str, ...] = ("1x12", "4x8", "1x8+4x8", "4x8"), languages: tuple[str, ...] = ("en", "hi", "de")
) -> Profile:
    """Random sums; in every language, experts saw from 20 to 400 tokens."""
    layout, draw = LayerAxes.parse(holds), np.random.default_rng(0)
    size = ModelFingerprint(
        model_type="mixture", layers=len(holds), neurons=max(layout.widths), hidden_size=16, config_hash="0" * 16, holds=holds
    )
    config = ProfileConfig(
        model="mixture", fingerprint=size, corpus="none", corpus_sha256="", languages=list(languages), samples=3, max_tokens=10
    )
    by_language = {}
    for language in languages:
        sums = {
            (tokens, statistic): (draw.normal(size=(size.layers, size.neurons)) * layout.exists).astype(np.float32)
            for tokens in TOKENS
            for statistic in STATISTICS
        }
        routed = {tokens: draw.integers(20, 400, (size.layers, layout.units)) for tokens in TOKENS}
        by_language[language] = Sums(sums, {"all": 400, "last": 400}, routed)
    return Profile(config, by_language)
