"""`method=diffmean` (CLaS-Bench, arXiv 2601.08331; parallel texts as in arXiv 2602.02326): a direction in the residual stream.

At the output of each chosen decoder layer, h' = h + alpha u r: u is the unit vector of mean(h | language) - mean(h | anchor)
over the tokens of parallel texts, r the mean norm of h there. So alpha is a share of the norm, and means the same in every
layer and model. r is the plain mean of the languages' mean norms, each language once: one number for a layer, so that alpha
means the same in every language, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.steering.methods.intervention import Intervention
from lm_eval_clas.steering.methods.steering_method import Dose, SteeringMethod

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet


class MeanDifference(SteeringMethod):
    """Along the difference of means; its control takes another direction (`direction`)."""

    name = "diffmean"
    written = "DiffMean"
    about = "adds the direction from the anchor's mean to the language's to what leaves a layer"
    form = "vector"
    acts_on = "outputs"
    alphas = (-0.5, -0.2, -0.1, -0.05, -0.02, 0.02, 0.05, 0.1, 0.2, 0.5)
    measured = "residual"

    def intervention(self, masks: MaskSet, dose: Dose, language: str) -> Intervention:
        assert masks.residual is not None
        norms = masks.residual.norms.mean(axis=0, dtype=np.float64)  # [layers]
        shifts = np.zeros(masks.residual.means.shape[1:], dtype=np.float32)
        for layer in dose.layers:
            vector = self.direction(masks, dose, language, layer)
            length = np.sqrt(np.square(vector).sum())
            if length > 0:
                shifts[layer] = dose.alpha * norms[layer] / length * vector
        return Intervention(np.ones_like(shifts), shifts)

    def direction(self, masks: MaskSet, dose: Dose, language: str, layer: int) -> NDArray[np.float64]:
        """A vector of any length, float64 [hidden]."""
        assert masks.residual is not None
        of = masks.residual.means[:, layer].astype(np.float64)
        difference: NDArray[np.float64] = of[masks.residual.index(language)] - of[masks.residual.index(masks.anchor)]
        return difference
