"""What leaves the harness: what is done in one language, and the places of a model it is done at, without its weights.

Factors are constant and the projection they are in front of is linear (the MLP's down-projection, or attention's output
projection), so the hook, an (IA)3 adapter (`ia3_adapter.py`) and a checkpoint whose projections are scaled
(`merged_checkpoint.py`) are the same function. Constants that are added are biases of such a checkpoint (`added_biases.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.version import __version__
from lm_eval_clas.decoder.anatomy.linear_parts import is_transposed
from lm_eval_clas.decoder.fingerprint import ModelFingerprint, model_name
from lm_eval_clas.decoder.projections import Projection, find_projections, layer_outputs
from lm_eval_clas.harness.model_loading import model_without_weights
from lm_eval_clas.languages.task_names import task_family
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import CLAS
from lm_eval_clas.steering.by_task import require_tuned, tuned_settings
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.methods.intervention import Intervention
from lm_eval_clas.steering.methods.method_table import METHODS, measured_by
from lm_eval_clas.steering.options import SteeringOptions

EXPORT_FILE = "clas_export.json"


@dataclass(frozen=True)
class Scaling:
    """What is done in one language, and the options it comes from.

    Attributes:
        language: BCP-47 code.
        steering: the checked options.
        done: factors and what is added; nothing outside `steering.layers`.
        task: the task family whose tuned strength this is; None where alpha was given.
    """

    language: str
    steering: SteeringOptions
    done: Intervention
    task: str | None = None

    @property
    def factors(self) -> NDArray[np.float32]:
        """What is multiplied, float32 [layers, neurons]; [layers, hidden size] of a method that acts on what leaves layers."""
        return self.done.factors

    @property
    def of_outputs(self) -> bool:
        """Whether it is done to what leaves the layers."""
        return METHODS[self.steering.method].acts_on == "outputs"


@dataclass(frozen=True)
class Outline:
    """A model as its configuration tells it: every module in place, on torch's meta device, and no weights.

    Attributes:
        pretrained: Hub id or local path, as it was given.
        revision: of the Hub repository; None for its default branch.
        config: transformers' configuration.
        projections: of the masks' site, first layer first.
        model: on the meta device.
    """

    pretrained: str
    revision: str | None
    config: Any
    projections: list[Projection]
    model: nn.Module

    @property
    def base(self) -> str:
        """What another program loads: the Hub id, or the absolute path."""
        return str(Path(self.pretrained).resolve()) if Path(self.pretrained).exists() else self.pretrained

    @property
    def transposed(self) -> bool:
        """Whether the weights of projections are [neurons, hidden] (GPT-2) and not [hidden, neurons]."""
        return is_transposed(self.projections[0].module)

    def places(self, scaling: Scaling) -> list[Projection]:
        """The places of the layers that are steered."""
        every = layer_outputs(self.model) if scaling.of_outputs else self.projections
        return [place for place in every if place.layer in scaling.steering.layers]


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
    config, model = model_without_weights(pretrained, revision, trust_remote_code)
    projections = find_projections(model, masks.config.site, projection or masks.config.projection)
    masks.config.model.fingerprint.require(ModelFingerprint.of(model, projections), "This mask folder")
    return Outline(pretrained, revision, config, projections, model)


def require_expressible(method: str, kind: str) -> None:
    """Refuses a method that nothing of a kind (`ia3`, `merged`) can do, before masks or a model are looked at.

    Raises:
        ClasError: it is one.
    """
    used = METHODS.get(method)
    if used is None or used.only_multiplies:
        return
    if used.form == "map" or (used.acts_on == "outputs" and used.form != "vector"):
        raise ClasError(
            f"method={method} cannot be exported: it moves what leaves the layers by a map of that, which is neither a weight "
            "nor a bias; evaluate it with --model hf-clas."
        )
    if kind == "ia3":
        moves = "neurons" if used.acts_on == "neurons" else "what leaves the layers"
        raise ClasError(
            f"method={method} is no (IA)3 adapter: it moves {moves} by a constant, and an adapter's vectors only multiply; use "
            "--format merged, or evaluate it with --model hf-clas."
        )


def scalings(
    masks: MaskSet, languages: Sequence[str] | None, task: str | None = None, **options: Any
) -> tuple[list[Scaling], dict[str, str]]:
    """What is done in every language that is asked for.

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
            done = intervention_in(masks, steering, language)
            if not done.layers:
                nothing = steering.does_nothing or not steering.strength(language)
                reason = "its strength is 0" if nothing else "it has no neurons to steer"
            else:
                chosen.append(Scaling(language, steering, done, family))
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
        **measured_by(masks, scaling.steering.method),
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
    require_tuned(masks, "off", str(options.get("method", CLAS)))
    families = tuned_settings(masks, options)
    known = ", ".join(families)
    if task is None and len(families) > 1:
        raise ClasError(f"These masks are tuned for several tasks ({known}); choose one with --task.")
    family = next(iter(families), "") if task is None else task_family(task, masks.languages)
    if family not in families:
        raise ClasError(f"These masks have no strengths tuned for '{family}', only for {known}; choose with --task.")
    return family, {language: setting.options() for language, setting in families[family].items()}
