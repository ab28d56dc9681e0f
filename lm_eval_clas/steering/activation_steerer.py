"""`ActivationSteerer`: one factor (and shift) per neuron and language, and the one hook per bridge layer that applies it.

The paper (arXiv 2601.16390) amplifies partial-shared neurons, damps language-specific ones and blends the result with the
original activation: h1 = h (1 + beta M_partial), h2 = h1 (1 - gamma M_specific), h' = (1 - alpha) h + alpha h2. The masks
are disjoint, so this is h' = h * s with s = 1 + alpha beta on partial-shared neurons, 1 - alpha gamma on specific ones,
and 1 elsewhere. The baseline `int-mu` (Mondal et al. 2025, arXiv 2503.17456) also needs a shift: h' = h + alpha (mu - h) on the
language's own specific neurons, mu their mean in that language.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, get_args

import torch
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.plain_numbers import plain_number
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.disk.checked_json import shown
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.bridge import parse_layers
from lm_eval_clas.steering.alphas import DEFAULT, parse_alpha
from lm_eval_clas.steering.effects import steering_factors, steering_shifts

Method = Literal["clas", "off", "uniform", "random", "int-mu"]
SpecificScope = Literal["all", "own"]
PartialScope = Literal["all", "own", "anchor"]

_LARGEST_FACTOR = 1e38


@dataclass(frozen=True)
class Steering:
    """How strongly, where and in which way masks are applied: every option of steering, checked.

    Attributes:
        alpha: strength, one number or one by language (key `default` for languages not named); may be negative. 0 is no
            steering. The paper tunes it by task and model. With `int-mu`, the way from h (0) to the mean (1).
        beta: amplification of partial-shared neurons.
        gamma: damping of language-specific neurons.
        layers: zero-based bridge layers, ascending.
        specific_scope: neurons specific to `all` languages (to any of them), or to the steered language (`own`).
        partial_scope: `all` partial-shared neurons, those active in the steered language (`own`), or those active both in
            it and in the `anchor`.
        method: `clas`; the controls `uniform` (every neuron of a bridge layer gets the mean of the layer's factors) and
            `random` (the layer's factors shuffled); the baseline `int-mu` (the language's own specific neurons are drawn
            towards its mean, and at alpha 1 overwritten with it; beta, gamma and scopes play no role); or `off`.
        seed: of the shuffle.
    """

    alpha: float | Mapping[str, float]
    beta: float
    gamma: float
    layers: tuple[int, ...]
    specific_scope: SpecificScope = "all"
    partial_scope: PartialScope = "all"
    method: Method = "clas"
    seed: int = 0

    @classmethod
    def parse(
        cls,
        masks: MaskSet,
        alpha: float | str | Mapping[str, float] = 1.0,
        beta: float | str | None = None,
        gamma: float | str | None = None,
        layers: str | int | Sequence[int] | None = None,
        specific_scope: str = "all",
        partial_scope: str = "all",
        method: str = "clas",
        seed: int | str = 0,
    ) -> Steering:
        """Checks options as a user gives them; None takes what the mask folder says.

        Raises:
            ClasError: an option is unknown or not a number, or the masks lack what the method needs.
        """
        for name, value, known in (
            ("method", method, get_args(Method)),
            ("specific_scope", specific_scope, get_args(SpecificScope)),
            ("partial_scope", partial_scope, get_args(PartialScope)),
        ):
            if value not in known:
                raise ClasError(f"{name} must be one of {', '.join(known)}, not '{value}'.")
        if method == "int-mu":
            _require_signed_means(masks)
        total = masks.config.model.fingerprint.layers
        try:
            whole_seed = int(seed)
            if whole_seed != float(seed) or whole_seed < 0 or isinstance(seed, bool):
                raise ValueError
        except (TypeError, ValueError, OverflowError) as error:
            raise ClasError(f"seed must be a whole number from 0 on, not {seed!r}.") from error
        parsed = cls(
            alpha=parse_alpha(alpha, masks),
            beta=masks.config.beta if beta is None else _number("beta", beta),
            gamma=masks.config.gamma if gamma is None else _number("gamma", gamma),
            layers=masks.bridge_layers if layers is None else parse_layers(layers, total),
            specific_scope=specific_scope,  # type: ignore[arg-type]
            partial_scope=partial_scope,  # type: ignore[arg-type]
            method=method,  # type: ignore[arg-type]
            seed=whole_seed,
        )
        strongest = max((abs(one) for one in parsed.strengths), default=0.0)
        if strongest * max(abs(parsed.beta), abs(parsed.gamma), 1.0) > _LARGEST_FACTOR:
            raise ClasError("alpha, times beta or gamma, is larger than any float32; give smaller numbers.")
        return parsed

    @property
    def strengths(self) -> Collection[float]:
        """Every alpha."""
        return self.alpha.values() if isinstance(self.alpha, Mapping) else [self.alpha]

    def strength(self, language: str) -> float:
        """Alpha for one language, or for `default`, any other one.

        Raises:
            ClasError: alpha was given by language, without this one and without a default.
        """
        if not isinstance(self.alpha, Mapping):
            return self.alpha
        if not {language, DEFAULT} & set(self.alpha):
            raise ClasError("alpha has no number for languages that were not profiled; add a 'default', or drop unseen=shared.")
        return self.alpha.get(language, self.alpha.get(DEFAULT, 0.0))

    @property
    def does_nothing(self) -> bool:
        """Whether no language at all is steered."""
        no_size = self.method != "int-mu" and not (self.beta or self.gamma)
        return self.method == "off" or not any(self.strengths) or no_size


def _require_signed_means(masks: MaskSet) -> None:
    config = masks.config
    if (config.statistic, config.tokens) != ("signed-mean", "all"):
        raise ClasError(
            f"method=int-mu needs the signed means over all tokens, and these masks come from {config.statistic} over "
            f"{config.tokens} tokens; make masks from the same profile with 'clas masks PROFILE --keep-means', without "
            "--statistic and --tokens."
        )
    if masks.means is None:
        raise ClasError(
            "method=int-mu needs the mean of every neuron by language, which these masks do not hold; make masks from the "
            "profile with 'clas masks PROFILE --keep-means' (after 'clas profile', if it is gone)."
        )


def _number(name: str, value: object) -> float:
    try:
        return plain_number(value)
    except ValueError as error:
        raise ClasError(f"{name} must be a finite number in plain digits, not {shown(repr(value))}.") from error


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
        **options: those of `Steering.parse`: alpha, beta, gamma, layers, specific_scope, partial_scope, method, seed.

    Raises:
        ClasError: the masks do not fit the model, or an option is wrong.
    """

    def __init__(self, model: nn.Module, masks: MaskSet, *, projection: str | None = None, **options: Any) -> None:
        projections = find_projections(model, masks.config.site, projection or masks.config.projection)
        masks.config.model.fingerprint.require(ModelFingerprint.of(model, projections), "This mask folder")
        self.masks = masks
        self.steering = Steering.parse(masks, **options)
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
