"""A whole run of geometry: represent with and without steering, measure, and write what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.fingerprint import model_name
from lm_eval_clas.disk.checked_json import write_as
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.geometry.distances import measure_geometry
from lm_eval_clas.geometry.measurements import Geometry
from lm_eval_clas.geometry.point_picture import plot_geometry
from lm_eval_clas.geometry.representations import represent
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.bridge import layers_text
from lm_eval_clas.neurons.profiling import OnProgress
from lm_eval_clas.steering.activation_steerer import ActivationSteerer
from lm_eval_clas.steering.methods.method_table import METHODS
from lm_eval_clas.texts.corpora import ParallelTexts

FILES = ("geometry.json", "geometry.csv", "geometry.png")


def run_geometry(
    model: nn.Module,
    tokenizer: Any,
    texts: ParallelTexts,
    masks: MaskSet,
    out: str | Path,
    *,
    name: str | None = None,
    projection: str | None = None,
    batch_size: int = 8,
    max_tokens: int = 2048,
    report: OnProgress | None = None,
    picture: Path | None = None,
    width: float | None = None,
    **options: Any,
) -> Geometry:
    """Measures what steering moves, and writes geometry.json, geometry.csv and geometry.png to a folder.

    Args:
        model: a Hugging Face decoder in evaluation mode.
        tokenizer: its tokenizer.
        texts: parallel texts in languages of the masks, the anchor among them.
        masks: made for this model.
        out: the folder.
        name: what to call the model; default: the name it was loaded by.
        projection, batch_size, max_tokens: as in `profile`.
        report: called with language, texts done and texts in all; each language runs twice.
        picture: another file for the picture, as PNG, PDF or SVG.
        width: of the picture, in inches; default: a paper's page.
        **options: of steering, as `SteeringOptions.parse` takes them.

    Raises:
        ClasError: the masks do not fit the model or the languages, or a file cannot be written.
    """
    runs: dict[str, Any] = {"batch_size": batch_size, "max_tokens": max_tokens}
    with ActivationSteerer(model, masks, projection=projection, **options) as steerer:

        def counting(before: int) -> OnProgress | None:
            return None if report is None else lambda language, done, total: report(language, before + done, 2 * total)

        before = represent(model, tokenizer, texts, report=counting(0), **runs)
        after = represent(model, tokenizer, texts, steerer, report=counting(len(texts.ids)), **runs)
        called = name or model_name(str(getattr(model.config, "_name_or_path", "") or type(model).__name__))
        geometry = measure_geometry(before, after, texts, steerer, called)
    out = Path(out)
    title = f"{called}, {texts.name}: {len(texts.ids)} items in {len(texts.languages)} languages, mean of tokens"
    told = f"{title}\n{describe(geometry)}; large marks are means"
    of_texts = (before["mean"], after["mean"], texts.languages, masks.anchor, geometry.bridge_layers)
    for path in (out / FILES[2], *([] if picture is None else [picture])):
        plot_geometry(*of_texts, path, told, width)
    rows = [one.model_dump() for one in geometry.measurements]
    write_text(out / FILES[1], pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    write_as(geometry, out / FILES[0])
    return geometry


def shared_languages(texts: ParallelTexts, masks: MaskSet) -> ParallelTexts:
    """The texts in the languages that the masks have, under the masks' codes, the anchor first.

    Raises:
        ClasError: the anchor is not among them, or no other language is.
    """
    found = {language: as_known(language, texts.languages) for language in masks.languages}
    lines = {language: texts.texts[code] for language, code in found.items() if code in texts.languages}
    others = [one for one in sorted(lines, key=lambda one: texts.languages.index(found[one])) if one != masks.anchor]
    if masks.anchor not in lines or not others:
        raise ClasError(
            f"Geometry needs the anchor '{masks.anchor}' and another language of the masks ({', '.join(masks.languages)}), but "
            f"the texts are in {', '.join(texts.languages)}; choose others with --languages."
        )
    return ParallelTexts(texts.name, texts.ids, {one: lines[one] for one in (masks.anchor, *others)})


def describe(geometry: Geometry) -> str:
    """How it was steered, in a few words."""
    steering = geometry.steering
    alpha = "by language" if isinstance(steering["alpha"], dict) else f"{steering['alpha']:g}"
    layers = layers_text(geometry.bridge_layers)
    ignored = METHODS[steering["method"]].ignores if steering["method"] in METHODS else ()
    more = [f"{name} {steering[name]:g}" for name in ("beta", "gamma") if name not in ignored]
    return ", ".join([steering["method"], f"alpha {alpha}", *more, f"layers {layers}"])
