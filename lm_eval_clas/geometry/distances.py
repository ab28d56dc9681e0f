"""What steering moves: how close the languages' representations are, by layer, before and after. Numbers of numbers.

Every measure stays the same if all representations are rotated, or scaled by one number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.geometry.measurements import MEASURE_WORDS, POOLING_WORDS, Geometry, Measure, Measurement
from lm_eval_clas.geometry.representations import POOLINGS, Points
from lm_eval_clas.steering.activation_steerer import ActivationSteerer
from lm_eval_clas.steering.methods.method_table import measured_by
from lm_eval_clas.texts.corpora import ParallelTexts

Vectors = NDArray[np.float64]

# Representations are float32: what differs by less than this part of its size is rounding.
_ROUNDING = 1e-6


def measure_geometry(before: Points, after: Points, texts: ParallelTexts, steerer: ActivationSteerer, model: str) -> Geometry:
    """Measures representations with and without steering.

    Args:
        before: of `texts`, unsteered, as `represent` gives them.
        after: the same, steered.
        texts: the parallel texts, the steerer's anchor among their languages.
        steerer: how `after` was steered.
        model: what to call the model.

    Raises:
        ClasError: fewer than two languages or items, or no anchor among them.
    """
    anchor = steerer.masks.anchor
    if anchor not in texts.languages or len(texts.languages) < 2 or len(texts.ids) < 2:
        raise ClasError(
            f"Geometry compares languages with the anchor '{anchor}': it needs that one, another one and two items at least."
        )
    measurements: list[Measurement] = []
    for pooling in POOLINGS:
        for layer in range(before[pooling].shape[1]):
            plain, steered = (points[pooling][:, layer].astype(np.float64) for points in (before, after))
            found = list(_measure(plain, texts.languages, anchor))
            # Nothing has been steered up to the bridge, so there is nothing to measure again.
            again = found if np.array_equal(plain, steered) else list(_measure(steered, texts.languages, anchor))
            for is_steered, each in ((False, found), (True, again)):
                measurements += [
                    Measurement(
                        measure=measure, pooling=pooling, steered=is_steered, layer=layer, language=language, value=value
                    )
                    for measure, language, value in each
                ]
    return Geometry(
        model=model,
        masks_hash=steerer.masks.hash,
        corpus=texts.name,
        corpus_sha256=texts.sha256(),
        items=len(texts.ids),
        languages=list(texts.languages),
        anchor=anchor,
        bridge_layers=list(steerer.steering.layers),
        steering={
            **asdict(steerer.steering),
            "layers": list(steerer.steering.layers),
            **({"projection": steerer.projection} if steerer.projection else {}),
            **measured_by(steerer.masks, steerer.steering.method),
        },
        measurements=measurements,
    )


def _measure(points: Vectors, languages: Sequence[str], anchor: str) -> Iterator[tuple[Measure, str | None, float]]:
    """All measures of one layer, from float64 [languages, items, hidden]."""
    pivot = points[languages.index(anchor)]
    for language, own in zip(languages, points, strict=True):
        if language != anchor:
            yield "cosine", language, cosine(own, pivot)
            yield "retrieval", language, retrieval(own, pivot)
            yield "centroid_distance", language, centroid_distance(own, pivot)
    yield "silhouette", None, silhouette(points)


def cosine(own: Vectors, anchor: Vectors) -> float:
    """The cosine of each item to the anchor's translation, averaged; both are float64 [items, hidden]."""
    return float(np.mean(np.sum(_unit(own) * _unit(anchor), axis=1)))


def retrieval(own: Vectors, anchor: Vectors) -> float:
    """How often the nearest of the anchor's items, by cosine, is the translation; both are float64 [items, hidden].

    Where k items are equally near, the translation among them, the item counts 1 / k: what a draw would give. Chance is
    1 / items.
    """
    similar = _unit(own) @ _unit(anchor).T
    tied = similar >= similar.max(axis=1, keepdims=True) - _ROUNDING**2
    return float(np.mean(np.diag(tied) / tied.sum(axis=1)))


def centroid_distance(own: Vectors, anchor: Vectors) -> float:
    """From the mean of the items to the anchor's mean, in units of the mean norm of the anchor's items."""
    unit = float(np.linalg.norm(anchor, axis=1).mean())
    return float(np.linalg.norm(own.mean(axis=0) - anchor.mean(axis=0))) / unit if unit else 0.0


def silhouette(points: Vectors) -> float:
    """How far languages are apart: the silhouette by language (Rousseeuw 1987), Euclidean.

    From float64 [languages, items, hidden]. 1: languages are tight and far apart; 0: they overlap; below 0: items are
    nearer to another language than to their own.
    """
    from sklearn.metrics import silhouette_score

    languages, items, _ = points.shape
    flat = points.reshape(languages * items, -1)
    return float(silhouette_score(_distances(flat), np.repeat(np.arange(languages), items), metric="precomputed"))


def _distances(points: Vectors) -> Vectors:
    """Euclidean distances between rows. Equal rows, such as the embeddings of one last token, are at 0 and not at rounding."""
    points = points - points.mean(axis=0)
    size = np.einsum("ij,ij->i", points, points)
    both = size[:, None] + size[None, :]
    square = both - 2 * (points @ points.T)
    square[square <= _ROUNDING**2 * both] = 0
    np.fill_diagonal(square, 0)
    return np.sqrt(square)  # type: ignore[no-any-return]


def _unit(points: Vectors) -> Vectors:
    """Rows of length 1; zeros stay zeros."""
    norm = np.linalg.norm(points, axis=1, keepdims=True)
    return points / np.where(norm > 0, norm, 1)  # type: ignore[no-any-return]


def moved_by_steering(geometry: Geometry) -> dict[str, dict[str, float]]:
    """What steering changed, steered minus not steered, by what was measured where and by language.

    For each measure that a language has by itself and each pooling: after the last bridge layer and after the last layer.
    The anchor is not in it.
    """
    last = max(one.layer for one in geometry.measurements)
    leaving = max(geometry.bridge_layers) + 1
    places = {leaving: "after the bridge"} | ({last: "after the last layer"} if last != leaving else {})
    found: dict[str, dict[str, float]] = {}
    for layer, place in places.items():
        for one in geometry.measurements:
            if one.layer == layer and one.language is not None:
                name = f"change of {MEASURE_WORDS[one.measure]} {place} ({POOLING_WORDS[one.pooling]})"
                by_language = found.setdefault(name, {})
                by_language[one.language] = by_language.get(one.language, 0.0) + (one.value if one.steered else -one.value)
    return found
