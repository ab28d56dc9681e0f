"""`TunedSteering`: the strengths that `clas tune` chose, each for its task and language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.languages.task_names import task_family
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import CLAS, Setting, Tuned
from lm_eval_clas.steering.language_factors import LanguageFactors
from lm_eval_clas.steering.methods.method_table import METHODS, OFF
from lm_eval_clas.steering.options import SteeringOptions

Steerer = TypeVar("Steerer", bound=LanguageFactors)


def tuned_for(masks: MaskSet, method: str) -> Tuned:
    """The strengths of a method by task family and language: its own, or, of one that was not tuned, those of the method that
    it stands beside, as a control does. Empty if neither was tuned."""
    known = METHODS.get(method, METHODS[CLAS])
    return masks.config.tuned_of(known.name) or masks.config.tuned_of(known.stands_beside)


def require_tuned(masks: MaskSet, unseen: str, method: str) -> None:
    """Refuses `alpha=tuned` where it means nothing.

    Raises:
        ClasError: the masks have no strengths that were tuned for the method, or another option asks for what was not tuned.
    """
    if not tuned_for(masks, method):
        which = METHODS.get(method, METHODS[CLAS]).stands_beside or method
        raise ClasError(
            "alpha=tuned needs tuned strengths, which these masks do not have; run 'clas tune' on them first."
            if which in (CLAS, OFF)
            else f"alpha=tuned needs strengths tuned for method={which}, which these masks do not have; run 'clas tune "
            f"--method {which}' on them first."
        )
    if unseen == "shared":
        raise ClasError("unseen=shared takes a strength that was not tuned; give alpha as a number, or drop unseen.")


def tuned_settings(masks: MaskSet, options: Mapping[str, Any]) -> dict[str, dict[str, Setting]]:
    """The tuned settings by task family and language.

    Args:
        masks: masks with tuned strengths.
        options: of steering; alpha is not looked at. Those of beta, gamma and layers that are not None replace the tuned ones.
    """
    fixed = {name: value for name, value in options.items() if name != "alpha" and value is not None}
    found: dict[str, dict[str, Setting]] = {}
    for family, by_language in tuned_for(masks, str(options.get("method", CLAS))).items():
        for language, tuned in by_language.items():
            setting = tuned.chosen.setting
            checked = SteeringOptions.parse(masks, **{**setting.options(), **fixed})
            setting = Setting(setting.alpha, checked.beta, checked.gamma, checked.layers)
            found.setdefault(family, {})[language] = setting
    return found


class TunedSteering(Generic[Steerer]):
    """One steerer for each setting that occurs among the tuned strengths.

    Args:
        masks: masks with tuned strengths.
        options: of steering, as `tuned_settings` takes them.
        make: makes a steerer from masks and the options of `SteeringOptions.parse`.

    Attributes:
        strengths: the settings by task family and language.
        records: the same as they were tuned, with the evidence.
    """

    def __init__(self, masks: MaskSet, options: Mapping[str, Any], make: Callable[..., Steerer]) -> None:
        self._masks = masks
        fixed = {name: value for name, value in options.items() if name != "alpha" and value is not None}
        self.records = tuned_for(masks, str(options.get("method", CLAS)))
        self._steerers: dict[Setting, Steerer] = {}
        self.strengths = tuned_settings(masks, options)
        for by_language in self.strengths.values():
            for setting in by_language.values():
                if setting not in self._steerers:
                    self._steerers[setting] = make(masks, **{**fixed, **setting.options()})

    def family(self, task: str | None) -> str:
        """The family of a request's task."""
        return task_family(task or "", self._masks.languages)

    def steerer(self, family: str, language: str) -> Steerer | None:
        """Whatever steers a language in a task, or None if that was not tuned."""
        setting = self.strengths.get(family, {}).get(language)
        return self._steerers[setting] if setting else None
