"""Whether masks fit a model that is not loaded yet, from its configuration alone."""

from __future__ import annotations

from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.harness.model_loading import model_without_weights
from lm_eval_clas.masks.mask_set import MaskSet


def require_fit(masks: MaskSet, pretrained: str, revision: str | None = None, trust_remote_code: bool = False) -> None:
    """Refuses masks of another model. No weights are read: the modules are made without memory.

    Raises:
        ClasError: the configuration cannot be read, the masks do not fit, or the model has no projections of its own to steer.
    """
    _, model = model_without_weights(pretrained, revision, trust_remote_code)
    projections = find_projections(model, masks.config.site, masks.config.projection)
    masks.config.model.fingerprint.require(ModelFingerprint.of(model, projections), "This mask folder")
