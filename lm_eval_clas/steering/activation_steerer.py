"""`ActivationSteerer`: one factor (and shift) per neuron and language, and the one hook per bridge layer that applies it.

The paper (arXiv 2601.16390) amplifies partial-shared neurons, damps language-specific ones and blends the result with the
original activation: h1 = h (1 + beta M_partial), h2 = h1 (1 - gamma M_specific), h' = (1 - alpha) h + alpha h2. The masks
are disjoint, so this is h' = h * s with s = 1 + alpha beta on partial-shared neurons, 1 - alpha gamma on specific ones,
and 1 elsewhere. The baseline `int-mu` (Mondal et al. 2025, arXiv 2503.17456) also needs a shift: h' = h + alpha (mu - h) on the
language's own specific neurons, mu their mean in that language.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import nn

from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.alphas import DEFAULT
from lm_eval_clas.steering.effects import steering_factors, steering_shifts
from lm_eval_clas.steering.options import SteeringOptions

_Placed = tuple[torch.Tensor | None, torch.Tensor | None]  # one layer's factors and shifts; None where there are none


class ActivationSteerer:
    """Steers a model's neurons for one language at a time, at the site that the masks were made for.

    One forward pre-hook per bridge layer is registered when the steerer is made and stays until `close`. A language only
    swaps the factors that the hooks read; with none, or with the anchor, the hooks hand the activation on untouched.

    Example:
        >>> steerer = ActivationSteerer(model, MaskSet.load("gemma-3-270m"), alpha=1.0)
        >>> with steerer.language("hi"):
        ...     model.generate(**inputs)
        >>> steerer.close()

    Args:
        model: a Hugging Face decoder, on any devices, in any floating dtype, bare or wrapped by PEFT.
        masks: masks that were made for this model.
        projection: a pattern of module names, where the site's projections are not found by structure.
        **options: those of `SteeringOptions.parse`: alpha, beta, gamma, layers, specific_scope, partial_scope, method, seed.

    Raises:
        ClasError: the masks do not fit the model, or an option is wrong.
    """

    def __init__(self, model: nn.Module, masks: MaskSet, *, projection: str | None = None, **options: Any) -> None:
        projections = find_projections(model, masks.config.site, projection or masks.config.projection)
        masks.config.model.fingerprint.require(ModelFingerprint.of(model, projections), "This mask folder")
        self.masks = masks
        self._names = [projection.name for projection in projections]
        self.steering = SteeringOptions.parse(masks, **options)
        self._factors: dict[str | None, torch.Tensor] = {}
        self._shifts: dict[str | None, torch.Tensor | None] = {}
        self._placed: dict[tuple[str | None, int, torch.device, torch.dtype], _Placed] = {}
        self._steered: list[str | None] = []  # the language in force: empty or one entry; None means an unseen language
        self._handles = []
        if not self.steering.does_nothing:
            for layer in self.steering.layers:
                self._handles.append(projections[layer].module.register_forward_pre_hook(self._hook(layer)))

    def factors(self, language: str | None) -> torch.Tensor:
        """The factors of a language, float32 [layers, neurons] on the CPU; ones outside the bridge layers.

        None stands for any language that was not profiled, steered by `unseen=shared`.
        """
        if language not in self._factors:
            if language is not None:
                self.masks.index(language)
            self._factors[language] = torch.from_numpy(steering_factors(self.masks, self.steering, language))
        return self._factors[language]

    def shifts(self, language: str | None) -> torch.Tensor | None:
        """What is added after the factors, float32 [layers, neurons] on the CPU; None if the method only multiplies."""
        if language not in self._shifts:
            self.factors(language)  # an unknown language fails there
            shifts = steering_shifts(self.masks, self.steering, language)
            self._shifts[language] = None if shifts is None else torch.from_numpy(shifts)
        return self._shifts[language]

    def changes(self, language: str | None) -> bool:
        """Whether any neuron is steered in a language."""
        return bool((self.factors(language) != 1).any())

    def unchanged(self, language: str | None) -> str:
        """Why a language's passes are those of the model alone; empty if some neuron is steered."""
        if self.changes(language):
            return ""
        if language == self.masks.anchor:
            return "anchor"
        if self.steering.method == "off" or self.steering.strength(language or DEFAULT) == 0:
            return "alpha is 0"
        # Of a language that was not profiled, partial-shared neurons alone are steered, and by beta.
        return "beta is 0" if language is None and self.steering.beta == 0 else "no neurons to steer"

    def digest(self, language: str | None) -> str:
        """What identifies the function that a language's passes are: modules, factors, shifts; empty if nothing is changed."""
        if not self.changes(language):
            return ""
        factors, shifts = self.factors(language).numpy(), self.shifts(language)
        parts = ["\n".join(self._names).encode(), factors.tobytes(), b"" if shifts is None else shifts.numpy().tobytes()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @contextmanager
    def language(self, language: str | None) -> Iterator[None]:
        """Steers every pass of the model inside the block for `language`; the anchor is left alone.

        Blocks nest; the inner one wins. Nothing is hooked or unhooked.
        """
        self.factors(language)  # an unknown language fails here and not in the middle of a pass
        before, self._steered = self._steered, ([] if language == self.masks.anchor else [language])
        try:
            yield
        finally:
            self._steered = before

    def close(self) -> None:
        """Takes the hooks off; the model is as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._placed.clear()

    def __enter__(self) -> ActivationSteerer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _hook(self, layer: int) -> Any:
        def steer(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
            if not self._steered:
                return None
            factors, shifts = self._place(self._steered[0], layer, args[0])
            if factors is None:
                return None
            steered = args[0] * factors if shifts is None else torch.addcmul(shifts, args[0], factors)
            return (steered, *args[1:])

        return steer

    def _place(self, language: str | None, layer: int, activation: torch.Tensor) -> _Placed:
        """One layer's factors and shifts on the activation's device and in its dtype; None where they do nothing."""
        key = (language, layer, activation.device, activation.dtype)
        if key not in self._placed:
            factors, shifts = self.factors(language)[layer], self.shifts(language)
            place = (activation.device, activation.dtype)
            # Where nothing is multiplied, nothing is added: both come with an alpha other than 0.
            self._placed[key] = (
                (None, None)
                if bool((factors == 1).all())
                else (factors.to(*place), None if shifts is None else shifts[layer].to(*place))
            )
        return self._placed[key]
