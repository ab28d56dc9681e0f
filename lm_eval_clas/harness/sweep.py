"""`Sweep`: a model that answers the harness's requests under many settings of steering at once.

The harness asks a `Sweep` as it asks any model, once for each setting. The first time, all settings' answers are worked
out, batch by batch: the layers below the first bridge layer run once a batch, and each setting resumes from there
(`resuming.py`). After that, and in a run that goes on after a kill, answers come from the journal.

Of several processes, each runs its share of the batches and then knows all answers, so that what follows is the same in all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import accumulate
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.logs import logger
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.decoder.greedy import Ways
from lm_eval_clas.decoder.resuming import Tape, can_resume
from lm_eval_clas.disk.journal import Journal
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.languages.routing import LanguageRouter
from lm_eval_clas.languages.task_names import Pair
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import CLAS, Setting
from lm_eval_clas.steering.activation_steerer import ActivationSteerer

_GOLD = "gold"  # the journal's name for the scores of gold answers, beside the harness's kinds of request


class Sweep(LM):
    """One loaded model under many settings.

    Args:
        lm: the model, not steered itself.
        masks: masks that fit it.
        settings: the first one is alpha 0.
        resume: whether layers below the bridge run once for all settings; False runs full passes.
        processes: those that are asked the same at the same time, each with a model of its own; default: this one alone.
        pair: which language counts where a task's name has two.
        method: of steering, the same under all settings.

    Attributes:
        processes: as given.
        setting: the position of the setting that the next answers are of.
        language_of: the language of each document of the task, by number; None for those that are left alone.
        gold: where generation is replaced by scoring, log-likelihoods in nats: [settings][documents by number].
        skipped: how many requests' answers were found in the journal.
    """

    def __init__(
        self,
        lm: FastLM,
        masks: MaskSet,
        settings: Sequence[Setting],
        resume: bool = True,
        processes: Processes | None = None,
        pair: Pair = "target",
        method: str = CLAS,
    ) -> None:
        super().__init__()  # as number 0 of 1: for the harness, there is one process
        self.processes = processes or Processes()
        self._lm = lm
        self._masks = masks
        self._method = method
        self._router = LanguageRouter(masks.languages, pair=pair)
        self._batch_size: int | None = None
        self._settings = len(settings)
        self._steer_with(settings, resume)

    def _steer_with(self, settings: Sequence[Setting], resume: bool) -> None:
        """Makes what steers, for each setting."""
        self._steerers = [
            ActivationSteerer(self._lm.model, self._masks, method=self._method, **setting.options()) for setting in settings
        ]
        first = min(steerer.first_rerun for steerer in self._steerers)
        self._tape = Tape(self._lm.model, first) if resume and first > 0 and can_resume(self._lm.model, first) else None
        self._checked = False

    # What the harness asks of a model to build requests.
    @property
    def tokenizer_name(self) -> str:
        return str(self._lm.tokenizer_name)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self._lm.chat_template(chat_template)  # type: ignore[no-any-return]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return str(self._lm.apply_chat_template(chat_history, add_generation_prompt))

    @property
    def computes_in(self) -> str:
        """As `FastLM` has it."""
        return self._lm.computes_in

    @property
    def scoring(self) -> str:
        """As `FastLM` has it."""
        return self._lm.scoring

    @property
    def loaded(self) -> dict[str, str | None]:
        """As `FastLM` has it."""
        return self._lm.loaded

    def start(self, journal: Path, report: Callable[[int, int], None], gold: Callable[[Any], str] | None = None) -> None:
        """Begins a task.

        Args:
            journal: its journal.
            report: told of the answered requests and of their number.
            gold: a document's gold continuation. If given, generation is not run; the gold answer is scored in its place.
        """
        self._journal = Journal(journal, self.processes)
        self._report = report
        self._gold_of = gold
        self._answers: dict[str, list[list[Any]]] = {}
        self._asked: dict[str, str] = {}  # hashes of the requests that these answer
        self.setting = 0
        self.skipped = 0
        self.language_of: dict[int, str | None] = {}
        self.gold: list[dict[int, float]] = []

    def finish(self) -> None:
        """Forgets the journal of the task, whose scores are kept by now."""
        self._journal.remove()

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [tuple(answer) for answer in self._answered("loglikelihood", requests)]  # type: ignore[misc]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        return self._answered("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        if self._gold_of is None:
            return self._answered("generate_until", requests)
        scored = [
            Instance("loglikelihood", one.doc, (one.args[0], self._gold_of(one.doc)), 0, metadata=one.metadata)
            for one in requests
        ]
        self._answered(_GOLD, scored)
        self.gold = [
            {int(one.doc_id or 0): float(answer[0]) for one, answer in zip(scored, answers, strict=True)}
            for answers in self._answers[_GOLD]
        ]
        return ["" for _ in requests]

    def _answered(self, kind: str, requests: list[Instance]) -> list[Any]:
        asked = hashlib.sha256(json.dumps([request.args for request in requests]).encode()).hexdigest()
        if kind not in self._answers:
            self._asked[kind] = asked
            self._answers[kind] = self._work_out(kind, requests, asked)
        # Answers are found again by the position of their request.
        if asked != self._asked[kind]:
            raise ClasError(
                f"The task {requests[0].task_name} asks something else each time (it shuffles by chance), so that strengths "
                "cannot be compared on it; leave it out."
            )
        return self._answers[kind][self.setting]

    def _work_out(self, kind: str, requests: list[Instance], asked: str) -> list[list[Any]]:
        """The answers of all settings, [settings][requests]; `asked` is a hash of all requests."""
        if len(set(self.processes.gather(asked))) > 1:
            raise ClasError(
                f"The task {requests[0].task_name} asks something else in each process (it shuffles by chance), so that they "
                "cannot share its requests out; tune on it in one process."
            )
        found = self._journal.read(kind, asked)
        self.skipped += len(found)
        self._report(len(found), len(requests))
        languages: list[str | None] = []
        for request, recognized in zip(requests, self._router.recognize(requests), strict=True):
            language = as_known(recognized.language, self._masks.languages)
            languages.append(language if language in self._masks.languages and language != self._masks.anchor else None)
            self.language_of[int(request.doc_id or 0)] = languages[-1]
        left = [one for one in self._batches(requests, languages) if not all(position in found for position in one)]
        before = len(found)
        mine: dict[int, list[Any]] = {}
        for positions in self.processes.share(left):
            batch = [requests[position] for position in positions]
            answers = self._run_all("loglikelihood" if kind == _GOLD else kind, batch, [languages[i] for i in positions])
            by_request = [list(one) for one in zip(*answers, strict=True)]
            self._journal.write(kind, asked, positions, by_request)
            mine.update(zip(positions, by_request, strict=True))
            self._report(min(before + self.processes.size * len(mine), len(requests)), len(requests))
        for part in self.processes.gather(mine):
            found |= part
        self._report(len(found), len(requests))
        return [[found[position][setting] for position in range(len(requests))] for setting in range(self._settings)]

    def _batches(self, requests: Sequence[Instance], languages: Sequence[str | None]) -> Iterator[list[int]]:
        """Positions of requests that run together: of one language, whole documents, alike in length, the longest first."""
        documents: dict[tuple[Any, ...], list[int]] = {}
        for position, (request, language) in enumerate(zip(requests, languages, strict=True)):
            options = json.dumps(request.args[1], sort_keys=True) if request.request_type == "generate_until" else ""
            documents.setdefault((language or "", options, request.doc_id), []).append(position)

        def length(positions: list[int]) -> int:
            return max(len("".join(map(str, requests[position].args))) for position in positions)

        alike: dict[tuple[Any, ...], list[list[int]]] = {}
        for (*key, _), positions in documents.items():
            alike.setdefault(tuple(key), []).append(positions)
        size = self._documents_at_once()
        for group in alike.values():
            one = requests[group[0][0]]
            if one.request_type == "generate_until" and self._lm.generates_fast(one.args[1]):
                flat = [position for positions in group for position in positions]
                for batch in self._lm.generation_batches([requests[position] for position in flat], size):
                    yield [flat[place] for place in batch]
                continue
            group.sort(key=length, reverse=True)
            for start in range(0, len(group), size):
                yield [position for positions in group[start : start + size] for position in positions]

    def _run_all(self, kind: str, batch: list[Instance], languages: Sequence[str | None]) -> list[list[Any]]:
        """The answers of all settings to one of `_batches`, [settings][requests]."""
        return self._run(kind, batch, languages[0])

    def _run(self, kind: str, batch: list[Instance], language: str | None) -> list[list[Any]]:
        """The answers of all settings to one batch, [settings][requests]."""
        answer = getattr(self._lm, kind)
        if language is None:  # the anchor, or not in the masks: no setting steers it
            return [answer(batch, disable_tqdm=True)] * len(self._steerers)
        if kind == "generate_until" and self._lm.generates_fast(batch[0].args[1]):
            return self._generate(batch, language)
        passes = 1 if kind == "generate_until" else None
        answers = []
        for steerer in self._steerers:
            with steerer.language(language) as block, self._tape.running(passes) if self._tape else nullcontext():
                answers.append(answer(batch, disable_tqdm=True))
            block.require_steered(f"{len(batch)} requests at alpha {steerer.steering.strength(language):g}")
        if self._tape:
            self._tape.clear()
            if not self._resumes(answer, batch, language, answers[-1]):
                self._run_in_full()
                return self._run(kind, batch, language)
        return answers

    def _generate(self, batch: list[Instance], language: str) -> list[list[str]]:
        """The answers of all settings to one batch of generations, [settings][requests], written side by side."""
        blocks = [steerer.language(language) for steerer in self._steerers]

        def steer(counts: Sequence[int]) -> None:
            for block, end, count in zip(blocks, accumulate(counts), counts, strict=True):
                block.rows, block.sequences = slice(end - count, end), sum(counts)

        def prompts(setting: int) -> AbstractContextManager[None]:
            if self._tape and setting == 0:
                self._tape.clear()
            return self._tape.running() if self._tape else nullcontext()

        with ExitStack() as opened:
            for block in blocks:
                opened.enter_context(block)
            check = self._tape is not None and not self._checked
            answers = self._lm.generate_in(Ways(len(blocks), steer, prompts), batch, check)
        if self._tape:
            self._tape.clear()
        if answers is None:
            if self._lm.generates_fast(batch[0].args[1]):
                self._run_in_full()
            return self._run("generate_until", batch, language)
        self._checked = True
        for block, steerer in zip(blocks, self._steerers, strict=True):
            block.require_steered(f"{len(batch)} requests at alpha {steerer.steering.strength(language):g}")
        return answers

    def _run_in_full(self) -> None:
        logger.warning("This model cannot be resumed at a layer exactly; every setting runs full passes, and takes longer.")
        self._tape = None

    def _resumes(self, answer: Callable[..., Any], batch: list[Instance], language: str, resumed: list[Any]) -> bool:
        """Whether the last setting's first batch is that of a full pass: a model of an unknown make may hide something."""
        if self._checked:
            return True
        self._checked = True
        with self._steerers[-1].language(language):
            full = answer(batch, disable_tqdm=True)
        return repr(full) == repr(resumed)  # exact, and one NaN is as good as another

    def _documents_at_once(self) -> int:
        if self._batch_size is None:
            size = self._lm.batch_size
            # The batches that are shared out must be the same in all processes.
            self._batch_size = min(self.processes.gather(int(size if size != "auto" else self._lm._detect_batch_size())))
            self._lm.batch_size_per_gpu = self._batch_size  # found once; a search would be on the tape
        return self._batch_size
