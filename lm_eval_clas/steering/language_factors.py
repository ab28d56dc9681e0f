"""`LanguageFactors`: what masks and options do in each language, whatever engine applies it."""

from __future__ import annotations

from typing import Any

import torch

from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.alphas import DEFAULT
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.methods.intervention import Intervention
from lm_eval_clas.steering.methods.method_table import METHODS, OFF
from lm_eval_clas.steering.methods.steering_method import Acts
from lm_eval_clas.steering.options import SteeringOptions


class LanguageFactors:
    """Factors, and what else is done, by language, worked out when it is first asked for.

    Args:
        masks: the masks.
        **options: those of `SteeringOptions.parse`: alpha, beta, gamma, layers, specific_scope, partial_scope, method, seed.

    Attributes:
        masks: the masks.
        steering: the checked options.

    Raises:
        ClasError: an option is wrong.
    """

    def __init__(self, masks: MaskSet, **options: Any) -> None:
        self.masks = masks
        self.steering = SteeringOptions.parse(masks, **options)
        self._interventions: dict[str | None, Intervention] = {}
        self._layers: dict[str | None, tuple[int, ...]] = {}
        self._hashes: dict[str | None, str] = {}

    @property
    def acts_on(self) -> Acts:
        """What the method changes: neurons, or what leaves the layers."""
        method = METHODS.get(self.steering.method)
        return "neurons" if method is None else method.acts_on

    def intervention(self, language: str | None) -> Intervention:
        """All that is done in a language; None stands for any that was not profiled, steered by `unseen=shared`."""
        language = self._code_of(language)
        if language not in self._interventions:
            self._interventions[language] = intervention_in(self.masks, self.steering, language)
        return self._interventions[language]

    def factors(self, language: str | None) -> torch.Tensor:
        """The factors of a language, float32 on the CPU; ones outside the bridge layers.

        They are [layers, neurons], or [layers, hidden size] of a method that acts on what leaves the layers.
        """
        return torch.from_numpy(self.intervention(language).factors)

    def shifts(self, language: str | None) -> torch.Tensor | None:
        """What is added after the factors, alike; None if no constant is, as in the anchor."""
        shifts = self.intervention(language).shifts
        return None if shifts is None else torch.from_numpy(shifts)

    def steered_layers(self, language: str | None) -> tuple[int, ...]:
        """The layers in which anything is changed in a language."""
        if language not in self._layers:
            self._layers[language] = self.intervention(language).layers
        return self._layers[language]

    def changes(self, language: str | None) -> bool:
        """Whether anything is changed in a language."""
        return bool(self.steered_layers(language))

    def factors_hash(self, language: str | None) -> str:
        """16 hex digits over what is done in a language."""
        if language not in self._hashes:
            self._hashes[language] = self.intervention(language).digest
        return self._hashes[language]

    def unchanged(self, language: str | None) -> str:
        """Why a language's passes are those of the model alone; empty if some neuron is steered."""
        language = self._code_of(language)
        if self.changes(language):
            return ""
        if language == self.masks.anchor:
            return "anchor"
        if self.steering.method == OFF or self.steering.strength(language or DEFAULT) == 0:
            return "alpha is 0"
        # Of a language that was not profiled, partial-shared neurons alone are steered, and by beta.
        return "beta is 0" if language is None and self.steering.beta == 0 else "no neurons to steer"

    def digest(self, language: str | None) -> str:
        """What identifies the function that a language's passes are; empty if nothing is changed."""
        return self.factors_hash(language) if self.changes(language) else ""

    def _code_of(self, language: str | None) -> str | None:
        return None if language is None else self.masks.code_of(language)
