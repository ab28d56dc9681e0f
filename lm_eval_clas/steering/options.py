"""The options of steering: how strongly, where and in which way masks are applied, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.near_names import require_known
from lm_eval_clas.base.plain_numbers import plain_number
from lm_eval_clas.disk.checked_json import shown
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.bridge import parse_layers
from lm_eval_clas.steering.alphas import DEFAULT, parse_alpha
from lm_eval_clas.steering.methods.method_table import METHOD_NAMES, METHODS

SpecificScope = Literal["all", "own"]
PartialScope = Literal["all", "own", "anchor"]
_LARGEST_FACTOR = 1e38


@dataclass(frozen=True)
class SteeringOptions:
    """How strongly, where and in which way masks are applied: every option of steering, checked.

    Attributes:
        alpha: strength, one number or one by language (key `default` for languages not named); may be negative. 0 is no
            steering. The paper tunes it by task and model. With `int-mu`, the way from h (0) to the mean (1); with `diffmean`
            and `random-direction`, a share of the norm of h.
        beta: amplification of partial-shared neurons.
        gamma: damping of language-specific neurons.
        layers: zero-based bridge layers, ascending.
        specific_scope: neurons specific to `all` languages (to any of them), or to the steered language (`own`).
        partial_scope: `all` partial-shared neurons, those active in the steered language (`own`), or those active both in
            it and in the `anchor`.
        method: one of `methods/`, or `off`: `clas`; its controls `uniform` (every neuron of a bridge layer gets the mean of
            the layer's factors) and `random` (the layer's factors shuffled); on neurons, `int-mu` (the language's own specific
            ones are drawn towards its mean) and `arithmetic` (the difference of two languages' means is added); on what leaves
            the layers, `diffmean`, its control `random-direction`, and `incline`. Beta, gamma and scopes are CLAS's alone.
        seed: of what is drawn by chance.
    """

    alpha: float | Mapping[str, float]
    beta: float
    gamma: float
    layers: tuple[int, ...]
    specific_scope: SpecificScope = "all"
    partial_scope: PartialScope = "all"
    method: str = "clas"
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
    ) -> SteeringOptions:
        """Checks options as a user gives them; None takes what the mask folder says.

        Raises:
            ClasError: an option is unknown or not a number, or the masks lack what the method needs.
        """
        for name, value, known in (
            ("method", method, METHOD_NAMES),
            ("specific_scope", specific_scope, get_args(SpecificScope)),
            ("partial_scope", partial_scope, get_args(PartialScope)),
        ):
            require_known(name, value, known)
        size = masks.config.model.fingerprint
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
            layers=masks.bridge_layers if layers is None else parse_layers(layers, size.layers, size.empty_layers),
            specific_scope=specific_scope,  # type: ignore[arg-type]
            partial_scope=partial_scope,  # type: ignore[arg-type]
            method=method,
            seed=whole_seed,
        )
        if (used := METHODS.get(method)) is not None:
            used.require(masks, parsed.layers)
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
        if (method := METHODS.get(self.method)) is None or not any(self.strengths):
            return True
        return method.uses_strengths and not (self.beta or self.gamma)


def _number(name: str, value: object) -> float:
    try:
        return plain_number(value)
    except ValueError as error:
        raise ClasError(f"{name} must be a finite number in plain digits, not {shown(repr(value))}.") from error


def refuse_without_masks(options: Mapping[str, Any]) -> None:
    """Refuses options of `hf-clas` that mean something with masks only, where none were given.

    Raises:
        ClasError: one of them has another value than its default, and does not turn steering off.
    """
    defaults = {"alpha": 1.0, "specific_scope": "all", "partial_scope": "all", "method": "clas", "seed": 0}
    defaults |= {"unseen": "off", "pair": "target"}
    given = [name for name, value in options.items() if value != defaults.get(name)]
    # What turns steering off needs no masks: scripts pass it together with an empty masks argument.
    given = [name for name in given if (name, options[name]) not in (("alpha", 0), ("method", "off"))]
    if given:
        raise ClasError(f"{', '.join(given)} without masks= has no effect; add masks=FOLDER, or use --model hf.")
