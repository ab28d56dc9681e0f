"""`ResidualProfile`: what leaves the decoder layers, by language; kept in a folder as a profile of neurons is.

clas_profile.json       as of neurons, with site `residual`
LANGUAGE.safetensors    `total`, float64 [layers, hidden], and `norms`, float64 [layers], over all tokens that count; `count`,
                        int64 [1], of these; `sentences`, float32 [texts, layers, hidden], the mean of each text's
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.disk.tensors import Shapes
from lm_eval_clas.neurons.profile_folder import ProfileConfig, StoredProfile


@dataclass(frozen=True)
class ResidualSums:
    """One language's hidden states, summed.

    Attributes:
        total: float64 [layers, hidden], over all tokens that count.
        norms: float64 [layers], of their lengths.
        count: of these tokens.
        sentences: float32 [texts, layers, hidden], each text's mean, in the order of the texts.
    """

    total: NDArray[np.float64]
    norms: NDArray[np.float64]
    count: int
    sentences: NDArray[np.float32]

    def __add__(self, other: ResidualSums) -> ResidualSums:
        return ResidualSums(
            self.total + other.total,
            self.norms + other.norms,
            self.count + other.count,
            np.concatenate([self.sentences, other.sentences]),
        )


@dataclass(frozen=True)
class ResidualProfile(StoredProfile[ResidualSums]):
    """Hidden states by language, and where they came from. Merged, the texts of one come after those of the other."""

    sites = ("residual",)
    kind = "of what leaves the layers"
    remedy = "make one with 'clas profile --site residual'"

    @staticmethod
    def tensors(one: ResidualSums) -> dict[str, NDArray[Any]]:
        return {
            "total": one.total,
            "norms": one.norms,
            "count": np.array([one.count], dtype=np.int64),
            "sentences": one.sentences,
        }

    @staticmethod
    def shapes(config: ProfileConfig) -> Shapes:
        layers, hidden = config.fingerprint.layers, config.fingerprint.hidden_size
        return {
            "total": ("float64", (layers, hidden)),
            "norms": ("float64", (layers,)),
            "count": ("int64", (1,)),
            "sentences": ("float32", (config.samples, layers, hidden)),
        }

    @staticmethod
    def from_tensors(found: dict[str, NDArray[Any]]) -> ResidualSums:
        numbers = ("total", "norms", "sentences")
        if found["count"].min() < 1 or any(not np.isfinite(found[name]).all() for name in numbers):
            raise ValueError("it holds a count below 1 or numbers that are not finite")
        return ResidualSums(found["total"], found["norms"], int(found["count"][0]), found["sentences"])
