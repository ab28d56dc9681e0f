"""Which experts a language's tokens reach, and how far languages differ in that: numbers from the counts in a mask folder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.masks.mask_set import MaskSet


@dataclass(frozen=True)
class ExpertChoice:
    """The choice of experts in one layer.

    Attributes:
        layer: of the decoder.
        shares: float64 [languages, experts], of all choices that a language's tokens made; rows sum to 1.
        distances: float64 [languages], how far a language's shares are from the anchor's: the Jensen-Shannon divergence in
            bits, 0 for the same and 1 for no expert in common.
    """

    layer: int
    shares: NDArray[np.float64]
    distances: NDArray[np.float64]


def expert_choices(masks: MaskSet) -> list[ExpertChoice]:
    """The choice of experts in every layer that has any.

    Raises:
        ClasError: the masks are of no mixture of experts.
    """
    layout = masks.config.model.fingerprint.layout
    if masks.routed is None or layout is None:
        raise ClasError("These masks are of a model without experts, so there is no choice of experts to show; drop --experts.")
    anchor, found = masks.index(masks.anchor), []
    for layer, places in enumerate(layout.layers):
        first = 0
        for units, _ in places:
            counts = masks.routed[:, layer, first : first + units]
            first += units
            if units > 1:
                shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
                distances = np.array([jensen_shannon(row, shares[anchor]) for row in shares])
                found.append(ExpertChoice(layer, shares, distances))
    return found


def jensen_shannon(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The Jensen-Shannon divergence of two distributions, in bits."""
    middle = (one + other) / 2

    def from_middle(shares: NDArray[np.float64]) -> float:
        some = shares > 0
        return float((shares[some] * np.log2(shares[some] / middle[some])).sum())

    return max(0.0, (from_middle(one) + from_middle(other)) / 2)
