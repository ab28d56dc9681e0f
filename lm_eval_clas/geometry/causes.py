"""Why do some languages gain? Candidate causes beside each language's gain, and whether so few languages can tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.disk.checked_json import Strict
from lm_eval_clas.evidence.correlation import Correlation, correlate_all
from lm_eval_clas.geometry.distances import moved_by_steering
from lm_eval_clas.geometry.measurements import Geometry
from lm_eval_clas.masks.inspection import overlap
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.categories import SPECIFIC
from lm_eval_clas.texts.corpora import ParallelTexts

GAIN = "gain"
BASELINE = "baseline score"
FERTILITY = "tokens per character"
SPECIFIC_SHARE = "specific share"
OVERLAP = "overlap with anchor"

_COUPLED = "Biased down: the baseline is part of the gain, so its noise alone makes them go against each other."


def find_causes(
    comparison: Comparison,
    run: str,
    masks: MaskSet,
    fertility: dict[str, float],
    geometry: Geometry | None = None,
    seed: int = 0,
) -> Causes:
    """Puts candidate causes beside the gains of one run, and correlates each with them over languages.

    The causes: the baseline's score in points; tokens per character; the share of the language's active neurons in the
    bridge that are specific to it; the Jaccard overlap of its active neurons there with the anchor's. The anchor, which is
    not steered, is left out, and so are languages that the masks do not have.

    Args:
        comparison: a table of runs.
        run: the label of its row.
        masks: the masks that were steered with.
        fertility: tokens per character by language; languages without it lack this cause only.
        geometry: what the same steering moved: its changes are correlated with the gain too.
        seed: of the resampling.

    Raises:
        ClasError: no such row, a row without gains, or a geometry of other masks.
    """
    by_label = {row.label: row for row in comparison.rows}
    if run not in by_label:
        raise ClasError(f"The table has no row '{run}', only {', '.join(by_label)}; name one of these with --run.")
    gains = {language: cell.gain for language, cell in by_label[run].cells.items() if cell.gain is not None}
    gains = {language: gain for language, gain in gains.items() if language in masks.languages and language != masks.anchor}
    if not gains:
        raise ClasError(
            f"Row '{run}' has no gains over the baseline in languages of the masks ({', '.join(masks.languages)}); name a run "
            "that was steered with them."
        )
    if geometry is not None and geometry.masks_hash != masks.hash:
        raise ClasError(f"The geometry is of masks {geometry.masks_hash}, these are {masks.hash}; measure it with these.")
    baseline = by_label[comparison.baseline].cells
    specific, near = specific_shares(masks), overlap(masks)[masks.index(masks.anchor)]
    rows = {}
    for language, gain in gains.items():
        rows[language] = {
            GAIN: gain,
            **({BASELINE: baseline[language].score} if language in baseline else {}),
            **({FERTILITY: fertility[language]} if language in fertility else {}),
            SPECIFIC_SHARE: specific[language],
            OVERLAP: float(near[masks.index(language)]),
        }
    causes = {
        cause: {language: row[cause] for language, row in rows.items() if cause in row}
        for cause in (BASELINE, FERTILITY, SPECIFIC_SHARE, OVERLAP)
    }
    correlations = correlate_all(causes, gains, GAIN, seed)
    correlations[0].warning = " ".join(filter(None, (_COUPLED, correlations[0].warning)))
    if geometry is not None:
        correlations += divergence(geometry, gains, GAIN, seed)
    return Causes(family=comparison.family, run=run, rows=rows, correlations=correlations)


def tokens_per_character(tokenizer: Any, texts: ParallelTexts) -> dict[str, float]:
    """How many tokens the tokenizer needs for a character (a Unicode code point), by language; special tokens do not count."""
    found = {}
    for language, lines in texts.texts.items():
        tokens = sum(len(ids) for ids in tokenizer(list(lines), add_special_tokens=False)["input_ids"])
        found[language] = tokens / sum(map(len, lines))
    return found


def specific_shares(masks: MaskSet) -> dict[str, float]:
    """Of the neurons active in a language in the bridge layers, the share that is active in no other; 0 if none is active."""
    layers = list(masks.bridge_layers)
    specific = masks.categories[layers] == SPECIFIC
    found: dict[str, float] = {}
    for language in masks.languages:
        active = masks.active_in(language)[layers]
        found[language] = float(np.count_nonzero(active & specific) / max(1, int(np.count_nonzero(active))))
    return found


def divergence(geometry: Geometry, gains: Mapping[str, float], effect: str = "gain", seed: int = 0) -> list[Correlation]:
    """The paper's "functional divergence": does the score change where the representations do?

    For each measure of a language by itself and each pooling, after the bridge and after the last layer: its change under
    steering with the gain, over the languages that both have. The anchor, which is not steered, is not among them.

    Args:
        geometry: what steering moved.
        gains: by language, from the same steering.
        effect: what the gains are.
        seed: of the resampling.
    """
    return correlate_all(moved_by_steering(geometry), gains, effect, seed)


class Causes(Strict):
    """`causes.json`: candidate causes of each language's gain.

    Attributes:
        rows: by language: gain, and each cause.
    """

    family: str
    run: str
    rows: dict[str, dict[str, float]]
    correlations: list[Correlation]
