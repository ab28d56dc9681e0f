"""What `geometry.json` holds, as plain data. No computation."""

from __future__ import annotations

from typing import Any, Literal

from lm_eval_clas.disk.checked_json import Strict

Pooling = Literal["mean", "last"]
Measure = Literal["cosine", "retrieval", "centroid_distance", "silhouette"]

# What a reader sees of them, in tables, pictures and names of causes.
MEASURE_WORDS: dict[Measure, str] = {
    "cosine": "cosine to the anchor",
    "retrieval": "retrieval of the translation",
    "centroid_distance": "distance to the anchor",
    "silhouette": "silhouette by language",
}
POOLING_WORDS: dict[Pooling, str] = {"mean": "mean of tokens", "last": "last token"}


class Measurement(Strict):
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


class Geometry(Strict):
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
