"""Masks with all that methods need beside neurons: random means, and random hidden states as large as a small model's."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas import MaskSet
from lm_eval_clas.masks.mask_config import ResidualSource
from lm_eval_clas.masks.residual_means import ResidualMeans

TEXTS = 3


def with_measured(masks: MaskSet) -> MaskSet:
    """The same masks, with means of neurons and of what leaves the layers."""
    chance = np.random.default_rng(1)
    size, languages, layers = masks.config.model.fingerprint, masks.config.languages, masks.config.bridge_layers

    def numbers(*shape: int) -> NDArray[np.float32]:
        return chance.standard_normal((len(languages), *shape)).astype(np.float32)

    norms = chance.uniform(50, 150, (len(languages), size.layers)).astype(np.float32)
    residual = ResidualMeans(
        tuple(languages), tuple(layers), numbers(size.layers, size.hidden_size), norms,
        numbers(len(layers), TEXTS, size.hidden_size),
    )  # fmt: skip
    corpus = masks.config.corpus.model_copy(update={"samples": TEXTS})
    source = ResidualSource(languages=languages, layers=layers, corpus=corpus, first_token="skip")
    config = masks.config.model_copy(update={"residual": source})
    return dataclasses.replace(masks, config=config, means=numbers(size.layers, size.neurons), residual=residual)
