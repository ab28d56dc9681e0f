"""Whether a run's answers are those of the steering that it tells of: held against answers with it and without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Tolerance:
    """How far a right answer may be from another right computation of it, by the dtype of the model.

    Log-likelihoods of many tokens need no more room. Each token is rounded in its own way, and one that is nearly certain can
    hardly move, so that differences grow with the root of the log-likelihood L, and not with its tokens: by 0.03 to 0.07 times
    it in bfloat16 (root mean square, Gemma 3 270M, 1 to 160 tokens). Nowhere is 1 nat and 2 % of L less than 0.28 times it.

    Attributes:
        nats, share: of one log-likelihood: so many nats, plus a share of it.
        texts: the share of generated texts that must be equal.
        nearer: how many more texts may be those of the unsteered model than those of the steered one.
    """

    nats: float
    share: float
    texts: float
    nearer: int


TOLERANCES = {
    torch.float32: Tolerance(1e-3, 1e-4, 1.0, 0),
    torch.float16: Tolerance(0.25, 0.005, 0.5, 1),
    torch.bfloat16: Tolerance(1.0, 0.02, 0.5, 1),
}
# How much nearer to the unsteered model a run's numbers may be on average, as a share of how far each may be from a right one.
_NEARER = 0.1


@dataclass(frozen=True)
class ScoredAgain:
    """A log-likelihood in nats: the run's, that of the model with steering merged into it, and that of the model as it is."""

    run: float
    steered: float
    plain: float


@dataclass(frozen=True)
class WrittenAgain:
    """A generated text: the run's, and those of the model with steering merged into it and as it is."""

    run: str
    steered: str
    plain: str


@dataclass
class Verified:
    """What was found of one language (and task family, where strengths are tuned).

    Attributes:
        language: as `config.clas.witness` names it: `hi`, `hi in clas_xquad`, or `unseen`.
        items, requests: that were recomputed.
        largest, mean: difference of log-likelihoods from the run's, in nats; None where there were none.
        unsteered: the mean difference of the model without steering.
        texts, equal: generated texts, and how many of them are the same.
        equal_unsteered: how many are those of the model without steering.
        why: all reasons why the numbers do not stand; empty if they do.
        note: what the check cannot tell.
    """

    language: str
    items: int = 0
    requests: int = 0
    largest: float | None = None
    mean: float | None = None
    unsteered: float | None = None
    texts: int = 0
    equal: int = 0
    equal_unsteered: int = 0
    why: str = ""
    note: str = ""

    def judge(self, scored: Sequence[ScoredAgain], written: Sequence[WrittenAgain], tolerance: Tolerance) -> None:
        """Fills in everything but `language`, `items` and `requests`."""
        numbers = self._judge_scores(scored, tolerance) if scored else ([], "")
        texts = self._judge_texts(written, tolerance) if written else ([], "")
        self.why = "; ".join([*numbers[0], *texts[0]])
        self.note = "; ".join(note for note in (numbers[1], texts[1]) if note)

    def _judge_scores(self, scored: Sequence[ScoredAgain], tolerance: Tolerance) -> tuple[list[str], str]:
        run, steered, plain = (np.array([getattr(one, name) for one in scored]) for name in ("run", "steered", "plain"))
        allowed = tolerance.nats + tolerance.share * np.abs(steered)
        differences, before = np.abs(run - steered), np.abs(run - plain)
        self.largest, self.mean, self.unsteered = map(float, (differences.max(), differences.mean(), before.mean()))
        reasons = []
        if not (differences <= allowed).all():
            reasons.append(f"log-likelihoods differ by up to {self.largest:.3g} nats")
        nearer = float(((differences - before) / allowed).mean())
        if nearer > _NEARER:
            reasons.append("the numbers are nearer to those of the model without steering")
        return reasons, "" if reasons or nearer < -_NEARER else _cannot_tell("numbers")

    def _judge_texts(self, written: Sequence[WrittenAgain], tolerance: Tolerance) -> tuple[list[str], str]:
        self.texts, self.equal = len(written), sum(one.run == one.steered for one in written)
        self.equal_unsteered = sum(one.run == one.plain for one in written)
        reasons = []
        if self.equal < tolerance.texts * self.texts:
            reasons.append(f"{self.texts - self.equal} of {self.texts} texts are others")
        nearer = self.equal_unsteered - self.equal
        if nearer > tolerance.nearer:
            reasons.append(f"{self.equal_unsteered} of {self.texts} texts are those of the model without steering")
        return reasons, "" if reasons or nearer < -tolerance.nearer else _cannot_tell("texts")


def _cannot_tell(what: str) -> str:
    return f"these {what} are about as near to those of the model without steering, and cannot be told from unsteered ones"
