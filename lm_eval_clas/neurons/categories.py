"""From means to categories: which neurons are active for which languages. Pure functions of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.near_names import require_known
from lm_eval_clas.neurons.activity import STATISTICS, TOKENS, By, Statistic, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lm_eval_clas.decoder.anatomy.layer_axes import LayerAxes
    from lm_eval_clas.neurons.profile_folder import Profile


CATEGORIES = ("dead", "specific", "partial", "all")
DEAD, SPECIFIC, PARTIAL, ALL = range(4)
# What else an array of categories holds: neurons of experts that too few tokens reached, and places without a neuron, at the
# end of a layer that is narrower than the widest.
UNMEASURED, NO_NEURON = 4, 5
MIN_TOKENS = 100


def categorize(
    active: NDArray[np.bool_], measured: NDArray[np.bool_] | None = None, exists: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """The category of each neuron, from the number of languages it is active in (Wang et al. 2024, arXiv 2406.09265).

    Args:
        active: bool [languages, ...], usually [languages, layers, neurons]; at least two languages.
        measured: bool [...], where enough tokens were seen in every language; None for everywhere.
        exists: bool [...], where there are neurons; None for everywhere.

    Returns:
        uint8 [...]: 0 dead (active in no language), 1 language-specific (one), 2 partial-shared, 3 all-shared; beside these,
        4 where it was not measured, and 5 where there is no neuron.

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
    if measured is not None:
        result[~measured] = UNMEASURED
    if exists is not None:
        result[~exists] = NO_NEURON
    return result


def measured_neurons(seen: NDArray[np.int64], min_tokens: int, layout: LayerAxes) -> NDArray[np.bool_]:
    """Whose expert saw enough tokens in every language: bool [layers, neurons] from int64 [languages, layers, units]."""
    return layout.spread(np.asarray(seen.min(axis=0) >= min_tokens))


def category_counts(categories: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The number of neurons in each category by layer: int64 [layers, 4] from categories [layers, neurons]."""
    return np.stack([np.count_nonzero(categories == one, axis=1) for one in range(len(CATEGORIES))], axis=1)


def category_shares(categories: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of each category by layer: float64 [layers, 4] from categories [layers, neurons].

    It is of the neurons that were measured: rows sum to 1, or are zeros where no neuron was.
    """
    counts = category_counts(categories)
    share: NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
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
        min_tokens: of experts, which see some of the tokens only: how many an expert must have seen in every language. Its
            neurons are unmeasured otherwise. With 100, the standard error of a mean is a tenth of the spread over tokens, so
            that the sign of a mean that is a fifth of it is right in 98 of 100 cases.

    Raises:
        ClasError: an unknown statistic, kind of tokens or `by`, min_tokens below 1, or a threshold that is not finite.
    """

    statistic: Statistic = "signed-mean"
    tokens: Tokens = "all"
    threshold: float = 0.0
    by: By = "channel"
    min_tokens: int = MIN_TOKENS

    def __post_init__(self) -> None:
        for name, value, known in (
            ("statistic", self.statistic, STATISTICS),
            ("tokens", self.tokens, TOKENS),
            ("by", self.by, get_args(By)),
        ):
            require_known(name, value, known)
        if self.min_tokens < 1:
            raise ClasError(f"min-tokens must be a whole number from 1 on, not {self.min_tokens}.")
        if not np.isfinite(self.threshold):
            raise ClasError(f"threshold must be a finite number, not {self.threshold}.")

    def active(self, profile: Profile, languages: Sequence[str] | None = None) -> NDArray[np.bool_]:
        """bool [languages, layers, neurons], of these languages of a profile; or of all, in its order.

        False where a neuron is unmeasured: in any of these languages.

        Raises:
            ClasError: by head, and the profile is not of attention, or of an unknown number of heads.
        """
        fingerprint = profile.config.fingerprint
        active = fingerprint.spread(profile.units(self.statistic, self.tokens, self.by) > self.threshold, self.by == "head")
        measured = self.measured(profile, languages)
        active = active[_places(profile, languages)]
        return active if measured is None else active & measured

    def measured(self, profile: Profile, languages: Sequence[str] | None = None) -> NDArray[np.bool_] | None:
        """bool [layers, neurons]: whose expert saw enough tokens in each of these languages, or all; None without experts."""
        seen = profile.tokens_seen(self.tokens)
        layout = profile.config.fingerprint.layout
        if seen is None or layout is None:
            return None
        return measured_neurons(seen[_places(profile, languages)], self.min_tokens, layout)

    def categories(self, profile: Profile, languages: Sequence[str] | None = None) -> NDArray[np.uint8]:
        """Categories counted over these languages of a profile, or all: uint8 [layers, neurons]."""
        return categorize(self.active(profile, languages), self.measured(profile, languages), profile.config.fingerprint.exists)


def _places(profile: Profile, languages: Sequence[str] | None) -> list[int]:
    return [profile.languages.index(one) for one in (profile.languages if languages is None else languages)]
