"""`ResidualMeans`: what leaves each decoder layer, by language: what methods need that act there and not on neurons."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.disk.tensors import Shapes
from lm_eval_clas.masks.mask_config import CorpusSource, MaskConfig, ResidualSource
from lm_eval_clas.neurons.residual_folder import ResidualProfile


@dataclass(frozen=True)
class ResidualMeans:
    """Means of hidden states, and representations of the texts.

    Attributes:
        languages: in the order of the arrays.
        layers: those that `sentences` are of.
        means: float32 [languages, layers, hidden], the mean of all tokens at the output of each decoder layer.
        norms: float32 [languages, layers], the mean length of these.
        sentences: float32 [languages, `layers`, texts, hidden], the mean of each text's tokens; texts are parallel.
    """

    languages: tuple[str, ...]
    layers: tuple[int, ...]
    means: NDArray[np.float32]
    norms: NDArray[np.float32]
    sentences: NDArray[np.float32]

    def index(self, language: str) -> int:
        """The position of a language."""
        return self.languages.index(language)

    def sentences_of(self, language: str, layer: int) -> NDArray[np.float32]:
        """float32 [texts, hidden]."""
        found: NDArray[np.float32] = self.sentences[self.index(language), self.layers.index(layer)]
        return found

    @cached_property
    def hash(self) -> str:
        """16 hex digits over all of it."""
        digest = hashlib.sha256(repr((self.languages, self.layers)).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(name.encode() + np.ascontiguousarray(tensor, dtype="<f4").tobytes())
        return digest.hexdigest()[:16]

    @property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """As they are written."""
        return {"means": self.means, "norms": self.norms, "sentences": self.sentences}

    @staticmethod
    def shapes(source: ResidualSource, size: ModelFingerprint) -> Shapes:
        """What the file must hold."""
        many, hidden = len(source.languages), size.hidden_size
        return {
            "means": ("float32", (many, size.layers, hidden)),
            "norms": ("float32", (many, size.layers)),
            "sentences": ("float32", (many, len(source.layers), source.corpus.samples, hidden)),
        }

    @classmethod
    def read(cls, source: ResidualSource, tensors: dict[str, NDArray[Any]]) -> ResidualMeans:
        """From what was written."""
        return cls(tuple(source.languages), tuple(source.layers), **tensors)


def residual_of(profile: ResidualProfile, config: MaskConfig) -> tuple[ResidualMeans, ResidualSource]:
    """What masks keep of a residual profile, in the order of their languages: sentences of the bridge layers only.

    Raises:
        ClasError: the profile is of another model, or of other texts or languages than the masks.
    """
    source, size = profile.config, config.model.fingerprint
    parallel = [one for one in config.languages if one not in config.added]
    alike = ("model_type", "layers", "hidden_size", "config_hash")
    if other := [name for name in alike if getattr(source.fingerprint, name) != getattr(size, name)]:
        name = other[0]
        raise ClasError(
            f"The residual profile is of another model than the masks ({name} {getattr(source.fingerprint, name)}, and the "
            f"masks have {getattr(size, name)}); profile the same one with --site residual."
        )
    if source.corpus_sha256 != config.corpus.sha256:
        raise ClasError(
            f"The residual profile is of {source.corpus}, {source.samples} samples, in {', '.join(source.languages)}, and not "
            f"of the texts of the masks ({config.corpus.name}, {config.corpus.samples} samples, in {', '.join(parallel)}); "
            "profile the same texts with --site residual."
        )
    every = [profile.by_language[one] for one in parallel]
    residual = ResidualMeans(
        languages=tuple(parallel),
        layers=tuple(config.bridge_layers),
        means=np.stack([one.total / one.count for one in every]).astype(np.float32),
        norms=np.stack([one.norms / one.count for one in every]).astype(np.float32),
        sentences=np.stack([one.sentences[:, config.bridge_layers].swapaxes(0, 1) for one in every]),
    )
    corpus = CorpusSource.of(source, {one: profile.by_language[one].count for one in parallel})
    layers = list(config.bridge_layers)
    return residual, ResidualSource(languages=parallel, layers=layers, corpus=corpus, first_token=source.first_token)
