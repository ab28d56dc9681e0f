"""What tuning found: strengths by task and language, as the mask folder keeps them, with their evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lm_eval_clas.task_names import without_language

# Splits of one task: what is tuned on one of them holds for the others.
_SPLITS = ("tune", "dev", "test", "val", "validation")
# What a task is tuned for and compared by if nobody says: the measures of the paper, where the task has them.
PREFERRED_METRICS = ("f1_lang", "f1", "acc")


def task_family(name: str, languages: Iterable[str]) -> str:
    """What the languages and splits of a task have in common: `clas_xquad_tune_hi` and `clas_xquad_hi` are `clas_xquad`."""
    words = without_language(name, languages).split("_")
    while len(words) > 1 and words[-1] in _SPLITS:
        words.pop()
    return "_".join(words)


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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Measured(_Strict):
    """One setting on the tuning items: its score, and its gain over alpha 0 with a 95 % bootstrap interval."""

    alpha: float
    beta: float
    gamma: float
    layers: list[int] = Field(min_length=1)
    score: float
    gain: float
    low: float
    high: float

    @property
    def setting(self) -> Setting:
        """The setting alone."""
        return Setting(self.alpha, self.beta, self.gamma, tuple(self.layers))


class TunedStrength(_Strict):
    """The setting that was chosen for a task in a language, and why.

    Attributes:
        chosen: what `alpha=tuned` uses; alpha 0 where the guard kept it.
        best: the setting with the highest score, or the shared one.
        p_value: one-sided, of the best one's gain, adjusted for its having been picked among all.
        objective: `metric`, or `loglikelihood` of the gold answer in nats.
        guarded, shared: whether the guard was on, and whether one setting was chosen for everything.
        items: how many, and `items_sha256` over their tasks, numbers and contents.
        measured: every setting, alpha 0 among them.
    """

    chosen: Measured
    best: Measured
    p_value: float = Field(ge=0, le=1)
    objective: str
    metric: str
    guarded: bool
    shared: bool
    tasks: list[str]
    items: int = Field(ge=1)
    items_sha256: str
    measured: list[Measured]


Tuned = dict[str, dict[str, TunedStrength]]  # by task family and language
