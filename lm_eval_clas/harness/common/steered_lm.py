"""`SteeredLM`: a model of the harness whose requests are steered by their language, whatever engine runs it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from sqlitedict import SqliteDict

from lm_eval_clas.base.logs import logger
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.harness.answer_cache import AnswerCache, require_apart
from lm_eval_clas.harness.common.asked_steering import AskedSteering
from lm_eval_clas.harness.common.told_steering import told_steering, told_without_masks
from lm_eval_clas.harness.gathering import lent
from lm_eval_clas.harness.tally import RunTally, told_in_a_line
from lm_eval_clas.harness.tuning_differences import TuningDifferences
from lm_eval_clas.languages.codes import UNDETERMINED
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.languages.routing import LanguageRouter
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.by_task import Steerer, TunedSteering

Response = TypeVar("Response")
AnswerAll = Callable[[list[Instance], bool], list[Response]]
UNSEEN = "unseen"  # no BCP-47 code has six letters, so it is no language's name


def code_of(language: str) -> str | None:
    """What a steerer calls the language of a group: None for any that the masks do not know."""
    return None if language == UNSEEN else language


@dataclass(frozen=True)
class RequestGroup(Generic[Steerer]):
    """Requests that are steered alike.

    Attributes:
        family: of their tasks, with tuned strengths; else empty.
        language: whose factors they get.
        name: what stands for them in the results file.
        steerer: what has their factors.
        positions: of those that are to be answered, among all requests; may be empty.
        requests: the same themselves.
    """

    family: str
    language: str
    name: str
    steerer: Steerer
    positions: Sequence[int]
    requests: list[Instance]


class SteeredLM(LM, Generic[Steerer]):  # type: ignore[misc]
    """What stands before a model class of the harness to make it a steered one.

    Requests get their language, groups of them are handed to `_answer_groups`, and answers come back in order. Where there is
    nothing to steer (no masks, `alpha=0`, `method=off`), requests that no cache answers take exactly the class's own path.

    A subclass calls `_will_steer` before its model is loaded and `_steer_with` after that.
    """

    cache_hook: Any
    harness_name: str  # what the harness calls the class
    scoring: str  # the path that log-likelihoods take
    computes_in: str  # the dtype of the model
    loaded: dict[str, str | None]  # which model it is, as `loaded_as` tells it

    def _will_steer(self, asked: AskedSteering) -> None:
        """Notes what was asked for, while the model is not there yet."""
        self._asked = asked
        self._masks: MaskSet | None = asked.masks
        self._steerer: Steerer | None = None
        self._tuned: TunedSteering[Steerer] | None = None
        self._differences: TuningDifferences | None = None
        self._answers = self._cache()

    def _cache(self, database: Any = None) -> AnswerCache:
        return AnswerCache(self.harness_name, lambda: (self.computes_in, self.scoring), database)

    def _steer_with(self, make: Callable[..., Steerer], processes: Processes | None = None) -> None:
        """Makes what steers.

        Args:
            make: from masks and the options of `SteeringOptions.parse`.
            processes: those that answer shares of the same requests; default: this one alone.

        Raises:
            ClasError: the forced language is wrong, or `make` refuses.
        """
        if self._masks is not None:
            self._tuned = TunedSteering(self._masks, self._asked.options, make) if self._asked.tuned else None
            self._differences = TuningDifferences(self._tuned.records, self.harness_name) if self._tuned else None
            self._steerer = make(self._masks, **self._asked.fixed)
            self._router: LanguageRouter = self._asked.router(self.harness_name, processes)
        self._tally = RunTally()

    @abstractmethod
    def _answer_groups(
        self,
        answer: AnswerAll[Response],
        groups: Sequence[RequestGroup[Steerer]],
        answers: dict[int, Response],
        total: int,
        disable_tqdm: bool,
    ) -> None:
        """Answers the requests of all groups with `answer`, each steered by its group, and bears witness of it.

        Args:
            answer: the class's own method without steering.
            groups: all groups, those among them that have nothing left to answer.
            answers: by position; those that are there came from the cache.
            total: how many there will be.
            disable_tqdm: whether no progress is shown.
        """

    # The three methods where the language of a request is still known: below, only strings and tokens go on.

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self._by_language(super().loglikelihood, requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        return self._by_language(super().loglikelihood_rolling, requests, disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return self._by_language(super().generate_until, requests, disable_tqdm)

    def _by_language(self, answer: AnswerAll[Response], requests: list[Instance], disable_tqdm: bool) -> list[Response]:
        """Answers requests, each steered for its language (and task), in the order of the requests."""
        if self._steerer is None or not self._steers:
            return self._unsteered(answer, requests, disable_tqdm)
        if self._tally.another_run():
            self._forget()
        try:
            return self._answered(answer, requests, disable_tqdm)
        except BaseException:
            self._forget()  # whatever comes next is no part of this run
            raise

    def _unsteered(self, answer: AnswerAll[Response], requests: list[Instance], disable_tqdm: bool) -> list[Response]:
        answers: dict[int, Response] = self._answers.find(answer.__name__, requests)
        missing = [position for position in range(len(requests)) if position not in answers]
        given = answer([requests[position] for position in missing], disable_tqdm) if missing or not requests else []
        for position, one in zip(missing, given, strict=True):
            answers[position] = one
            # The class keeps its answers as they come, but the harness's vllm under other arguments than the request's.
            self._answers.add_partial(answer.__name__, requests[position].args, one)
        return [answers[position] for position in range(len(requests))]

    def _answered(self, answer: AnswerAll[Response], requests: list[Instance], disable_tqdm: bool) -> list[Response]:
        by_steering: dict[tuple[str, str], list[int]] = {}
        found = self._router.recognize(requests)
        for position, (request, one) in enumerate(zip(requests, found, strict=True)):
            if not lent(request.task_name):
                self._note(one.language, one.source)
            family = self._tuned.family(request.task_name) if self._tuned else ""
            by_steering.setdefault((family, self._steered_as(one.language)), []).append(position)
        answers: dict[int, Response] = {}
        # Before any is answered: requests that are alike, but not steered alike, share no answers.
        for (family, language), positions in by_steering.items():
            with self._remembering(family, language):
                known = self._answers.find(answer.__name__, [requests[i] for i in positions])
            answers.update((positions[place], one) for place, one in known.items())
        self._tally.cached.update(found[i].language for i in answers if not lent(requests[i].task_name))
        groups = []
        for (family, language), positions in by_steering.items():
            steerer = self._steerer_of(family, language)
            if self._differences:
                looked_at = [requests[i] for i in positions]
                self._differences.look(family, language, looked_at, self.computes_in, self.scoring, self.loaded)
            missing = [position for position in positions if position not in answers]
            name = f"{language} in {family}" if self._tuned else language
            groups.append(RequestGroup(family, language, name, steerer, missing, [requests[i] for i in missing]))
        self._answer_groups(answer, groups, answers, len(requests), disable_tqdm)
        return [answers[position] for position in range(len(requests))]

    @property
    def _steers(self) -> bool:
        """Whether there is anything to steer with."""
        return self._tuned is not None or (self._steerer is not None and not self._steerer.steering.does_nothing)

    def _remembering(self, family: str, language: str) -> AbstractContextManager[None]:
        """Inside it, the cache finds and keeps answers of one group's steering: what is done to neurons, and which they are."""
        digest = self._steerer_of(family, language).digest(code_of(language))
        if digest and self._asked.projection:  # not every engine's steerers see the modules that have the neurons
            digest += f" {self._asked.projection}"
        return self._answers.steered(digest, language, family)

    def _steerer_of(self, family: str, language: str) -> Steerer:
        assert self._masks is not None
        assert self._steerer is not None
        if self._tuned is None or language == self._masks.anchor:
            return self._steerer
        tuned = self._tuned.steerer(family, language)
        if tuned is None and (family, language) not in self._tally.alone:
            logger.warning(
                "%s: no strength is tuned for task %s in language '%s' (tuned are %s); its requests are not steered.",
                self.harness_name,
                family,
                language,
                "; ".join(f"{task}: {', '.join(languages)}" for task, languages in self._tuned.strengths.items()),
            )
        if why := "not tuned" if tuned is None else tuned.unchanged(language):
            self._tally.alone[family, language] = why.replace("alpha is 0", "tuned to 0")
        return tuned or self._steerer

    def _steered_as(self, language: str) -> str:
        """The language whose factors a request gets; the anchor's are all ones."""
        assert self._masks is not None
        if (known := as_known(language, self._masks.languages)) in self._masks.languages:
            return known
        return UNSEEN if self._asked.unseen == "shared" and language != UNDETERMINED else self._masks.anchor

    def _note(self, language: str, source: str) -> None:
        assert self._masks is not None
        known = as_known(language, self._masks.languages) in (*self._masks.languages, UNDETERMINED)
        if not known and self._asked.unseen == "off" and not any(seen == language for seen, _ in self._tally.recognized):
            logger.warning(
                "%s: the masks do not know language '%s' (they have %s); its requests are not steered. "
                "Use unseen=shared to steer them with the neurons that languages share.",
                self.harness_name,
                language,
                ", ".join(self._masks.languages),
            )
        self._tally.recognized[language, source] += 1

    def know(self, answers: Iterable[tuple[str, Sequence[Any], Any]]) -> None:
        """Takes answers without steering as known, in the place of all before; requests left alone are given these.

        A model that steers nothing at all goes on to answer itself: it may be there to be compared.

        Args:
            answers: kind of request, its arguments, and what the harness's own method returns for it, of this very model
                computing in this way.
        """
        if self._steers:
            self._answers = self._cache(SqliteDict(":memory:", autocommit=True))
            for kind, arguments, answer in answers:
                self._answers.add_partial(kind, arguments, answer)

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Takes the database of `--use_cache`, and keeps answers in it by request, steering and way to compute.

        Raises:
            ClasError: its steered answers cannot be told apart.
        """
        if cache_hook.dbdict is not None:
            require_apart(cache_hook.dbdict)
            cache_hook = self._answers = self._cache(cache_hook.dbdict)
        super().set_cache_hook(cache_hook)
        self._forget()  # another run begins, which may ask nothing of the model

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """Everybody's results, and on the way what everybody steered, which the main process tells of."""
        found = self._differences.state if self._differences else None
        told = super().gather_object([self._tally.state, found], dst)
        if told is None:
            self._forget()
        else:
            self._tally.gathered(state for state, _ in told)
            if self._differences:
                self._differences.gathered(found for _, found in told)
        gathered: list[Any] | None = super().gather_object(obj, dst)
        return gathered

    def get_model_info(self) -> dict[str, Any]:
        """What the class tells of the model, and under `clas` what was steered and how; both go into the results file."""
        info = self.steering_info()
        logger.info("%s: %s", self.harness_name, told_in_a_line(info))
        self._forget()  # a model may be used for another run, which tells of its own requests
        return {**super().get_model_info(), "clas": info}

    def _forget(self) -> None:
        self._tally.clear()
        if self._differences:
            self._differences.clear()

    def steering_info(self) -> dict[str, Any]:
        """What was steered, as plain JSON: options, mask hash, and each language with how it was recognised."""
        if self._steerer is None:
            return told_without_masks(self.scoring)
        return told_steering(
            self.scoring, self._asked, self._steerer, self._router, self._tally, self._tuned, self._differences
        )
