"""Which data set masks were computed from, and its licence: told only where it is one of the corpora that `clas` knows.

A name alone proves nothing, as anybody may call a folder `xquad`. So texts of a path are recorded with the ending of their file
or the slash of their folder, which no corpus of ours has. Folders of masks that were made before are told apart by what
else is known of a corpus: its languages, its size, and, where its texts are here, their hash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.masks.mask_config import CorpusSource
from lm_eval_clas.texts.corpora import MINI_LANGUAGES, XNLI_LANGUAGES, XQUAD_LANGUAGES, Half, ParallelInputBuilder, split_half


@dataclass(frozen=True)
class Terms:
    """A corpus that `clas` knows.

    Attributes:
        name: in words.
        dataset: its repository on the Hub, if it is there.
        code: the Hub's code of its licence.
        licence: in words.
        languages: that it has.
        items: that may be profiled, in each language.
    """

    name: str
    dataset: str | None
    code: str
    licence: str
    languages: tuple[str, ...]
    items: int


_KNOWN = {
    "xnli": Terms("XNLI (Conneau et al. 2018)", "facebook/xnli", "cc-by-nc-4.0", "CC BY-NC 4.0", XNLI_LANGUAGES, 200),
    "xquad": Terms("XQuAD (Artetxe et al. 2020)", "google/xquad", "cc-by-sa-4.0", "CC BY-SA 4.0", XQUAD_LANGUAGES, 111),
    "mini": Terms("the texts that ship with lm-eval-clas", None, "apache-2.0", "Apache-2.0", MINI_LANGUAGES, 16),
}


def terms(corpus: CorpusSource) -> Terms | None:
    """The corpus that masks were computed from; None where it is, or may be, somebody's own."""
    name, half = split_half(corpus.name)
    known = _KNOWN.get(name)
    # Profiles that were merged have two hashes, and the name of the first.
    if known is None or not re.fullmatch("[0-9a-f]{64}", corpus.sha256):
        return None
    if not set(corpus.tokens) <= set(known.languages) or corpus.samples > known.items:
        return None
    if name == "mini" and corpus.sha256 != _hash_of_mini(corpus, half):
        return None
    return known


def half_of(corpus: CorpusSource) -> Half | None:
    """Which half of the corpus was taken, if one was."""
    return split_half(corpus.name)[1]


def _hash_of_mini(corpus: CorpusSource, half: Half | None) -> str | None:
    samples = corpus.samples * 2 if half else corpus.samples
    try:
        return ParallelInputBuilder("mini", list(corpus.tokens), samples, half).build().sha256()
    except ClasError:  # it never has so many
        return None
