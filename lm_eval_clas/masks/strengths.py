"""What tuning found: strengths by task and language, as the mask folder keeps them, with their evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from lm_eval_clas.disk.checked_json import StrictFinite
from lm_eval_clas.evidence.cluster_fields import OWN_FIELD
from lm_eval_clas.languages.codes import LanguageCode

CLAS = "clas"  # the method whose strengths a mask folder has as `tuned`; those of others are beside them
_DIGITS = 16


def document_hash(doc: Any) -> str:
    """The hash that the harness gives a document, SHA-256 in hex."""
    from lm_eval.utils import handle_non_serializable, hash_string

    text = json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return str(hash_string(text))


def known_hashes(doc: Any) -> set[str]:
    """`short_hashes` of a document that may have been tuned on: as it is, and without its mark of what hangs together.

    Documents of our tasks have had such a mark since version 1.1, and masks that were tuned before know them without.
    """
    unmarked = {name: value for name, value in doc.items() if name != OWN_FIELD} if isinstance(doc, Mapping) else doc
    return {short_hashes([document_hash(one)]) for one in (doc, unmarked)}


def short_hashes(hashes: Iterable[str]) -> str:
    """Hashes of documents as `TunedStrength` keeps them: enough digits to tell any two apart, with spaces between."""
    return " ".join(one[:_DIGITS] for one in hashes)


@dataclass(frozen=True)
class Setting:
    """One way to steer: strength, amplification, damping, and zero-based bridge layers."""

    alpha: float
    beta: float
    gamma: float
    layers: tuple[int, ...]

    def options(self) -> dict[str, Any]:
        """The options of `ActivationSteerer`."""
        return {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma, "layers": list(self.layers)}


class _Tried(StrictFinite):
    alpha: float
    beta: float
    gamma: float
    layers: list[int] = Field(min_length=1)

    @property
    def setting(self) -> Setting:
        """The setting alone."""
        return Setting(self.alpha, self.beta, self.gamma, tuple(self.layers))


class TriedSetting(_Tried):
    """One setting on the tuning items: its score, and its gain over alpha 0 with a 95 % bootstrap interval.

    Attributes:
        low, high: the ends of the interval; None where items are too few for one, which older versions gave nevertheless.
    """

    score: float
    gain: float
    low: float | None
    high: float | None


class Dropped(_Tried):
    """A setting that was tried and cannot be compared, and why."""

    why: str


class Conditions(StrictFinite):
    """What scores depend on besides items and steering. None is not recorded, or not the same throughout.

    Attributes:
        num_fewshot: examples in the prompt.
        apply_chat_template: whether the prompt went through the model's chat template.
        dtype: of the model, such as `bfloat16`.
        scoring: the path that log-likelihoods took; None where there were none.
        model: the last component of its name or path.
        model_args: those of its arguments that decide what it computes or is asked, as the harness takes them.
    """

    num_fewshot: int | None = Field(default=None, ge=0)
    apply_chat_template: bool | None = None
    dtype: str | None = None
    scoring: Literal["fast", "stock", "vllm"] | None = None
    model: str | None = None
    model_args: str | None = None

    @classmethod
    def common(cls, every: Iterable[Conditions]) -> Conditions:
        """What all of them have alike."""
        found = [one.model_dump() for one in every]
        return cls(**{name: value for name, value in found[0].items() if all(one[name] == value for one in found)})


class TunedStrength(StrictFinite):
    """The setting that was chosen for a task in a language, and why.

    Attributes:
        chosen: what `alpha=tuned` uses; alpha 0 where the guard kept it.
        best: the setting with the highest score, or the shared one.
        p_value: one-sided, of the best one's gain, adjusted for its having been picked among all.
        objective: `metric`, or `loglikelihood` of the gold answer in nats.
        guarded, shared: whether the guard was on, and whether one setting was chosen for everything.
        items: how many, and `items_sha256` over their tasks, numbers and contents.
        clusters: how many groups of items (by `cluster_fields` of their documents) the interval and p-value take as one; None
            where they were made of single items by an older version. `correlation`: of the best one's gains within them.
        documents: `short_hashes` hashes of the items; empty where they are not.
        conditions: what it was tuned under.
        measured: every setting that has a score, alpha 0 first.
        dropped: those that have none.
    """

    chosen: TriedSetting
    best: TriedSetting
    p_value: float = Field(ge=0, le=1)
    objective: str
    metric: str
    guarded: bool
    shared: bool
    tasks: list[str]
    items: int = Field(ge=1)
    items_sha256: str
    clusters: int | None = Field(default=None, ge=1)
    cluster_fields: list[str] = Field(default_factory=list)
    correlation: float | None = None
    documents: str = Field(default="", pattern=r"^([0-9a-f]{16}( [0-9a-f]{16})*)?$")
    conditions: Conditions = Conditions()
    measured: list[TriedSetting]
    dropped: list[Dropped] = Field(default_factory=list)


Tuned = dict[str, dict[LanguageCode, TunedStrength]]  # by task family and language
TunedMethods = dict[str, Tuned]  # the same of other methods than CLAS, by their names
