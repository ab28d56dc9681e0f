"""`method=random`, a control of CLAS: the factors of each layer, shuffled among its neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.steering.methods.clas_factors import ClasFactors
from lm_eval_clas.steering.methods.steering_method import Dose

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet


class ShuffledFactors(ClasFactors):
    """The same factors on neurons drawn by chance. By head, heads stay whole."""

    name = "random"
    written = ""
    about = "a control: each layer's factors of CLAS on random neurons"
    control = "random masks"
    stands_beside = "clas"
    seeded = True

    def rearranged(self, masks: MaskSet, dose: Dose, layer: int, row: NDArray[np.float32]) -> NDArray[np.float32]:
        heads = masks.config.model.fingerprint.heads_in(layer) if masks.config.by == "head" else None
        # One shuffle a layer, the same for every language, whichever other layers are steered.
        np.random.default_rng([dose.seed, layer]).shuffle(row.reshape(heads, -1) if heads else row)
        return row
