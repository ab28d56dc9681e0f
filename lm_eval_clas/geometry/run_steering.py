"""How a row of a table was steered, language by language, and whether masks and a geometry are those of that run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.comparing.formats.results_content import checked_steering
from lm_eval_clas.comparing.rows import Row
from lm_eval_clas.comparing.task_families import language_of
from lm_eval_clas.geometry.measurements import Geometry
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.languages.task_names import task_family
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.methods.method_table import measured_by
from lm_eval_clas.steering.results_entry import seed_of

# Options that a run has for all languages, unless tuning chose them for each.
_CHOSEN = ("alpha", "beta", "gamma", "layers")
_COMMON = ("method", "specific_scope", "partial_scope")


@dataclass(frozen=True)
class RunSteering:
    """How one run was steered in one family of tasks.

    Attributes:
        by_column: the options that decide the steering, by column of the table, of languages that were steered.
        left_out: of the others but the anchor, why they were not, or why nothing is known of them.
    """

    by_column: dict[str, dict[str, Any]]
    left_out: dict[str, str]

    @classmethod
    def of(cls, row: Row, family: str, masks: MaskSet) -> RunSteering:
        """Reads it from the row.

        Raises:
            ClasError: it was steered with other masks, or with none.
        """
        told, who = checked_steering(row.steering, f"Row '{row.label}'"), f"Row '{row.label}'"
        if not told.get("masks_hash") or told.get("method", "off") == "off":
            raise ClasError(f"{who} was steered with no masks, so that they cannot be why it gains; name a row that was.")
        if told["masks_hash"] != masks.hash:
            raise ClasError(
                f"{who} was steered with masks {told['masks_hash']}, and these are {masks.hash}; give those of the run."
            )
        own = measured_by(masks, str(told["method"]))
        if other := [name for name, ours in own.items() if name in told and told[name] != ours]:
            raise ClasError(
                f"{who} was steered with {other[0]} {told[other[0]]}, and these masks have {own[other[0]]}; give those "
                "of the run."
            )
        common = {name: told[name] for name in _COMMON if name in told} | _seed(told) | own
        if told.get("scoring") != "vllm":  # whose modules have other names than those that a geometry is measured on
            common["projection"] = told.get("projection")
        steered: dict[str, dict[str, Any]] = {}
        left_out: dict[str, str] = {}
        for column in row.cells:
            language = language_of(column)
            known = as_known(language, masks.languages)  # what steers it, and has the strength
            if known == masks.anchor:
                continue
            chosen = _chosen(told, task_family(family, ()), known)
            if not set(chosen.get("layers", ())) <= set(range(len(masks.categories))):
                raise ClasError(
                    f"{who} was steered in layers {chosen['layers']}, which the masks do not have; make the table again."
                )
            if why := _why_not(told, task_family(family, ()), language, chosen, masks):
                left_out[column] = why
            else:
                steered[column] = {**common, **chosen}
        return cls(steered, left_out)

    def require(self, geometry: Geometry) -> None:
        """Refuses a geometry of another steering.

        Raises:
            ClasError: an option differs in a language that the geometry has.
        """
        for column, options in self.by_column.items():
            language = as_known(language_of(column), geometry.languages)
            if language not in geometry.languages:
                continue
            for name, ours in options.items():
                theirs = geometry.steering.get(name)
                if name == "alpha" and isinstance(theirs, dict):
                    theirs = theirs.get(language, theirs.get("default"))
                if theirs != ours:
                    raise ClasError(
                        f"In '{language}' the run has {name} {ours}, and the geometry {theirs}; measure that of the run."
                    )


def _seed(told: Mapping[str, Any]) -> dict[str, Any]:
    return {"seed": told["seed"]} if seed_of(told) is not None and "seed" in told else {}


def _chosen(told: Mapping[str, Any], family: str, language: str) -> dict[str, Any]:
    """The options of one language; without alpha where none is told."""
    found = {name: told[name] for name in _CHOSEN if told.get(name) is not None}
    alpha = found.pop("alpha", None)
    if alpha == "tuned":
        tuned = told.get("tuned", {}).get(family, {}).get(language, {})
        return found | {name: tuned[name] for name in _CHOSEN if name in tuned}
    if isinstance(alpha, Mapping):
        alpha = alpha.get(language, alpha.get("default"))
    return found if alpha is None else {**found, "alpha": alpha}


def _why_not(told: Mapping[str, Any], family: str, language: str, chosen: Mapping[str, Any], masks: MaskSet) -> str:
    """Why a language is no steered one of these masks; empty if it is."""
    alone = told.get("left_alone", {})
    known = as_known(language, masks.languages)
    if known not in masks.languages:
        return "not in the masks"
    if why := alone.get(language) or alone.get(f"{known} in {family}"):
        return str(why)
    if "alpha" not in chosen:
        return "no strength is told"
    if chosen["alpha"] == 0:
        return "tuned to 0" if told.get("alpha") == "tuned" else "alpha is 0"
    if told.get("languages") and language not in told["languages"]:
        return "not recognised"
    return ""
