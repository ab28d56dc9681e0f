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

Method = Literal["clas", "off", "uniform", "random", "int-mu"]
SpecificScope = Literal["all", "own"]
PartialScope = Literal["all", "own", "anchor"]
_LARGEST_FACTOR = 1e38


@dataclass(frozen=True)
class SteeringOptions:
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
    ) -> SteeringOptions:
        """Checks options as a user gives them; None takes what the mask folder says.

        Raises:
            ClasError: an option is unknown or not a number, or the masks lack what the method needs.
        """
        for name, value, known in (
            ("method", method, get_args(Method)),
            ("specific_scope", specific_scope, get_args(SpecificScope)),
            ("partial_scope", partial_scope, get_args(PartialScope)),
        ):
            require_known(name, value, known)
        if method == "int-mu":
            _require_signed_means(masks)
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


def require_tuned(masks: MaskSet, unseen: str, method: str) -> None:
    """Refuses `alpha=tuned` where it means nothing.

    Raises:
        ClasError: the masks have no tuned strengths, or another option asks for what was not tuned.
    """
    if method == "int-mu":
        raise ClasError("alpha=tuned was chosen for CLAS; give method=int-mu a number, e.g. alpha=1.0, which overwrites.")
    if not masks.config.tuned:
        raise ClasError("alpha=tuned needs tuned strengths, which these masks do not have; run 'clas tune' on them first.")
    if unseen == "shared":
        raise ClasError("unseen=shared takes a strength that was not tuned; give alpha as a number, or drop unseen.")
