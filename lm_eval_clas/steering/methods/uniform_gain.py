"""`method=uniform`, a control of CLAS: every neuron of a bridge layer gets the mean of the layer's factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.steering.methods.clas_factors import ClasFactors
from lm_eval_clas.steering.methods.steering_method import Dose

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet


class UniformGain(ClasFactors):
    """One gain for a whole layer."""

    name = "uniform"
    written = ""
    about = "a control: the mean of each layer's factors of CLAS on all its neurons"
    control = "uniform gain"
    stands_beside = "clas"

    def rearranged(self, masks: MaskSet, dose: Dose, layer: int, row: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full_like(row, row.mean(dtype=np.float64))
