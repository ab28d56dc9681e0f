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

    @property
    def telling(self) -> list[Measurement]:
        """The measurements without those of a language that was steered at strength 0, which repeat the unsteered ones."""
        return [one for one in self.measurements if not one.steered or one.language is None or self.alpha_of(one.language) != 0]

    def alpha_of(self, language: str) -> float | None:
        """The strength that a language had when it was steered; None where the file does not tell."""
        alpha = self.steering.get("alpha")
        found = alpha.get(language, alpha.get("default")) if isinstance(alpha, dict) else alpha
        return float(found) if isinstance(found, (int, float)) else None
