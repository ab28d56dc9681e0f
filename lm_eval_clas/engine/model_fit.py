"""Whether masks fit a model that is not loaded yet, from its configuration alone."""

from __future__ import annotations

from typing import Any

import torch

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.masks.mask_set import MaskSet


def require_fit(masks: MaskSet, pretrained: str, revision: str | None = None, trust_remote_code: bool = False) -> None:
    """Refuses masks of another model. No weights are read: the modules are made without memory.

    Raises:
        ClasError: the configuration cannot be read, the masks do not fit, or the model has no projections of its own to steer.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(pretrained, revision=revision, **options)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, **options)
    except Exception as error:  # transformers and the Hub raise every kind for a wrong name or argument
        reason = first_line(error)
        raise ClasError(f"Cannot read the configuration of the model '{pretrained}': {reason}") from error
    projections = find_projections(model, masks.config.site, masks.config.projection)
    masks.config.model.fingerprint.require(ModelFingerprint.of(model, projections), "This mask folder")
