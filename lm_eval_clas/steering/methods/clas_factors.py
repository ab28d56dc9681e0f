"""`method=clas`: Cross-Lingual Activation Steering (arXiv 2601.16390).

Partial-shared neurons are amplified, language-specific ones damped, and the result is blended with the original activation:
h1 = h (1 + beta M_partial), h2 = h1 (1 - gamma M_specific), h' = (1 - alpha) h + alpha h2. The masks are disjoint, so this is
one factor for each neuron: 1 + alpha beta on partial-shared ones, 1 - alpha gamma on specific ones, and 1 elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.steering.methods.intervention import Intervention
from lm_eval_clas.steering.methods.steering_method import Dose, SteeringMethod

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet


class ClasFactors(SteeringMethod):
    """CLAS itself; its controls rearrange the factors of a layer (`rearranged`)."""

    name = "clas"
    written = "CLAS"
    about = "amplifies partial-shared neurons and damps language-specific ones"
    form = "factors"
    alphas = (-8, -5, -4, -2, -1, 0, 1, 2, 4)
    ignores = ()

    def intervention(self, masks: MaskSet, dose: Dose, language: str) -> Intervention:
        layers = list(dose.layers)
        partial = masks.partial[layers]
        active, own = masks.active_in(language)[layers], masks.specific_in(language)[layers]
        specific = own if dose.specific_scope == "own" else masks.specific[layers] | own
        if dose.partial_scope != "all":
            partial = partial & active
        if dose.partial_scope == "anchor":
            partial = partial & masks.active_in(masks.anchor)[layers]
        return self._of(masks, dose, partial, specific)

    def unseen(self, masks: MaskSet, dose: Dose) -> Intervention:
        """Of such a language, only the neurons that others share are known, so partial-shared ones are amplified."""
        if dose.partial_scope != "all":
            raise ClasError("unseen=shared steers with all partial-shared neurons; drop partial_scope.")
        partial = masks.partial[list(dose.layers)]
        return self._of(masks, dose, partial, np.zeros_like(partial))

    def _of(self, masks: MaskSet, dose: Dose, partial: NDArray[np.bool_], specific: NDArray[np.bool_]) -> Intervention:
        factors = np.ones(masks.categories.shape, dtype=np.float32)
        bridge = np.ones(partial.shape, dtype=np.float32)
        bridge[partial] = 1 + dose.alpha * dose.beta
        bridge[specific] = 1 - dose.alpha * dose.gamma  # the second, as a neuron that is both is specific
        for row, layer in zip(bridge, dose.layers, strict=True):
            there = masks.steerable[layer]
            if there.any():
                row[there] = self.rearranged(masks, dose, layer, row[there])
        factors[list(dose.layers)] = bridge
        return Intervention(factors)

    def rearranged(self, masks: MaskSet, dose: Dose, layer: int, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """The factors of one layer's neurons, as they are; controls give others of the same mean."""
        return row
