"""What leaves the harness: one language's factors, and the places of a model they belong to, without its weights.

The factors are constant and the projection they are in front of is linear (the MLP's down-projection, or attention's output
projection), so the hook, an (IA)3 adapter (`ia3_adapter.py`) and a checkpoint whose projections are scaled
(`merged_checkpoint.py`) are the same function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.base.version import __version__
from lm_eval_clas.decoder.fingerprint import ModelFingerprint, model_name
from lm_eval_clas.decoder.projections import Projection, find_projections
from lm_eval_clas.languages.task_names import task_family
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.by_task import tuned_settings
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.methods.method_table import METHODS
from lm_eval_clas.steering.options import SteeringOptions

EXPORT_FILE = "clas_export.json"


@dataclass(frozen=True)
class Scaling:
    """One language's factors and the options they come from.

    Attributes:
        language: BCP-47 code.
        steering: the checked options.
        factors: float32 [layers, neurons]; ones outside `steering.layers`.
        task: the task family whose tuned strength this is; None where alpha was given.
    """

    language: str
    steering: SteeringOptions
    factors: NDArray[np.float32]
    task: str | None = None


@dataclass(frozen=True)
class Outline:
    """A model as its configuration tells it: every module in place, on torch's meta device, and no weights.

    Attributes:
        pretrained: Hub id or local path, as it was given.
        revision: of the Hub repository; None for its default branch.
        config: transformers' configuration.
        projections: of the masks' site, first layer first.
    """

    pretrained: str
    revision: str | None
    config: Any
    projections: list[Projection]

    @property
    def base(self) -> str:
        """What another program loads: the Hub id, or the absolute path."""
        return str(Path(self.pretrained).resolve()) if Path(self.pretrained).exists() else self.pretrained

    @property
    def transposed(self) -> bool:
        """Whether the weights of projections are [neurons, hidden] (GPT-2) and not [hidden, neurons]."""
        return type(self.projections[0].module).__name__ == "Conv1D"

    def places(self, scaling: Scaling) -> list[Projection]:
        """The places of the layers that are steered."""
        return [place for place in self.projections if place.layer in scaling.steering.layers]


def outline(
    pretrained: str,
    masks: MaskSet,
    revision: str | None = None,
    projection: str | None = None,
    trust_remote_code: bool = False,
) -> Outline:
    """Builds a model without weights, and checks that the masks fit it.

    Raises:
        ClasError: there is no such configuration, it is no decoder, or the masks were made for another model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(pretrained, revision=revision, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers and the Hub raise every kind for a wrong name or configuration
        reason = first_line(error)
        raise ClasError(f"Cannot read the configuration of the model '{pretrained}': {reason}") from error
    projections = find_projections(model, masks.config.site, projection or masks.config.projection)
    masks.config.model.fingerprint.require(ModelFingerprint.of(model, projections), "This mask folder")
    return Outline(pretrained, revision, config, projections)


def scalings(
    masks: MaskSet, languages: Sequence[str] | None, task: str | None = None, **options: Any
) -> tuple[list[Scaling], dict[str, str]]:
    """The factors of every language that is asked for.

    Args:
        masks: the masks.
        languages: codes; None for all but the anchor, of which those are skipped that have nothing to steer.
        task: with `alpha="tuned"`: the task, or its family, whose strengths to take. It may be left out where the masks are
            tuned for one only.
        **options: those of `SteeringOptions.parse`; alpha may also be `tuned`.

    Returns:
        The scalings, and the skipped languages with the reason.

    Raises:
        ClasError: an option is wrong, a language that was named has nothing to steer, or none has.
    """
    method = METHODS.get(str(options.get("method")))
    if method is not None and not method.only_multiplies:
        moves = "neurons" if method.acts_on == "neurons" else "what leaves the layers"
        by = "a map of them" if method.form == "map" else "a constant"
        raise ClasError(
            f"method={method.name} cannot be exported: it moves {moves} by {by}, and neither an (IA)3 vector nor a scaled "
            "weight can add one; evaluate it with --model hf-clas."
        )
    tuned = options.get("alpha") == "tuned"
    if task is not None and not tuned:
        raise ClasError("--task chooses among tuned strengths; add --alpha tuned, or drop --task.")
    family, settings = _tuned(masks, task, options) if tuned else (None, {})
    chosen, skipped = [], {}
    for language in _languages(masks, languages):
        given = options
        if tuned and language in settings:
            given = {**options, **settings[language]}
        reason = ""
        if language == masks.anchor:
            reason = "the anchor is never steered; use the model as it is"
        elif tuned and language not in settings:
            reason = f"no strength is tuned for {family} in it"
        else:
            steering = SteeringOptions.parse(masks, **given)
            factors = intervention_in(masks, steering, language).factors
            if (factors == 1).all():
                nothing = steering.does_nothing or not steering.strength(language)
                reason = "its strength is 0" if nothing else "it has no neurons to steer"
            else:
                chosen.append(Scaling(language, steering, factors, family))
        if reason and languages is not None:
            raise ClasError(f"There is nothing to export for language '{language}': {reason}.")
        if reason:
            skipped[language] = reason
    if not chosen:
        raise ClasError(f"There is nothing to export: {'; '.join(f'{one}: {why}' for one, why in skipped.items())}.")
    return chosen, skipped


def provenance(scaling: Scaling, masks: MaskSet, model: Outline, kind: str) -> dict[str, Any]:
    """What an export is, as plain JSON: the first part of `clas_export.json` beside it."""
    options = asdict(scaling.steering) | {"alpha": scaling.steering.strength(scaling.language)}
    return {
        "format": kind,
        "language": scaling.language,
        "base_model": model_name(model.pretrained),
        "base_revision": model.revision,
        "masks": masks.config.model.name,
        "masks_hash": masks.hash,
        "site": masks.config.site,
        "by": masks.config.by,
        **(masks.origin.info() if masks.origin else {}),
        "task": scaling.task,
        **options,
        "layers": list(scaling.steering.layers),
        "version": __version__,
    }


def _languages(masks: MaskSet, languages: Sequence[str] | None) -> list[str]:
    if languages is None:
        return [language for language in masks.languages if language != masks.anchor]
    return list(dict.fromkeys(map(masks.code_of, languages)))


def _tuned(masks: MaskSet, task: str | None, options: Mapping[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
    """The task family, and its tuned options by language; those that were given replace them."""
    families = tuned_settings(masks, options)
    known = ", ".join(families)
    if not families:
        raise ClasError("alpha=tuned needs tuned strengths, which these masks do not have; run 'clas tune' on them first.")
    if task is None and len(families) > 1:
        raise ClasError(f"These masks are tuned for several tasks ({known}); choose one with --task.")
    family = next(iter(families)) if task is None else task_family(task, masks.languages)
    if family not in families:
        raise ClasError(f"These masks have no strengths tuned for '{family}', only for {known}; choose with --task.")
    return family, {language: setting.options() for language, setting in families[family].items()}
