"""What steering does in each language, by method: a pure function of masks and options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lm_eval_clas.steering.methods.intervention import Intervention
from lm_eval_clas.steering.methods.method_table import METHODS, OFF
from lm_eval_clas.steering.methods.steering_method import Dose

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.steering.options import SteeringOptions


def intervention_in(masks: MaskSet, steering: SteeringOptions, language: str | None) -> Intervention:
    """What is done in one language; nothing in the anchor.

    Args:
        masks: where neurons are active and specific, and what else the method needs.
        steering: the checked options.
        language: one of the masks' languages, or None for a language that was not profiled, steered at the default strength.

    Raises:
        ClasError: the masks do not have the language, or None meets an option that depends on it.
    """
    size = masks.config.model.fingerprint
    method = METHODS.get(steering.method)
    width = size.hidden_size if method is not None and method.acts_on == "outputs" else size.neurons
    if method is None or steering.method == OFF or language == masks.anchor:
        return Intervention.none(size.layers, width)
    dose = Dose(
        alpha=steering.strength(language or "default"),
        beta=steering.beta,
        gamma=steering.gamma,
        layers=steering.layers,
        specific_scope=steering.specific_scope,
        partial_scope=steering.partial_scope,
        seed=steering.seed,
    )
    return method.unseen(masks, dose) if language is None else method.intervention(masks, dose, masks.code_of(language))
