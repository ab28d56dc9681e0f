"""`LanguageFactors`: what masks and options do to the neurons in each language, whatever engine multiplies."""

from __future__ import annotations

from typing import Any

import torch

from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.alphas import DEFAULT
from lm_eval_clas.steering.effects import factors_hash, steering_factors, steering_shifts
from lm_eval_clas.steering.options import SteeringOptions


class LanguageFactors:
    """Factors and shifts by language, worked out when they are first asked for.

    Args:
        masks: the masks.
        **options: those of `SteeringOptions.parse`: alpha, beta, gamma, layers, specific_scope, partial_scope, method, seed.

    Attributes:
        masks, steering: the masks, and the checked options.

    Raises:
        ClasError: an option is wrong.
    """

    def __init__(self, masks: MaskSet, **options: Any) -> None:
        self.masks = masks
        self.steering = SteeringOptions.parse(masks, **options)
        self._factors: dict[str | None, torch.Tensor] = {}
        self._shifts: dict[str | None, torch.Tensor | None] = {}
        self._layers: dict[str | None, tuple[int, ...]] = {}
        self._hashes: dict[str | None, str] = {}

    def factors(self, language: str | None) -> torch.Tensor:
        """The factors of a language, float32 [layers, neurons] on the CPU; ones outside the bridge layers.

        None stands for any language that was not profiled, steered by `unseen=shared`.
        """
        language = self._code_of(language)
        if language not in self._factors:
            self._factors[language] = torch.from_numpy(steering_factors(self.masks, self.steering, language))
        return self._factors[language]

    def shifts(self, language: str | None) -> torch.Tensor | None:
        """What is added after the factors, float32 [layers, neurons] on the CPU; None if the method only multiplies."""
        language = self._code_of(language)
        if language not in self._shifts:
            shifts = steering_shifts(self.masks, self.steering, language)
            self._shifts[language] = None if shifts is None else torch.from_numpy(shifts)
        return self._shifts[language]

    def steered_layers(self, language: str | None) -> tuple[int, ...]:
        """The layers in which any neuron is steered in a language."""
        if language not in self._layers:
            changed = (self.factors(language) != 1).any(1).nonzero().squeeze(-1)
            self._layers[language] = tuple(changed.tolist())
        return self._layers[language]

    def changes(self, language: str | None) -> bool:
        """Whether any neuron is steered in a language."""
        return bool(self.steered_layers(language))

    def factors_hash(self, language: str | None) -> str:
        """16 hex digits over what is done to the neurons in a language."""
        if language not in self._hashes:
            shifts = self.shifts(language)
            self._hashes[language] = factors_hash(self.factors(language).numpy(), None if shifts is None else shifts.numpy())
        return self._hashes[language]

    def unchanged(self, language: str | None) -> str:
        """Why a language's passes are those of the model alone; empty if some neuron is steered."""
        language = self._code_of(language)
        if self.changes(language):
            return ""
        if language == self.masks.anchor:
            return "anchor"
        if self.steering.method == "off" or self.steering.strength(language or DEFAULT) == 0:
            return "alpha is 0"
        # Of a language that was not profiled, partial-shared neurons alone are steered, and by beta.
        return "beta is 0" if language is None and self.steering.beta == 0 else "no neurons to steer"

    def digest(self, language: str | None) -> str:
        """What identifies the function that a language's passes are; empty if nothing is changed."""
        return self.factors_hash(language) if self.changes(language) else ""

    def _code_of(self, language: str | None) -> str | None:
        return None if language is None else self.masks.code_of(language)
