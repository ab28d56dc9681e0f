"""Why do some languages gain? Candidate causes beside each language's gain, and whether so few languages can tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.comparing.task_families import language_of
from lm_eval_clas.disk.checked_json import Strict
from lm_eval_clas.evidence.correlation import Correlation, correlate_all
from lm_eval_clas.evidence.overlap_by_chance import jaccard
from lm_eval_clas.geometry.distances import moved_by_steering
from lm_eval_clas.geometry.measurements import Geometry
from lm_eval_clas.geometry.run_steering import RunSteering
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.categories import SPECIFIC
from lm_eval_clas.texts.corpora import ParallelTexts

GAIN = "gain"
BASELINE = "baseline score"
FERTILITY = "tokens per character"
SPECIFIC_SHARE = "specific share"
OVERLAP = "overlap with anchor"

_COUPLED = "Biased down, as the baseline is part of the gain: its noise alone makes them go against each other."


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
    run's layers that are specific to it; the Jaccard overlap of its active neurons there with the anchor's. Only languages
    count that the run steered: the gain of another is 0, whatever its causes. So the anchor is left out, and so are languages
    that were tuned to 0, left alone, or that the masks do not have. Several columns of one language (`hi-Deva`, `hi-Latn`) have
    a row each; correlations are over languages, and take their mean.

    Args:
        comparison: a table of runs.
        run: the label of its row.
        masks: the masks that were steered with.
        fertility: tokens per character by language; languages without it lack this cause only.
        geometry: what the same steering moved: its changes are correlated with the gain too.
        seed: of the resampling.

    Raises:
        ClasError: no such row, a row without gains or of other masks, or a geometry of other masks or another steering.
    """
    by_label = {row.label: row for row in comparison.rows}
    if run not in by_label:
        raise ClasError(f"The table has no row '{run}', only {', '.join(by_label)}; name one of these with --run.")
    steering = RunSteering.of(by_label[run], comparison.family, masks)
    gains = {column: gain for column in steering.by_column if (gain := by_label[run].cells[column].gain) is not None}
    if not any(cell.gain is not None for cell in by_label[run].cells.values()):
        raise ClasError(f"Row '{run}' has no gains over a baseline; name another row, or make the table with another baseline.")
    if geometry is not None:
        if geometry.masks_hash != masks.hash:
            raise ClasError(f"The geometry is of masks {geometry.masks_hash}, these are {masks.hash}; measure it with these.")
        steering.require(geometry)
    baseline = by_label[comparison.baseline].cells if comparison.baseline in by_label else {}
    rows = {}
    for column, gain in gains.items():
        language, layers = language_of(column), steering.by_column[column].get("layers", list(masks.bridge_layers))
        own = as_known(language, fertility)
        near = jaccard(masks.active_in(language)[layers], masks.active_in(masks.anchor)[layers])
        rows[column] = {
            GAIN: gain,
            **({BASELINE: baseline[column].score} if column in baseline else {}),
            **({FERTILITY: fertility[own]} if own in fertility else {}),
            SPECIFIC_SHARE: specific_share(masks, language, layers),
            OVERLAP: 1.0 if near is None else near,
        }
    causes = {
        cause: _by_language({column: row[cause] for column, row in rows.items() if cause in row})
        for cause in (BASELINE, FERTILITY, SPECIFIC_SHARE, OVERLAP)
    }
    correlations = correlate_all(causes, _by_language(gains), GAIN, seed)
    correlations[0].warnings.insert(0, _COUPLED)
    if geometry is not None:
        correlations += divergence(geometry, gains, GAIN, seed)
    return Causes(
        family=comparison.family,
        run=run,
        rows=rows,
        correlations=correlations,
        left_out=dict(sorted(steering.left_out.items())),
    )


def tokens_per_character(tokenizer: Any, texts: ParallelTexts) -> dict[str, float]:
    """How many tokens the tokenizer needs for a character (a Unicode code point), by language; special tokens do not count."""
    found = {}
    for language, lines in texts.texts.items():
        tokens = sum(len(ids) for ids in tokenizer(list(lines), add_special_tokens=False)["input_ids"])
        found[language] = tokens / sum(map(len, lines))
    return found


def specific_share(masks: MaskSet, language: str, layers: Sequence[int]) -> float:
    """Of the neurons active in a language in these layers, the share that is active in no other; 0 if none is active."""
    active = masks.active_in(language)[list(layers)]
    specific = masks.categories[list(layers)] == SPECIFIC
    return float(np.count_nonzero(active & specific) / max(1, int(np.count_nonzero(active))))


def divergence(geometry: Geometry, gains: Mapping[str, float], effect: str = "gain", seed: int = 0) -> list[Correlation]:
    """The paper's "functional divergence": does the score change where the representations do?

    For each measure of a language by itself and each pooling, after the bridge and after the last layer: its change under
    steering with the gain, over the languages that both have. The anchor, which is not steered, is not among them.

    Args:
        geometry: what steering moved.
        gains: by column of a table, from the same steering.
        effect: what the gains are.
        seed: of the resampling.
    """
    of_languages = {as_known(one, geometry.languages): gain for one, gain in _by_language(gains).items()}
    return correlate_all(moved_by_steering(geometry), of_languages, effect, seed)


def _by_language(by_column: Mapping[str, float]) -> dict[str, float]:
    """The mean over the columns of each language: they are one language, and not several that bear each other out."""
    columns = _columns(by_column)
    return {language: sum(by_column[one] for one in own) / len(own) for language, own in columns.items()}


def _columns(columns: Iterable[str]) -> dict[str, list[str]]:
    """Columns by language."""
    found: dict[str, list[str]] = {}
    for column in columns:
        found.setdefault(language_of(column), []).append(column)
    return found


class Causes(Strict):
    """`causes.json`: candidate causes of each language's gain.

    Attributes:
        rows: by column of the table whose language was steered: gain, and each cause.
        left_out: why the others are not there, by language.
    """

    family: str
    run: str
    rows: dict[str, dict[str, float]]
    correlations: list[Correlation]
    left_out: dict[str, str] = Field(default_factory=dict)

    @property
    def warned(self) -> dict[str, list[str]]:
        """The causes that each warning is about."""
        about: dict[str, list[str]] = {}
        for one in self.correlations:
            for sentence in one.warnings:
                about.setdefault(sentence, []).append(one.cause)
        return about

    @property
    def averaged(self) -> list[list[str]]:
        """Columns of one language, which count as one in correlations; empty where each has a language of its own."""
        return [columns for columns in _columns(self.rows).values() if len(columns) > 1]
