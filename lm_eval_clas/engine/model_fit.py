"""Whether masks fit a model that is not loaded yet, and vLLM can steer it, from its configuration alone."""

from __future__ import annotations

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.harness.model_loading import model_without_weights
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.methods.steering_method import Acts


def require_fit(
    masks: MaskSet, place: Acts | None, pretrained: str, revision: str | None = None, trust_remote_code: bool = False
) -> None:
    """Refuses masks of another model. No weights are read: the modules are made without memory.

    Args:
        masks: the masks.
        place: where they are to steer; None for nowhere.
        pretrained, revision, trust_remote_code: the model, as `vllm` has them.

    Raises:
        ClasError: the configuration cannot be read, the masks do not fit, or the model has no projections of its own to steer;
            or neurons are to be steered, and some are those of experts.
    """
    _, model = model_without_weights(pretrained, revision, trust_remote_code)
    projections = find_projections(model, masks.config.site, masks.config.projection)
    masks.config.model.fingerprint.require(ModelFingerprint.of(model, projections), "This mask folder")
    if place == "neurons" and (experts := [one.name for one in projections if one.experts]):
        raise ClasError(
            f"These masks have neurons of experts ('{experts[0]}'), and experts are not steered in vLLM; use --model hf-clas."
        )
