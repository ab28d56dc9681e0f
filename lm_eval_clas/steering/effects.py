"""What steering does to each neuron: h' = h * factor + shift, by language. Pure functions of masks and options."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.steering.options import SteeringOptions


def steering_factors(masks: MaskSet, steering: SteeringOptions, language: str | None) -> NDArray[np.float32]:
    """The factors s of one language, float32 [layers, neurons]; ones outside the bridge layers.

    Args:
        masks: where neurons are active and specific.
        steering: the checked options.
        language: one of the masks' languages, or None for a language that was not profiled: of it, only the neurons that
            other languages share are known, so partial-shared ones are amplified, at the default strength.

    Raises:
        ClasError: the masks do not have the language, or None meets an option that depends on it.
    """
    factors = np.ones(masks.categories.shape, dtype=np.float32)
    if steering.method == "off" or language == masks.anchor:
        return factors
    if language is None and steering.method == "int-mu":
        raise ClasError("unseen=shared steers partial-shared neurons, which method=int-mu leaves alone; drop unseen.")
    if language is None and steering.partial_scope != "all":
        raise ClasError("unseen=shared steers with all partial-shared neurons; drop partial_scope.")
    alpha = steering.strength(language or "default")
    layers = list(steering.layers)
    bridge = np.ones(masks.categories[layers].shape, dtype=np.float32)
    if steering.method == "int-mu":
        assert language is not None
        bridge[masks.specific_in(language)[layers]] = 1 - alpha
        factors[layers] = bridge
        return factors
    partial = masks.partial[layers]
    if language is None:
        specific = np.zeros_like(partial)
    else:
        active, own = masks.active_in(language)[layers], masks.specific_in(language)[layers]
        specific = own if steering.specific_scope == "own" else masks.specific[layers] | own
        if steering.partial_scope != "all":
            partial = partial & active
        if steering.partial_scope == "anchor":
            partial = partial & masks.active_in(masks.anchor)[layers]
    bridge[partial] = 1 + alpha * steering.beta
    bridge[specific] = 1 - alpha * steering.gamma  # the second, as a neuron that is both is specific
    if steering.method in ("uniform", "random"):
        for row, layer in zip(bridge, layers, strict=True):
            there = masks.steerable[layer]
            if there.any():
                row[there] = _control(masks, steering, layer, row[there])
    factors[layers] = bridge
    return factors


def _control(masks: MaskSet, steering: SteeringOptions, layer: int, row: NDArray[np.float32]) -> NDArray[np.float32]:
    """One layer's factors for a control: their mean everywhere, or each somewhere else."""
    if steering.method == "uniform":
        return np.full_like(row, row.mean(dtype=np.float64))
    heads = masks.config.model.fingerprint.heads_in(layer) if masks.config.by == "head" else None
    # One shuffle a layer, the same for every language, whichever other layers are steered. By head, heads stay whole.
    np.random.default_rng([steering.seed, layer]).shuffle(row.reshape(heads, -1) if heads else row)
    return row


def steering_shifts(masks: MaskSet, steering: SteeringOptions, language: str | None) -> NDArray[np.float32] | None:
    """What is added to h, in its units, float32 [layers, neurons]; None for all methods but `int-mu`, which add nothing.

    Interpolation towards the language's mean mu, h' = h + alpha (mu - h), is a factor of 1 - alpha and a shift of alpha mu
    on the language's own specific neurons.
    """
    if steering.method != "int-mu":
        return None
    assert masks.means is not None  # SteeringOptions.parse asked for them
    shifts = np.zeros(masks.means.shape[1:], dtype=np.float32)
    if language is not None and language != masks.anchor:
        layers = list(steering.layers)
        own = masks.specific_in(language)[layers]
        shifts[layers] = np.where(own, steering.strength(language) * masks.means[masks.index(language)][layers], 0)
    return shifts


def factors_hash(factors: NDArray[np.float32], shifts: NDArray[np.float32] | None = None) -> str:
    """The first 16 hex digits of the SHA-256 of factors, and of shifts if there are any: little-endian, in their order."""
    parts = [factors] if shifts is None else [factors, shifts]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part, dtype="<f4").tobytes() for part in parts)).hexdigest()[:16]
