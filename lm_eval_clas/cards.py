"""Model cards: what somebody who finds a folder on the Hub must know to use masks, an adapter or a merged checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jinja2

from lm_eval_clas.errors import ClasError
from lm_eval_clas.escaping import markdown_text
from lm_eval_clas.fingerprint import model_name
from lm_eval_clas.inspection import summary
from lm_eval_clas.language_codes import english_name

if TYPE_CHECKING:
    from lm_eval_clas.export import Outline, Scaling
    from lm_eval_clas.masks import MaskSet

PICTURE = "categories.png"
_PAPER = "[CLAS](https://arxiv.org/abs/2601.16390)"
_TAGS = ["clas", "activation-steering", "multilingual"]
# By corpus: its name in words, its repository on the Hub, the Hub's code of its licence, and that licence in words.
_CORPORA = {
    "xnli": ("XNLI (Conneau et al. 2018)", "facebook/xnli", "cc-by-nc-4.0", "CC BY-NC 4.0"),
    "xquad": ("XQuAD (Artetxe et al. 2020)", "google/xquad", "cc-by-sa-4.0", "CC BY-SA 4.0"),
    "mini": ("the texts that ship with lm-eval-clas", None, "apache-2.0", "Apache-2.0"),
}


def masks_card(masks: MaskSet, repository: str) -> str:
    """The card of a mask folder on the Hub, with the Hub's metadata in front.

    Raises:
        ClasError: the metadata cannot be written as YAML.
    """
    info = summary(masks)
    corpus, dataset, code, licence = _corpus(masks)
    name = masks.config.model.name
    metadata = {
        "language": list(masks.languages),
        "license": code,
        "library_name": "lm-eval-clas",
        "tags": _TAGS,
        "base_model": name if _on_hub(name) else None,
        "datasets": [dataset] if dataset else None,
    }
    return _card(
        metadata,
        "masks",
        info=info,
        size=info["model"]["fingerprint"],
        repository=repository,
        names=[f"{english_name(one)} (`{one}`)" for one in masks.languages],
        anchor=english_name(masks.anchor),
        example=next(one for one in masks.languages if one != masks.anchor),
        alpha="tuned" if masks.config.tuned else "1.0",
        corpus=corpus,
        licence=licence,
        tokens=sum(info["corpus"]["tokens"].values()),
        tuned=masks.config.tuned,
    )


def export_card(scaling: Scaling, masks: MaskSet, model: Outline, kind: str) -> str:
    """The card of an adapter (`ia3`) or a checkpoint (`merged`)."""
    from lm_eval_clas.export import provenance

    corpus, _, _, licence = _corpus(masks)
    base = model_name(model.pretrained)
    metadata = {
        "language": [scaling.language],
        "library_name": "peft" if kind == "ia3" else "transformers",
        "tags": _TAGS,
        "base_model": base if _on_hub(base) else None,
    }
    return _card(
        metadata,
        "export",
        kind=kind,
        base=base,
        name=english_name(scaling.language),
        layers=", ".join(map(str, scaling.steering.layers)),
        info=provenance(scaling, masks, model, kind),
        corpus=corpus,
        licence=licence,
    )


def _card(metadata: dict[str, Any], template: str, **values: Any) -> str:
    from huggingface_hub import ModelCardData

    try:
        front = ModelCardData(**{key: value for key, value in metadata.items() if value}).to_yaml()
    except (ValueError, TypeError) as error:
        raise ClasError(f"The model card cannot be written ({error}).") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lm_eval_clas"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["markdown"] = markdown_text
    page = environment.get_template(f"{template}_card.md.j2").render(paper=_PAPER, **values)
    return f"---\n{front.strip()}\n---\n\n{page}"


def _corpus(masks: MaskSet) -> tuple[str, str | None, str | None, str | None]:
    """The corpus in words, its repository, and its licence as the Hub's code and in words, as far as they are known."""
    name = masks.config.corpus.name
    corpus, half = _CORPORA.get(name.partition(",")[0]), name.partition(",")[2]
    if corpus is None:
        return f"`{name}`", None, None, None
    words, dataset, code, licence = corpus
    return f"{words}{',' + half if half else ''}", dataset, code, licence


def _on_hub(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith(("/", "."))
