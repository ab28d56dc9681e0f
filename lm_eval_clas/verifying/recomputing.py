"""Recomputes a sample of a run's items with merged weights, and says whether the run's numbers stand."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.projections import Projection, find_projections, layer_outputs
from lm_eval_clas.harness.answer_cache import drawn_by_chance
from lm_eval_clas.languages.codes import UNDETERMINED
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.languages.routing import LanguageRouter
from lm_eval_clas.languages.task_names import task_family
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.methods.intervention import Intervention
from lm_eval_clas.steering.methods.method_table import METHODS, measured_by
from lm_eval_clas.steering.options import SteeringOptions
from lm_eval_clas.verifying.judging import TOLERANCES, ScoredAgain, Tolerance, Verified, WrittenAgain
from lm_eval_clas.verifying.logged_run import Logged, LoggedRun
from lm_eval_clas.verifying.merged_weights import merged

_UNSEEN = "unseen"


@dataclass(frozen=True)
class _Alike:
    """Requests that are steered alike, by item."""

    language: str | None
    family: str
    items: dict[tuple[str, int], list[Logged]] = field(default_factory=dict)

    def called(self, tuned: bool) -> str:
        return f"{self.language} in {self.family}" if tuned else self.language or _UNSEEN


class Verification:
    """A run to be verified, checked against its masks before a model is loaded.

    Args:
        run: what was logged.
        masks: the masks that steered it.
        items: how many documents of each language; `seed`: of their choice.

    Raises:
        ClasError: the masks are others, nothing was steered, or the languages are no longer recognised as in the run.
    """

    def __init__(self, run: LoggedRun, masks: MaskSet, items: int, seed: int) -> None:
        told = run.steering
        if told.get("masks_hash") != masks.hash:
            raise ClasError(
                f"The run was steered with masks {told.get('masks_hash')}, and these are {masks.hash}; give --masks those."
            )
        method = METHODS.get(str(told.get("method")))
        for name, here in measured_by(masks, str(told.get("method"))).items():
            if told.get(name) != here:
                raise ClasError(
                    f"The run was steered with {name.removesuffix('_hash')} {told.get(name)}, and those of these masks are "
                    f"{here}; give --masks those of the run."
                )
        self._acts_on_outputs = method is not None and method.acts_on == "outputs"
        self._run, self._masks = run, masks
        self._tuned = told.get("alpha") == "tuned"
        chance = random.Random(seed)
        self._groups: list[_Alike] = []
        for group in self._steered():
            documents = list(group.items)
            chosen = sorted(chance.sample(range(len(documents)), min(items, len(documents))))
            self._groups.append(_Alike(group.language, group.family, {documents[i]: group.items[documents[i]] for i in chosen}))
        if not self._groups:
            raise ClasError(f"'{run.path}' has no request that was steered, so there is nothing to verify.")

    def _steered(self) -> list[_Alike]:
        told = self._run.steering
        requests = [one.request for one in self._run.logged]
        router = LanguageRouter(self._masks.languages, told.get("forced_language"), told.get("pair", "target"))
        found = router.recognize(requests)
        counts: dict[str, int] = {}
        groups: dict[tuple[str | None, str], _Alike] = {}
        for one, recognized in zip(self._run.logged, found, strict=True):
            counts[recognized.language] = counts.get(recognized.language, 0) + 1
            language: str | None = as_known(recognized.language, self._masks.languages)
            if language not in self._masks.languages:
                if told.get("unseen") != "shared" or language == UNDETERMINED:
                    continue
                language = None
            family = task_family(one.request.task_name or "", self._masks.languages) if self._tuned else ""
            if self._intervention(language, family) is None:
                continue
            group = groups.setdefault((language, family), _Alike(language, family))
            group.items.setdefault((one.request.task_name or "", int(one.request.doc_id or 0)), []).append(one)
        said = {language: one.get("requests") for language, one in told.get("languages", {}).items()}
        if said != counts:
            raise ClasError(
                f"'{self._run.path}' tells of requests by language ({_counts(said)}) that its samples do not have "
                f"({_counts(counts)}); verify it with the version that wrote it, and with all of its samples files."
            )
        return list(groups.values())

    def _options(self, language: str | None, family: str) -> SteeringOptions | None:
        told = self._run.steering
        names = ("alpha", "beta", "gamma", "layers", "specific_scope", "partial_scope", "method", "seed")
        options = {name: told[name] for name in names if name in told}
        if self._tuned:
            setting = told.get("tuned", {}).get(family, {}).get(language)
            if setting is None:
                return None
            options |= setting
        return SteeringOptions.parse(self._masks, **options)

    def _intervention(self, language: str | None, family: str) -> Intervention | None:
        """What is done; None where nothing is steered."""
        options = self._options(language, family)
        if options is None:
            return None
        found = intervention_in(self._masks, options, language)
        return found if found.layers else None

    def run(self, lm: Any, projection: str | None = None, report: Callable[[int], None] = lambda _: None) -> list[Verified]:
        """Computes the answers again, and compares.

        Args:
            lm: the harness's own model, which knows nothing of steering.
            projection: as the run had it.
            report: told of each answered request.
        """
        found = (
            layer_outputs(lm.model)
            if self._acts_on_outputs
            else find_projections(lm.model, self._masks.config.site, projection or self._masks.config.projection)
        )
        tolerance = TOLERANCES.get(lm.mixed_precision_dtype or lm.model.dtype, TOLERANCES[torch.float32])
        return [self._verify(lm, found, group, tolerance, report) for group in self._groups]

    @property
    def passes(self) -> int:
        """How many requests are answered, each with and without steering."""
        return sum(2 * len(logged) for group in self._groups for logged in group.items.values())

    def _verify(
        self,
        lm: Any,
        projections: Sequence[Projection],
        group: _Alike,
        tolerance: Tolerance,
        report: Callable[[int], None],
    ) -> Verified:
        done = self._intervention(group.language, group.family)
        assert done is not None
        every = [one for requests in group.items.values() for one in requests]
        logged = [one for one in every if not drawn_by_chance(one.request.request_type, one.request.args)]
        verified = Verified(group.called(self._tuned), len(group.items), len(logged))
        places = [place for place in projections if done.changes_at(place.layer, place.here)]
        answers: dict[bool, list[float | str]] = {}
        for steered in (True, False):
            with merged(places, done) if steered else nullcontext():
                answers[steered] = []
                for one in logged:
                    answers[steered].append(_answer(lm, one))
                    report(1)
        scored, written = [], []
        for one, with_, without in zip(logged, answers[True], answers[False], strict=True):
            if isinstance(with_, str):
                written.append(WrittenAgain(str(one.answer), with_, str(without)))
            else:
                scored.append(ScoredAgain(float(one.answer), with_, float(without)))
        verified.judge(scored, written, tolerance)
        if not logged:
            verified.note = "all answers were sampled, and cannot be computed again"
        told = (self._run.steering.get("witness") or {}).get(verified.language, {})
        if told.get("factors_hash") not in (None, done.digest):
            seen = "the factors are not those that the run's witness saw"
            verified.why = f"{verified.why}; {seen}" if verified.why else seen
        return verified


def _answer(lm: Any, one: Logged) -> float | str:
    answer = getattr(lm, one.request.request_type)([one.request], disable_tqdm=True)[0]
    if isinstance(answer, str):
        return answer
    return float(answer[0] if isinstance(answer, (list, tuple)) else answer)


def _counts(by_language: Mapping[str, Any]) -> str:
    return ", ".join(f"{language} {count}" for language, count in sorted(by_language.items())) or "none"
