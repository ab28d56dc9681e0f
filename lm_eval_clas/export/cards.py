"""Model cards: what somebody who finds a folder on the Hub must know to use masks, an adapter or a merged checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jinja2

from lm_eval_clas.base.escaping import Ready, markdown, markdown_code, python_text, shell_word
from lm_eval_clas.comparing.printed.written_names import written_family, written_metric
from lm_eval_clas.decoder.fingerprint import model_name
from lm_eval_clas.export.card_blocks import card
from lm_eval_clas.export.licences import half_of, terms
from lm_eval_clas.languages.codes import english_name
from lm_eval_clas.masks.hub import hub_id
from lm_eval_clas.masks.inspection import summary
from lm_eval_clas.masks.mask_place import CARD
from lm_eval_clas.steering.methods.method_table import METHODS

if TYPE_CHECKING:
    from lm_eval_clas.export.outline import Outline, Scaling
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.masks.strengths import TunedStrength


_PAPER = Ready("[CLAS](https://arxiv.org/abs/2601.16390)")
_PLAIN = re.compile(r"[\w.,-]+", re.ASCII)
_TAGS = ["clas", "activation-steering", "multilingual"]


def masks_card(
    masks: MaskSet, repository: str, files: Mapping[str, str] = MappingProxyType({}), before: str = "", where: str = CARD
) -> str:
    """The card of a mask folder on the Hub, with the Hub's metadata in front.

    Args:
        masks: the masks.
        repository: where they are on the Hub.
        files: hashes of files that belong to the card, by name.
        before: the card that is there, of which everything is kept that a person wrote.
        where: how that one is called in errors.

    Raises:
        ClasError: the metadata of the card that is there cannot be read.
    """
    info = summary(masks)
    known = terms(masks.config.corpus)
    name = masks.config.model.name
    metadata = {
        "language": list(masks.languages),
        "license": known and known.code,
        "library_name": "lm-eval-clas",
        "tags": _TAGS,
        "base_model": name if _on_hub(name) else None,
        "datasets": [known.dataset] if known and known.dataset else None,
        "model-index": _results(masks, repository),
    }
    body = _body(
        "masks",
        info=info,
        activity=masks.config.activity,
        size=info["model"]["fingerprint"],
        repository=repository,
        names={one: english_name(one) for one in masks.languages},
        anchor=english_name(masks.anchor),
        example=next(one for one in masks.languages if one != masks.anchor),
        alpha="tuned" if masks.config.tuned else "1.0",
        corpus=_corpus(masks),
        licence=known and known.licence,
        tokens=sum(info["corpus"]["tokens"].values()),
        tuned=masks.config.tuned,
    )
    return card(_metadata(metadata), body, files, before, where)


def export_card(scaling: Scaling, masks: MaskSet, model: Outline, kind: str, before: str = "", where: str = CARD) -> str:
    """The card of an adapter (`ia3`) or a checkpoint (`merged`); `before` and `where` as in `masks_card`."""
    from lm_eval_clas.export.outline import provenance

    base = model_name(model.pretrained)
    metadata = {
        "language": [scaling.language],
        "library_name": "peft" if kind == "ia3" else "transformers",
        "tags": _TAGS,
        "base_model": base if _on_hub(base) else None,
    }
    known = terms(masks.config.corpus)
    body = _body(
        "export",
        kind=kind,
        base=base,
        method=METHODS[scaling.steering.method],
        multiplies=bool((scaling.factors != 1).any()),
        adds=scaling.done.shifts is not None,
        name=english_name(scaling.language),
        layers=", ".join(map(str, scaling.steering.layers)),
        info=provenance(scaling, masks, model, kind),
        corpus=_corpus(masks),
        licence=known and known.licence,
    )
    return card(_metadata(metadata), body, {}, before, where)


def _results(masks: MaskSet, repository: str) -> list[dict[str, Any]]:
    """What the Hub shows as results: scores under the chosen strengths, of tuning by metric, with what alpha 0 had.

    They are of tuning items, on which strengths were chosen, and say so. Names that are none of the harness's are left out.
    """
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    every = [
        EvalResult(
            task_type="text-generation",
            dataset_type=family,
            dataset_name=f"{written_family(family)} ({english_name(language)}), {one.items} tuning items",
            metric_type=one.metric.partition(",")[0],
            metric_name=f"{written_metric(one.metric, family)}, alpha {one.chosen.alpha:g} ({_over_0(one)})",
            metric_value=one.chosen.score,
        )
        for family, by_language in masks.config.tuned.items()
        for language, one in by_language.items()
        if one.objective == "metric" and one.measured and _PLAIN.fullmatch(family) and _PLAIN.fullmatch(one.metric)
    ]
    return eval_results_to_model_index(repository, every) if every else []


def _over_0(one: TunedStrength) -> str:
    return f"{one.chosen.gain:+.4g} over {one.measured[0].score:.4g} at alpha 0"


def _metadata(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _body(template: str, **values: Any) -> str:
    """What a template says. Whatever it writes is escaped, and so is each new field, unless a filter has done it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lm_eval_clas.export"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        finalize=markdown,
    )
    environment.filters.update(code=markdown_code, shell=shell_word, python=python_text, ready=Ready)
    return environment.get_template(f"{template}_card.md.j2").render(paper=_PAPER, **values)


def _corpus(masks: MaskSet) -> str:
    """The corpus in words, or, where it is somebody's own, its name."""
    corpus = masks.config.corpus
    known, half = terms(corpus), half_of(corpus)
    if known is None:
        return markdown_code(corpus.name)
    return Ready(f"{known.name}, {half} half" if half else known.name)


def _on_hub(name: str) -> bool:
    return hub_id(name) == (name, None) and re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII) is not None
