"""The sections about analyses: what moves inside, whether masks are stable, candidate causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from lm_eval_clas.drawing.web_page import embedded, picture
from lm_eval_clas.geometry.causes import Causes
from lm_eval_clas.geometry.measurements import MEASURE_WORDS, POOLING_WORDS, Geometry, Measure, Pooling
from lm_eval_clas.neurons.agreement import Agreement, Stability
from lm_eval_clas.study.report.plots import plot_layers
from lm_eval_clas.study.report.view import Block, Bullets, Gallery, Heading, Picture, Section, Table, TableCell, Text
from lm_eval_clas.study.report.wording import (
    NONE,
    counted,
    interval,
    language_text,
    layers,
    number_text,
    probability,
    short,
    signed,
)

_CATEGORY_WORDS = {"specific": "language-specific", "partial": "partial-shared", "all": "all-shared", "any": "all four"}


def geometry_section(
    all_found: Mapping[str, Geometry],
    pictures: Mapping[str, Sequence[Path]],
    headed: bool,
    explained: Mapping[str, Causes] | None = None,
) -> Section:
    """Sentence representations by layer, with and without steering, and the pictures of the analyses.

    Args:
        all_found, pictures: by part; `headed`: each part has a heading.
        explained: the candidate causes by part, which name the run and the tasks whose strengths a geometry had.
    """
    blocks: list[Block] = []
    for order, part in enumerate(sorted(all_found.keys() | pictures.keys())):
        if headed:
            blocks.append(Heading(part))
        causes = (explained or {}).get(part)
        whose = "" if causes is None else f" of the run {causes.run} on {causes.family}"
        blocks += _geometry(all_found.get(part), pictures.get(part, ()), f"layers-{order}", headed, whose)
    return Section("geometry", "What moves inside", blocks)


def _geometry(found: Geometry | None, pictures: Sequence[Path], name: str, minor: bool, whose: str) -> list[Block]:
    blocks: list[Block] = []
    if found is not None:
        at = _after_bridge(found)
        strengths = f" Below each language is its alpha, the strength{whose}; at 0 nothing is steered."
        known = any(found.alpha_of(code) is not None for code in found.languages)
        blocks.append(
            Text(
                f"Representations of {counted(found.items, 'parallel item')} of {found.corpus} in "
                f"{counted(len(found.languages), 'language')}, compared with their "
                f"translations in {language_text(found.anchor)}. "
                f"Tables show representation {at}, which the last bridge layer puts out; representation 0 is the embeddings."
                + (strengths if known else "")
            )
        )
        for pooling, words in POOLING_WORDS.items():
            measures = [one for one in MEASURE_WORDS if _values(found, one, pooling, None)]
            if not measures:
                continue
            blocks.append(Heading(words[0].upper() + words[1:], minor))
            blocks.append(Gallery([_layers(found, one, pooling, at, name) for one in measures]))
            tabled = [one for one in measures if one != "silhouette"]
            rows = [
                [
                    TableCell(language_text(code), "" if (alpha := found.alpha_of(code)) is None else f"alpha {short(alpha)}"),
                    *(
                        TableCell(number_text(_value(found, one, pooling, at, code, on), 3))
                        for one in tabled
                        for on in (False, True)
                    ),
                ]
                for code in found.languages
                if code != found.anchor
            ]
            head = ["language", *(f"{MEASURE_WORDS[one]}{extra}" for one in tabled for extra in ("", ", steered"))]
            if tabled and rows:
                blocks.append(Table(f"Representation {at}, {words}.", head, rows))
    for path in pictures:
        alternative, caption = _described(path, found)
        blocks.append(Gallery([Picture(embedded(path, alternative), caption)]))
    return blocks


def _after_bridge(found: Geometry) -> int:
    """The representation that the last bridge layer puts out, or the nearest below it that was measured."""
    measured = sorted({one.layer for one in found.measurements})
    wanted = max(found.bridge_layers, default=0) + 1
    return max((layer for layer in measured if layer <= wanted), default=wanted)


def _values(found: Geometry, measure: Measure, pooling: Pooling, layer: int | None) -> list[tuple[str | None, bool, float]]:
    return [
        (one.language, one.steered, one.value)
        for one in found.telling
        if (one.measure, one.pooling) == (measure, pooling) and layer in (None, one.layer)
    ]


def _value(found: Geometry, measure: Measure, pooling: Pooling, layer: int, code: str | None, steered: bool) -> float | None:
    values = _values(found, measure, pooling, layer)
    return next((value for language_, on, value in values if language_ == code and on == steered), None)


def _layers(found: Geometry, measure: Measure, pooling: Pooling, at: int, name: str) -> Picture:
    what = f"{MEASURE_WORDS[measure]}, {POOLING_WORDS[pooling]}"
    told = []
    for steered, words in ((False, "not steered"), (True, "steered")):
        values = sorted((value, code) for code, on, value in _values(found, measure, pooling, at) if on == steered and code)
        alone = _value(found, measure, pooling, at, None, steered)
        if values:
            (low, lowest), (high, highest) = values[0], values[-1]
            told.append(f"{words} from {number_text(low, 3)} ({lowest}) to {number_text(high, 3)} ({highest})")
        elif alone is not None:
            told.append(f"{words} {number_text(alone, 3)}")
    alternative = f"{what} by layer; representation {at}: {', '.join(told) or 'not measured'}."
    draw = partial(plot_layers, found, measure, pooling)
    drawn = picture(draw, f"{name}-{measure}-{pooling}", alternative[0].upper() + alternative[1:])
    return Picture(
        drawn,
        f"{what[0].upper()}{what[1:]}; a line for each language."
        if measure != "silhouette"
        else f"{what[0].upper()}{what[1:]}.",
    )


def _described(path: Path, found: Geometry | None) -> tuple[str, str]:
    caption = f"{path.name}, from the analyses."
    if found is None or not path.stem.startswith("geometry"):
        return f"The picture {path.name} of the analyses; no numbers came with it.", caption
    at = _after_bridge(found)
    told = []
    for pooling, words in POOLING_WORDS.items():
        pair = [_value(found, "silhouette", pooling, at, None, steered) for steered in (False, True)]
        if None not in pair:
            told.append(f"{words}: {number_text(pair[0], 3)} not steered, {number_text(pair[1], 3)} steered")
    numbers = f" How far languages lie apart at representation {at} (silhouette), {'; '.join(told)}." if told else ""
    return (
        f"Principal components of sentence representations by layer, {counted(len(found.languages), 'language')}.{numbers}",
        f"Sentence representations by layer in their first principal components ({path.name}).",
    )


def stability_section(found: Mapping[str, Stability]) -> Section:
    """Whether two profiles agree."""
    blocks: list[Block] = []
    for one in found.values():
        blocks.append(Heading(f"{one.a} and {one.b}"))
        both = [layer for layer in one.bridge_a if layer in one.bridge_b]
        shared = f"they share {layers(both)}" if both else "they share none"
        same = "the same" if one.bridge_a == one.bridge_b else shared
        blocks.append(
            Text(
                f"Bridge layers {layers(one.bridge_a)} by {one.a}, {layers(one.bridge_b)} by {one.b}: {same}. "
                f"{counted(len(one.languages), 'language')} in both."
            )
        )
        ceiling = {(other.layer, other.category): other for other in one.ceiling}
        whole = [agreement for agreement in one.agreements if agreement.layer is None]
        caption = (
            "Agreement in the bridge layers of either. By chance: Jaccard of sets as large, drawn at random; kappa is then 0."
        )
        if one.ceiling_of:
            caption += f" Ceiling, from two halves: {one.ceiling_of}."
        head = ["category", "Jaccard", "by chance", "kappa", "ceiling: Jaccard", "ceiling: kappa"]
        rows = [_agreement(agreement, ceiling.get((None, agreement.category))) for agreement in whole]
        if rows:
            blocks.append(Table(caption, head, rows))
        categories = list(dict.fromkeys(agreement.category for agreement in one.agreements if agreement.layer is not None))
        by_place = {(agreement.layer, agreement.category): agreement for agreement in one.agreements}
        numbers = sorted({agreement.layer for agreement in one.agreements if agreement.layer is not None})
        rows = [
            [
                TableCell(str(layer)),
                *(
                    TableCell(number_text(by_place[layer, name].kappa) if (layer, name) in by_place else NONE)
                    for name in categories
                ),
            ]
            for layer in numbers
        ]
        if rows:
            head = ["layer", *(_CATEGORY_WORDS.get(name, name) for name in categories)]
            blocks.append(Table("Cohen\u2019s kappa by layer and category.", head, rows))
    return Section("stability", "Stability of masks", blocks)


def _agreement(one: Agreement, ceiling: Agreement | None) -> list[TableCell]:
    best = (ceiling.jaccard, ceiling.kappa) if ceiling is not None else (None, None)
    values = (one.jaccard, one.jaccard_chance, one.kappa, *best)
    return [
        TableCell(_CATEGORY_WORDS.get(one.category, one.category)),
        *(TableCell(number_text(value, 3)) for value in values),
    ]


def _warnings(found: Causes) -> list[str]:
    """Each sentence once, after the names of the causes that it is about, unless it is about all of them."""
    return [
        sentence if len(causes) == len(found.correlations) else f"{', '.join(causes)}: {sentence[0].lower()}{sentence[1:]}"
        for sentence, causes in found.warned.items()
        if sentence
    ]


def causes_section(found: Mapping[str, Causes]) -> Section:
    """Candidate causes of each language's gain."""
    blocks: list[Block] = []
    for one in found.values():
        blocks.append(Heading(f"{one.family}: {one.run}"))
        warnings = _warnings(one)
        if one.left_out:
            told = ", ".join(f"{code} ({why})" for code, why in one.left_out.items())
            warnings.append(f"Left out, as they were not steered: {told}.")
        if one.averaged:
            told = "; ".join(map(", ".join, one.averaged))
            warnings.append(f"Columns of one language, whose mean is in the correlations: {told}.")
        if warnings:
            blocks.append(Bullets(warnings))
        effects = list(dict.fromkeys(other.effect for other in one.correlations))
        rows = [
            [
                TableCell(other.cause, f"with {other.effect}" if len(effects) > 1 else ""),
                TableCell(str(other.n)),
                TableCell(signed(other.spearman), interval(other.spearman_low, other.spearman_high)),
                TableCell(probability(other.spearman_p)),
                TableCell(signed(other.pearson), interval(other.pearson_low, other.pearson_high)),
                TableCell(probability(other.pearson_p)),
            ]
            for other in one.correlations
        ]
        head = ["cause", "languages", "Spearman", "p", "Pearson", "p"]
        with_what = f" with {effects[0]}" if len(effects) == 1 else ""
        caption = f"Correlations{with_what} over languages, with 95\u00a0% intervals. None says that one causes the other."
        if rows:
            blocks.append(Table(caption, head, rows))
        names = list(dict.fromkeys(name for values in one.rows.values() for name in values))
        rows = [
            [TableCell(language_text(code)), *(TableCell(number_text(values.get(name), 4)) for name in names)]
            for code, values in one.rows.items()
        ]
        if rows:
            blocks.append(Table("What the correlations are made of.", ["language", *names], rows))
    return Section("causes", "Candidate causes", blocks)
