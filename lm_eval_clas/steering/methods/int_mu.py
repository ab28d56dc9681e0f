"""`method=int-mu` (Mondal et al. 2025, arXiv 2503.17456): a language's own specific neurons are drawn towards its mean.

h' = h + alpha (mu - h), mu the neuron's mean in the language: a factor of 1 - alpha and a shift of alpha mu. At alpha 1 the
neurons are overwritten with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lm_eval_clas.steering.methods.intervention import Intervention
from lm_eval_clas.steering.methods.steering_method import Dose, SteeringMethod

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet


class MeanOverwriting(SteeringMethod):
    """The language's own neurons, moved to their mean."""

    name = "int-mu"
    written = "Int-mu"
    about = "draws the language's own neurons towards their mean in it"
    form = "blend"
    alphas = (-0.5, 0.25, 0.5, 0.75, 1.0)
    measured = "means"

    def intervention(self, masks: MaskSet, dose: Dose, language: str) -> Intervention:
        assert masks.means is not None
        layers = list(dose.layers)
        own = masks.specific_in(language)[layers]
        factors = np.ones(masks.means.shape[1:], dtype=np.float32)
        shifts = np.zeros_like(factors)
        factors[layers] = np.where(own, np.float32(1 - dose.alpha), np.float32(1))
        shifts[layers] = np.where(own, dose.alpha * masks.means[masks.index(language)][layers], 0)
        return Intervention(factors, shifts)
