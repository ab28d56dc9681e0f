"""What the analyses of a study say, as plain data: geometry, correlations, stability. No computation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Pooling = Literal["mean", "last"]
Measure = Literal["cosine", "retrieval", "centroid_distance", "silhouette"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Measurement(_Strict):
    """One number about sentence representations.

    Attributes:
        measure: `cosine` to the anchor's translation (mean over items); `retrieval` accuracy of the translation among all
            items of the anchor, by cosine; `centroid_distance` between the language's and the anchor's mean, in units of the
            anchor's mean norm; `silhouette` by language, over all languages at once.
        pooling: `mean` of real tokens, or the `last` one.
        steered: whether the language was steered.
        layer: 0 is the embeddings, l the output of decoder layer l - 1 (zero-based), as in `hidden_states`.
        language: None for `silhouette`.
    """

    measure: Measure
    pooling: Pooling
    steered: bool
    layer: int
    language: str | None
    value: float


class Correlation(_Strict):
    """A correlation over languages, with 95 % bootstrap intervals; None where it is not defined (fewer than 3, no spread).

    Attributes:
        cause: what is compared with `effect`, in words that a table can print.
        n: how many languages.
        pearson_p, spearman_p: two-sided, from permutations; not adjusted for looking at several causes.
        warning: what a reader must know: that so few languages tell little, or why there are no numbers.
    """

    cause: str
    effect: str
    n: int
    pearson: float | None = None
    pearson_low: float | None = None
    pearson_high: float | None = None
    pearson_p: float | None = None
    spearman: float | None = None
    spearman_low: float | None = None
    spearman_high: float | None = None
    spearman_p: float | None = None
    warning: str | None = None


class Geometry(_Strict):
    """`geometry.json`: sentence representations by layer, with and without steering."""

    model: str
    masks_hash: str
    corpus: str
    corpus_sha256: str
    items: int
    languages: list[str]
    anchor: str
    bridge_layers: list[int]
    steering: dict[str, Any]
    measurements: list[Measurement]


class Agreement(_Strict):
    """How far two profiles agree about one category in one layer.

    Attributes:
        layer: zero-based; None for all bridge layers of either profile together.
        category: dead, specific, partial, all; or `any`: the category as such.
        jaccard: of the sets of neurons; None for `any`.
        jaccard_chance: expected if the same numbers of neurons were drawn at random in each.
        kappa: Cohen's, of being in the category (of the category itself, for `any`); 0 is chance, None where undefined.
    """

    layer: int | None
    category: str
    jaccard: float | None = None
    jaccard_chance: float | None = None
    kappa: float | None = None


class Stability(_Strict):
    """`stability.json`: do two profiles give the same bridge layers and masks?

    Attributes:
        ceiling: the same for two halves of one corpus; empty where the profiles have no halves.
    """

    a: str
    b: str
    languages: list[str]
    bridge_a: list[int]
    bridge_b: list[int]
    agreements: list[Agreement]
    ceiling_of: str | None = None
    ceiling: list[Agreement] = Field(default_factory=list)


class Causes(_Strict):
    """`causes.json`: candidate causes of each language's gain.

    Attributes:
        rows: by language: gain, and each cause.
    """

    family: str
    run: str
    rows: dict[str, dict[str, float]]
    correlations: list[Correlation]
