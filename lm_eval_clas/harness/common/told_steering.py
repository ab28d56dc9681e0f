"""What a results file tells of the steering, as plain JSON: options, mask hash, and each language with what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm_eval_clas.base.version import __version__
from lm_eval_clas.harness.common.asked_steering import AskedSteering
from lm_eval_clas.harness.tally import RunTally
from lm_eval_clas.harness.tuning_differences import TuningDifferences
from lm_eval_clas.languages.codes import UNDETERMINED
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.languages.routing import LanguageRouter
from lm_eval_clas.steering.by_task import TunedSteering
from lm_eval_clas.steering.language_factors import LanguageFactors
from lm_eval_clas.steering.methods.method_table import METHODS, measured_by


def told_without_masks(scoring: str) -> dict[str, Any]:
    """The same where there is nothing to steer with."""
    return {"version": __version__, "scoring": scoring, "method": "off", "why": "no masks were given"}


def told_steering(
    scoring: str,
    asked: AskedSteering,
    steerer: LanguageFactors,
    router: LanguageRouter,
    tally: RunTally,
    tuning: TunedSteering[Any] | None,
    differences: TuningDifferences | None,
) -> dict[str, Any]:
    """The entry `config.clas`; docs/file-formats.md has its fields.

    Args:
        scoring: the path that log-likelihoods take.
        asked: what the user asked for.
        steerer: what steers; with tuned strengths, whatever was not tuned.
        router: what told the languages.
        tally: of the run.
        tuning, differences: with tuned strengths.
    """
    masks, steering = steerer.masks, steerer.steering
    languages = tally.languages()
    left_alone: dict[str, str] = {}
    for language, entry in languages.items():
        known = as_known(language, masks.languages)
        if known != language:
            entry["steered_as"] = known  # its macrolanguage, or a member of it
        if known == masks.anchor:
            left_alone[language] = "anchor"
        elif language == UNDETERMINED:
            left_alone[language] = "not recognised"
        elif known not in masks.languages and asked.unseen == "off":
            left_alone[language] = "not in the masks"
        elif tuning is None and (why := steerer.unchanged(known if known in masks.languages else None)):
            left_alone[language] = why
    tuned: dict[str, Any] = {}
    if tuning is not None:
        left_alone |= {f"{language} in {family}": why for (family, language), why in sorted(tally.alone.items())}
        tuned["tuned"] = {
            family: {language: _used(setting.options(), steering.method) for language, setting in by_language.items()}
            for family, by_language in tuning.strengths.items()
        }
        tuned["unlike_tuning"] = differences.info() if differences else {}
    info = {
        "version": __version__,
        "scoring": scoring,
        "method": "off" if steering.does_nothing and not tuned else steering.method,
        "masks": masks.config.model.name,
        "masks_hash": masks.hash,
        **(masks.origin.info() if masks.origin else {}),
        "site": masks.config.site,
        "specific": masks.config.specific.source,
        "anchor": masks.anchor,
        "alpha": "tuned" if tuned else dict(steering.alpha) if isinstance(steering.alpha, Mapping) else steering.alpha,
        **tuned,
        "beta": steering.beta,
        "gamma": steering.gamma,
        "layers": list(steering.layers),
        **({"projection": asked.projection} if asked.projection else {}),
        "specific_scope": steering.specific_scope,
        "partial_scope": steering.partial_scope,
        "seed": steering.seed,
        "unseen": asked.unseen,
        "forced_language": router.forced,
        "pair": router.pair,
        "languages": languages,
        "left_alone": left_alone,
        "witness": {key: witness.info() for key, witness in sorted(tally.witnesses.items())},
    }
    info |= measured_by(masks, steering.method)
    return _used(info, steering.method)


def _used(options: dict[str, Any], method: str) -> dict[str, Any]:
    """Without the options that play no role in a method."""
    ignored = METHODS[method].ignores if method in METHODS else ()
    return {name: value for name, value in options.items() if name not in ignored}
