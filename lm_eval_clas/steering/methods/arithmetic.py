"""`method=arithmetic` (language arithmetics, arXiv 2507.22608): the difference of two languages' means is added to neurons.

h' = h + alpha (mean_language - mean_anchor), on the neurons that are specific to the language or to the anchor: alpha 1 takes
the mean activation of these from the anchor's to the language's, and a negative one the other way. The paper finds adding
better than overwriting (`int-mu`). Means are over all tokens of the parallel texts that masks come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lm_eval_clas.steering.methods.intervention import Intervention
from lm_eval_clas.steering.methods.steering_method import Dose, SteeringMethod

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet


class NeuronArithmetic(SteeringMethod):
    """The language's neurons plus, the anchor's minus."""

    name = "arithmetic"
    about = "adds the language's mean minus the anchor's to the specific neurons of both"
    form = "vector"
    alphas = (-4, -2, -1, -0.5, 0.5, 1, 2, 4)
    measured = "means"

    def intervention(self, masks: MaskSet, dose: Dose, language: str) -> Intervention:
        assert masks.means is not None
        layers = list(dose.layers)
        of_both = masks.specific_in(language)[layers] | masks.specific_in(masks.anchor)[layers]
        there, here = masks.means[masks.index(language)][layers], masks.means[masks.index(masks.anchor)][layers]
        shifts = np.zeros(masks.means.shape[1:], dtype=np.float32)
        shifts[layers] = np.where(of_both, dose.alpha * (there - here), 0)
        return Intervention(np.ones_like(shifts), shifts)
