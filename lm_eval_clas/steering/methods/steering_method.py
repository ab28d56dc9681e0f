"""`SteeringMethod`: one way to steer: where it acts, in which form, what it needs, and what it does in a language."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.steering.methods.intervention import Intervention

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet

# `factors` multiply each number by a constant; `blend` multiplies and adds; `vector` adds a constant vector; `map` adds a
# linear map of the activation.
Form = Literal["factors", "blend", "vector", "map"]
# `neurons` at the masks' site: inputs of projections; `outputs` of decoder layers: hidden states.
Acts = Literal["neurons", "outputs"]


@dataclass(frozen=True)
class Dose:
    """What a method is asked to do in one language.

    Attributes:
        alpha: the language's strength.
        beta, gamma, specific_scope, partial_scope, seed: as `SteeringOptions` has them.
        layers: zero-based, ascending.
    """

    alpha: float
    beta: float
    gamma: float
    layers: tuple[int, ...]
    specific_scope: str = "all"
    partial_scope: str = "all"
    seed: int = 0


class SteeringMethod(ABC):
    """One way to steer. A new one is a module with a class like this, and an entry in `method_table.py`.

    Attributes:
        name: what `method=` calls it.
        about: what it does, for lists of methods.
        written: its name as people write it, where that is another.
        form: what is done to an activation.
        acts_on: which activation that is.
        alphas: the strengths that `clas tune` tries by default; 0 is always among them.
        control: what tables call it, if it is a control: one that a method must beat to mean anything; else empty.
        stands_beside: the method whose tuned strengths it takes if it was not tuned itself; else empty.
        measured: what of the mask folder it needs beside masks: `means` of neurons, or `residual`; else empty.
        ignores: the options that play no role.
        seeded: whether anything is drawn by chance.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    written: ClassVar[str] = ""
    form: ClassVar[Form]
    acts_on: ClassVar[Acts] = "neurons"
    alphas: ClassVar[tuple[float, ...]]
    control: ClassVar[str] = ""
    stands_beside: ClassVar[str] = ""
    measured: ClassVar[Literal["", "means", "residual"]] = ""
    ignores: ClassVar[tuple[str, ...]] = ("beta", "gamma", "specific_scope", "partial_scope", "seed")
    seeded: ClassVar[bool] = False

    @property
    def only_multiplies(self) -> bool:
        """Whether it is factors on neurons and nothing else: what an (IA)3 vector and scaled weights can do."""
        return (self.form, self.acts_on) == ("factors", "neurons")

    @property
    def is_map(self) -> bool:
        """Whether what is added is worked out from the activation, and is no vector, as vLLM's rows have them."""
        return self.form == "map"

    @property
    def uses_strengths(self) -> bool:
        """Whether beta and gamma play a role."""
        return "beta" not in self.ignores

    def require(self, masks: MaskSet, layers: tuple[int, ...]) -> None:
        """Refuses masks that lack what it needs.

        Raises:
            ClasError: they do; the message names the command that makes it.
        """
        if self.measured == "means":
            _require_signed_means(self.name, masks)
        if self.measured == "residual":
            _require_residual(self.name, masks)

    @abstractmethod
    def intervention(self, masks: MaskSet, dose: Dose, language: str) -> Intervention:
        """What it does in a language that was profiled and is not the anchor.

        Args:
            masks: that `require` let through.
            dose: the checked options.
            language: one of the masks' languages.
        """

    def unseen(self, masks: MaskSet, dose: Dose) -> Intervention:
        """What it does in a language that was not profiled.

        Raises:
            ClasError: there is nothing that it could do, or an option needs the language.
        """
        raise ClasError(f"unseen=shared steers partial-shared neurons, which method={self.name} leaves alone; drop unseen.")


def _require_signed_means(name: str, masks: MaskSet) -> None:
    config = masks.config
    if (config.statistic, config.tokens) != ("signed-mean", "all"):
        raise ClasError(
            f"method={name} needs the signed means over all tokens, and these masks come from {config.statistic} over "
            f"{config.tokens} tokens; make masks from the same profile with 'clas masks PROFILE --keep-means', without "
            "--statistic and --tokens."
        )
    if masks.means is None:
        raise ClasError(
            f"method={name} needs the mean of every neuron by language, which these masks do not hold; make masks from the "
            "profile with 'clas masks PROFILE --keep-means' (after 'clas profile', if it is gone)."
        )


def _require_residual(name: str, masks: MaskSet) -> None:
    if masks.residual is None:
        raise ClasError(
            f"method={name} needs what leaves the layers in each language, which these masks do not hold; run 'clas profile "
            "--site residual', and make masks with 'clas masks PROFILE --residual RESIDUAL_PROFILE'."
        )
    if missing := [one for one in masks.languages if one not in masks.residual.languages]:
        raise ClasError(
            f"method={name} needs what leaves the layers in each language, which these masks do not hold for "
            f"{', '.join(missing)}; make masks without these languages."
        )
