"""`method=incline` (INCLINE, Wang et al., ACL 2025, arXiv 2410.12462): a linear map from a language to the anchor.

At the output of each chosen decoder layer, h' = h + alpha W h, W h an estimate of the anchor's representation. As in the
authors' code, W maps mean representations of sentences to those of their translations, by least squares without a bias, and
W h is added as it is, without taking h off it. Unlike there, it acts on every position and not on the prompt's last one, as
all methods here do; and it is a ridge regression, since there are fewer sentences than numbers in h, so that plain least
squares would fit them exactly.

With X and Y [sentences, hidden] of the language and the anchor, W h = Y^T (X X^T + ridge I)^-1 X h: two narrow matrices, so
that W is never made. The ridge is the share of the mean of X X^T's eigenvalues, of `SHARES`, with the least generalised
cross-validation score (Golub, Heath, Wahba 1979): what leaving each sentence out would say, in closed form, with no setting
to choose.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.steering.methods.intervention import Intervention, LowRankMap
from lm_eval_clas.steering.methods.steering_method import Dose, SteeringMethod

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet

SHARES = tuple(10.0**power for power in range(-6, 3))


class AlignmentMap(SteeringMethod):
    """The language's sentences, mapped to the anchor's."""

    name = "incline"
    written = "INCLINE"
    about = "adds the anchor's representation, as a linear map of what leaves a layer estimates it"
    form = "map"
    acts_on = "outputs"
    alphas = (-0.5, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.5)
    measured = "residual"

    def require(self, masks: MaskSet, layers: tuple[int, ...]) -> None:
        super().require(masks, layers)
        assert masks.residual is not None
        if missing := [layer for layer in layers if layer not in masks.residual.layers]:
            raise ClasError(
                f"method={self.name} needs sentences of layers {', '.join(map(str, missing))}, and these masks have those of "
                f"{', '.join(map(str, masks.residual.layers))}, their bridge; make masks with another --bridge, or steer and "
                "tune in those."
            )

    def intervention(self, masks: MaskSet, dose: Dose, language: str) -> Intervention:
        residual = masks.residual
        assert residual is not None
        maps: dict[int, LowRankMap] = {}
        for layer in dose.layers if dose.alpha else ():
            x, y = residual.sentences_of(language, layer), residual.sentences_of(masks.anchor, layer)
            share, weights = ridge(x, y)
            said = f"{dose.alpha!r} {share!r} ".encode() + x.astype("<f4").tobytes() + y.astype("<f4").tobytes()
            up = (dose.alpha * y.astype(np.float64)).astype(np.float32)
            maps[layer] = LowRankMap(weights.astype(np.float32), up, hashlib.sha256(said).hexdigest())
        return Intervention(np.ones(residual.means.shape[1:], dtype=np.float32), maps=maps)


def ridge(x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]) -> tuple[float, NDArray[np.float64]]:
    """Ridge regression from rows of x to rows of y in its dual form.

    Args:
        x, y: [sentences, hidden].

    Returns:
        The share of the mean eigenvalue that the ridge is; and (X X^T + ridge I)^-1 X, float64 [sentences, hidden]: the
        estimate for h is y^T times that times h.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    values, vectors = np.linalg.eigh(x @ x.T)
    values = values.clip(0)
    mean = values.mean() or 1.0
    squares = np.square(vectors.T @ y).sum(axis=1)

    def score(share: float) -> float:
        left = share * mean / (values + share * mean)  # of each direction, what the fit leaves
        return float((np.square(left) * squares).sum() / left.mean() ** 2)

    best = min(SHARES, key=score)
    return best, vectors @ ((vectors.T @ x) / (values + best * mean)[:, None])
