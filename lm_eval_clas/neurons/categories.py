"""From means to categories: which neurons are active for which languages. Pure functions of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.heads import spread
from lm_eval_clas.neurons.activity import STATISTICS, TOKENS, By, Statistic, Tokens

if TYPE_CHECKING:
    from lm_eval_clas.neurons.profile_folder import Profile


CATEGORIES = ("dead", "specific", "partial", "all")
DEAD, SPECIFIC, PARTIAL, ALL = range(4)


def categorize(active: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The category of each neuron, from the number of languages it is active in (Wang et al. 2024, arXiv 2406.09265).

    Args:
        active: bool [languages, ...], usually [languages, layers, neurons]; at least two languages.

    Returns:
        uint8 [...]: 0 dead (active in no language), 1 language-specific (one), 2 partial-shared, 3 all-shared.

    Raises:
        ClasError: fewer than two languages.
    """
    languages = len(active)
    if languages < 2:
        raise ClasError("Categories compare languages: profile at least two, the anchor and another one.")
    table = np.full(languages + 1, PARTIAL, dtype=np.uint8)
    table[0], table[1], table[languages] = DEAD, SPECIFIC, ALL
    languages_active = np.count_nonzero(active, axis=0) if languages > 255 else active.sum(axis=0, dtype=np.uint8)
    result: NDArray[np.uint8] = table[languages_active]
    return result


def category_counts(categories: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The number of neurons in each category by layer: int64 [layers, 4] from categories [layers, neurons]."""
    return np.stack([np.count_nonzero(categories == one, axis=1) for one in range(len(CATEGORIES))], axis=1)


def category_shares(categories: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of each category by layer: float64 [layers, 4] from categories [layers, neurons]; rows sum to 1."""
    share: NDArray[np.float64] = category_counts(categories) / categories.shape[1]
    return share


@dataclass(frozen=True)
class NeuronCategorizer:
    """Decides when a neuron counts as active for a language: a statistic of its activation above a threshold.

    The paper (arXiv 2601.16390) leaves all three open. The defaults, the signed mean over all real tokens above 0, follow
    its word "active" most literally and give its picture of the layers on Gemma 3.

    Attributes:
        statistic: `signed-mean` of h, `mean-abs` of |h|, or `share-positive`, the share of tokens with h > 0.
        tokens: `all` tokens of a text that count in the profile (no padding, no BOS), or its `last` one.
        threshold: active means strictly above; in units of h, or a share.
        by: `channel`, each neuron on its own; or, of attention, by `head`: all channels of a head are active where the mean
            of their statistics is above the threshold.
    """

    statistic: Statistic = "signed-mean"
    tokens: Tokens = "all"
    threshold: float = 0.0
    by: By = "channel"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("statistic", self.statistic, STATISTICS),
            ("tokens", self.tokens, TOKENS),
            ("by", self.by, get_args(By)),
        ):
            if value not in known:
                raise ClasError(f"{name} must be one of {', '.join(known)}, not '{value}'.")
        if not np.isfinite(self.threshold):
            raise ClasError(f"threshold must be a finite number, not {self.threshold}.")

    def active(self, profile: Profile) -> NDArray[np.bool_]:
        """bool [languages, layers, neurons], languages in the profile's order.

        Raises:
            ClasError: by head, and the profile is not of attention, or of an unknown number of heads.
        """
        units = profile.units(self.statistic, self.tokens, self.by)
        return spread(units > self.threshold, profile.config.fingerprint.neurons)
