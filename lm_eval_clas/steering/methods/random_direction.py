"""`method=random-direction`, the control of methods that add: as `diffmean`, along a direction drawn by chance.

Each layer and language has its own, as each has its own in `diffmean`, drawn uniformly from the sphere by the seed. The norm
is the same, so that what a gain owes to the direction can be told from what any push of that size does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.steering.methods.diffmean import MeanDifference
from lm_eval_clas.steering.methods.steering_method import Dose

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet


class RandomDirection(MeanDifference):
    """A push of the same size to anywhere."""

    name = "random-direction"
    written = ""
    about = "a control: as diffmean, along a random direction"
    control = "random direction"
    stands_beside = "diffmean"
    ignores = ("beta", "gamma", "specific_scope", "partial_scope")
    seeded = True

    def direction(self, masks: MaskSet, dose: Dose, language: str, layer: int) -> NDArray[np.float64]:
        # By the language's code, so that it does not depend on which others there are.
        chance = np.random.default_rng([dose.seed, layer, *masks.code_of(language).encode()])
        return chance.standard_normal(masks.config.model.fingerprint.hidden_size)
