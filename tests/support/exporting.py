"""What the tests of exports share: small models, masks that fit them, scores, and the two ways to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_models import FAMILIES, make_model
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lm_eval_clas import MaskSet, ParallelInputBuilder
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.export.ia3_adapter import find_ia3, write_ia3
from lm_eval_clas.export.merged_checkpoint import mergeable, write_merged
from lm_eval_clas.export.outline import Outline, Scaling, outline, scalings
from lm_eval_clas.export.written_export import Export, source_of
from lm_eval_clas.masks.mask_config import CorpusSource, MaskConfig, ModelSource

IDS = torch.arange(7, 47).reshape(2, 20)


def small_model(family: str, **options: Any) -> PreTrainedModel:
    if not options:
        return make_model(family)
    torch.manual_seed(0)
    tokens = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
    return AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[family](**{**tokens, **FAMILIES[family], **options}), dtype=torch.float32
    ).eval()


def made_masks(model: PreTrainedModel, bridge: tuple[int, ...] = (2, 3, 4)) -> MaskSet:
    """Masks of random neurons that fit a model."""
    projections = find_projections(model)
    languages = ["en", "hi", "de", "zh"]
    texts = ParallelInputBuilder("mini", languages, 1).build()
    config = MaskConfig(
        model=ModelSource(name="small", fingerprint=ModelFingerprint.of(model, projections)),
        languages=languages,
        anchor="en",
        corpus=CorpusSource(name=texts.name, sha256=texts.sha256(), samples=1, tokens=dict.fromkeys(languages, 1)),
        bridge_layers=list(bridge),
        bridge_rule="given by the user",
    )
    return MaskSet(config, np.random.default_rng(0).random((4, len(projections), projections[0].neurons)) < 0.5)


def token_loglikelihoods(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        scores = model(input_ids=IDS).logits[:, :-1].log_softmax(-1)
    return scores.gather(-1, IDS[:, 1:, None])[..., 0].sum(-1)


def write(kind: str, masks: MaskSet, source: Path, out: Path, language: str = "hi", **options: Any) -> Path:
    (one,), _ = scalings(masks, [language], **{"alpha": -2.0, **options})
    return write_one(kind, one, masks, outline(str(source), masks), out)


def write_one(kind: str, one: Scaling, masks: MaskSet, model: Outline, out: Path) -> Path:
    checkpoint = mergeable(model) if kind == "merged" else None
    export = Export(one, masks, model, kind, source_of(model, checkpoint), out)
    if checkpoint is None:
        write_ia3(export, find_ia3(export))
    else:
        write_merged(export, export.find(), checkpoint)
    return out
