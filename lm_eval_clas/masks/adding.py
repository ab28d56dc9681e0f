"""Languages added to masks from plain text of their own: no parallel data, no second pass over the others.

An added language is known: its requests are routed and steered. It does not take part in counting, so that the categories
of all neurons, the bridge layers and everything about the other languages stay bit for bit what they were. Of its own it
has the neurons that are active in it (for the scopes `own` and `anchor`), its means, and its specific neurons
(`MaskSet.specific_in`): active in it and in none of the counted languages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.disk.checked_files import user_path
from lm_eval_clas.disk.files import sha256
from lm_eval_clas.languages.language_names import parse_language
from lm_eval_clas.masks.mask_config import AddedLanguage
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.categories import MIN_TOKENS, NeuronCategorizer
from lm_eval_clas.neurons.profile_folder import Profile
from lm_eval_clas.neurons.profiling import profile
from lm_eval_clas.texts.corpora import ParallelTexts, read_lines

_MAX_TOKENS = 2048  # the default of `clas profile`, for masks from before it was written down


@dataclass(frozen=True)
class MonolingualText:
    """Plain text of one language.

    Attributes:
        language: a BCP-47 code, as `codes.normalize` gives it.
        path: a UTF-8 file with one text a line; blank lines do not count.
        lines: its texts.
    """

    language: str
    path: Path
    lines: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> MonolingualText:
        """Reads what an option like `quy=FILE.txt` names.

        Raises:
            ClasError: it is not of that form, or the file has no text.
        """
        code, separator, name = text.partition("=")
        language = parse_language(code)
        if not separator or not name or language is None:
            raise ClasError(f"--add-language must be a language code and a file, like quy=FILE.txt, not '{text}'.")
        path = user_path(name)
        lines = tuple(line.strip() for line in read_lines(path) if line.strip())
        if not lines:
            raise ClasError(f"'{path}' holds no text; it needs one text a line.")
        return cls(language, path, lines)


def add_language(
    masks: MaskSet,
    model: nn.Module,
    tokenizer: Any,
    text: MonolingualText,
    *,
    batch_size: int = 8,
    report: Callable[[int], None] | None = None,
) -> MaskSet:
    """Profiles one language with the masks' own settings, and appends it to them.

    Where LAPE gave the specific neurons, the added language owns those of the selected ones in which its probability is
    above the same bar; where a file did, it has none.

    Args:
        masks: of this model.
        model: as `profile` takes it.
        tokenizer: its tokenizer.
        text: what to profile on.
        batch_size: texts in a batch.
        report: told of the number of texts that are done.

    Raises:
        ClasError: the masks already have the language, or are of another model.
    """
    config = masks.config
    if text.language in masks.languages:
        raise ClasError(f"The masks have '{text.language}' already; --add-language is for languages they do not have.")
    found = find_projections(model, config.site, config.projection)
    config.model.fingerprint.require(ModelFingerprint.of(model, found), "This mask folder")
    profiled = profile(
        model,
        tokenizer,
        ParallelTexts(text.path.stem, tuple(map(str, range(len(text.lines)))), {text.language: text.lines}),
        batch_size=batch_size,
        max_tokens=config.corpus.max_tokens or _MAX_TOKENS,
        first_token=config.first_token,
        site=config.site,
        projection=config.projection,
        report=None if report is None else lambda _, done, __: report(done),
    )
    return _appended(masks, text, profiled)


def _appended(masks: MaskSet, text: MonolingualText, profiled: Profile) -> MaskSet:
    config = masks.config
    enough = config.min_tokens or MIN_TOKENS
    active = NeuronCategorizer(config.statistic, config.tokens, config.threshold, config.by, enough).active(profiled)
    if masks.measured is not None:
        active &= masks.measured
    means, owned, routed = masks.means, masks.owned, masks.routed
    if (seen := profiled.tokens_seen(config.tokens)) is not None and routed is not None:
        routed = np.concatenate([routed, seen])
    if means is not None:
        means = np.concatenate([means, profiled.mean(config.statistic, config.tokens)])
    if owned is not None:
        own = np.zeros_like(active)
        if config.specific.bar is not None:
            probable = NeuronCategorizer("share-positive", config.tokens, config.specific.bar, config.by, enough)
            own = masks.specific & probable.active(profiled)
        owned = np.concatenate([owned, own])
    added = AddedLanguage(
        file=text.path.name,
        sha256=sha256(text.path),
        samples=len(text.lines),
        tokens=profiled.by_language[text.language].counts[config.tokens],
    )
    update = {"languages": [*config.languages, text.language], "added": {**config.added, text.language: added}}
    return replace(
        masks,
        config=config.model_copy(update=update),
        active=np.concatenate([masks.active, active]),
        means=means,
        owned=owned,
        routed=routed,
    )
