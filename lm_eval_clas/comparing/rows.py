"""What a comparison of runs says, as plain data: what tables print and the report shows. No computation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lm_eval_clas.disk.checked_json import Strict
from lm_eval_clas.texts.metric_units import unit_named

RowKind = Literal["baseline", "unsteered", "control", "method", "cited"]


class LanguageCell(Strict):
    """One run in one language.

    Attributes:
        score: in the comparison's unit: in points, it is 100 times the metric.
        items: how many were scored.
        gain: score minus the baseline's on the same items; None for the baseline and for cited figures.
        p_value: two-sided, of the paired test that the comparison names; None where nothing was compared.
        p_holm: the same, adjusted over the languages that the row or the baseline steered (Holm 1979), or over all of them
            where the files do not tell; None in the others.
        clusters: how many groups of items the test takes as one, such as passages; `items`, where all are by themselves.
        correlation: of the gains within clusters (intraclass); None where no items hang together, or nothing changed.
        low, high: the 95 % interval of the gain (Student's t of the sums of clusters), in points; None for too few clusters.
        smallest: the gain that such a test finds in 80 % of cases, of so many items whose gains vary as much; without Holm.
    """

    score: float
    items: int | None = None
    gain: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    clusters: int | None = None
    correlation: float | None = None
    low: float | None = None
    high: float | None = None
    smallest: float | None = None


class Row(Strict):
    """One run, or several seeds of one control taken together.

    Attributes:
        label: as shown: the name that was given, or one made of the model and its steering.
        kind: `baseline`, `method`, `control`, `unsteered` (the model as it is, where something else is the baseline), or
            `cited` from a publication.
        cells: by language; those that the run lacks are not there.
        average: mean over the comparison's languages, each counting once.
        gain: average minus the baseline's; `low` and `high`: its 95 % bootstrap interval over clusters of items.
        percent: the same gain relative to the baseline's average, in per cent.
        losses: languages whose score is worse than the baseline's; `significant_losses` and `significant_gains`: those with
            `p_holm` below 0.05, None where nothing was tested.
        correlation: of gains within clusters, the mean of those of its cells.
        smallest: the average gain that is found in 80 % of cases, as the interval tells.
        steering: `config.clas` of the results file: method, alpha, masks' hash; empty for other models.
        source: of a cited row: where the figures come from.
    """

    label: str
    kind: RowKind
    cells: dict[str, LanguageCell]
    average: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    percent: float | None = None
    losses: int | None = None
    significant_losses: int | None = None
    significant_gains: int | None = None
    correlation: float | None = None
    smallest: float | None = None
    steering: dict[str, Any] = Field(default_factory=dict)
    source: str | None = None


class Comparison(Strict):
    """Runs of one task family, such as `clas_xquad`, against a baseline, on the same items.

    Attributes:
        family: the tasks' name without language and split.
        tasks: the harness's task name by language.
        metric: what is compared; `unit` is what scores and gains are in, in words: `points`, `nats per byte` and others that
            `texts/metric_units.py` knows, or the metric's name.
        higher_is_better: if not, a language with a higher score than the baseline's is one that loses.
        test: the paired test behind the p-values: `exact McNemar`, `permutation`, `cluster permutation` where items hang
            together, or `none` where no samples were logged.
        cluster_fields: the field of the documents by which items hang together, by language; languages without are not there.
        baseline: the label of the baseline's row.
        languages: those that any run has, in the order of columns. The anchor comes first, if it is there. Where a language has
            several tasks, each is a column of its own, such as `hi-Latn`.
        anchor: it is left out of no average unless `average_languages` says so.
        average_languages: over which averages are taken: every run has them.
        rows: the baseline first.
        notes: what a reader must know: languages left out, rows without samples, items dropped.
    """

    family: str
    tasks: dict[str, str]
    metric: str
    unit: str
    higher_is_better: bool = True
    test: str
    cluster_fields: dict[str, str] = Field(default_factory=dict)
    baseline: str
    languages: list[str]
    anchor: str | None = None
    average_languages: list[str]
    rows: list[Row]
    notes: list[str] = Field(default_factory=list)

    @property
    def digits(self) -> int:
        """After the point, of averages and their gains."""
        return unit_named(self.unit).digits
