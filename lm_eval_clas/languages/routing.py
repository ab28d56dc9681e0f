"""The language of each request: forced, the document's, the task's by name and texts, or the text's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from lm_eval_clas.base.logs import own_logger
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.languages.codes import UNDETERMINED
from lm_eval_clas.languages.detection import Detector
from lm_eval_clas.languages.language_names import from_name, parse_language
from lm_eval_clas.languages.name_words import SOMETHING_ELSE
from lm_eval_clas.languages.sibling_names import Siblings, installed_siblings
from lm_eval_clas.languages.task_names import Pair, is_code_task, of_pair, read_task_name
from lm_eval_clas.languages.text_witness import DOCUMENTS, DocumentTexts, TextWitness, all_over

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

Source = Literal["forced", "doc", "task name", "detected"]

logger = own_logger("lm_eval.models.hf_clas")

# Languages of computers that have a natural language's code or name, wherever they stand.
_PROGRAMMING = frozenset(("ada", "basic", "lua", "nim"))
_MODERN_STANDARD_ARABIC = "MSA"  # in data of Arabic; its code is that of Malay


def from_doc(doc: object, task: str = "") -> str | None:
    """The language in a document's `language` field, a code or a name in any common form, or None.

    In a task about code, only names count: nearly every short code there is a language of computers, such as `pl` and `ts`.
    """
    value = doc.get("language") if isinstance(doc, dict) else None
    if not isinstance(value, str):
        return None
    value = value.strip()
    if is_code_task(task):
        return from_name(value) if len(value) > 3 else None
    if value == _MODERN_STANDARD_ARABIC:
        return "ar"
    return None if value.casefold() in _PROGRAMMING | SOMETHING_ELSE else parse_language(value)


_Document = tuple[str, int]  # a task and the number of a document


@dataclass(frozen=True)
class Recognized:
    """A request's language and how it was recognised."""

    language: str
    source: Source


class LanguageRouter:
    """Tells the language of each request: the first that answers of forced, doc, the task, detection on the text.

    A task's name and its texts are weighed: texts that are plainly in another language win, with one warning for the task;
    a name that may mean something else counts only if the texts agree. Where neither is sure, each document's own text tells,
    the prompt where that does not, and what neither tells is in the language `und`. The texts are of documents all over the
    task. Where they alone give its language, a document that is plainly in another one is in that.

    Args:
        known: the languages of the masks. Detection is best among them; every source may give any language.
        forced: one language for every request.
        pair: which language counts where a name has two.
        processes: those that recognise requests of the same tasks at the same time, each its share of the documents. They hear
            the texts of all, so that a task has one language in all of them, and that which a single process finds.
        asker: what warnings begin with, such as the model class.
    """

    def __init__(
        self,
        known: Sequence[str],
        forced: str | None = None,
        pair: Pair = "target",
        processes: Processes | None = None,
        asker: str = "clas",
    ) -> None:
        self.known = tuple(known)
        self.forced = forced
        self.pair = pair
        self._processes = processes or Processes()
        self._asker = asker
        self._by_task: dict[str, Recognized | None] = {}

    def recognize(self, requests: Sequence[Instance]) -> list[Recognized]:
        """The language of each request. All choices of one document get one language."""
        if self.forced is not None:
            return [Recognized(self.forced, "forced")] * len(requests)
        prompts: dict[_Document, str] = {}
        documents: dict[_Document, Any] = {}
        told: dict[_Document, Recognized] = {}
        keys = [
            (request.task_name or "", i if request.doc_id is None else request.doc_id) for i, request in enumerate(requests)
        ]
        for key, request in zip(keys, requests, strict=True):
            if language := from_doc(request.doc, key[0]):
                told[key] = Recognized(language, "doc")
                continue
            # The choices of an item share its context; where that is empty, they are the only text there is.
            context = str(request.args[0])
            prompts[key] = context if context.strip() else f"{prompts.get(key, '')}\n{' '.join(map(str, request.args))}"
            documents[key] = request.doc
        self._decide(self._sample(documents, prompts))
        for key, prompt in prompts.items():
            told[key] = self._of_document(self._by_task[key[0]], documents[key], prompt)
        return [told[key] for key in keys]

    def _sample(self, documents: Mapping[_Document, Any], prompts: Mapping[_Document, str]) -> dict[str, list[DocumentTexts]]:
        """Texts of documents all over each task, the same in all processes."""
        mine: dict[str, list[int]] = {}
        for task, number in documents:
            mine.setdefault(task, []).append(number)
        every: dict[str, set[int]] = {}
        for share in self._processes.gather(mine):
            for task, numbers in share.items():
                every.setdefault(task, set()).update(numbers)
        chosen = [
            (task, number)
            for task, numbers in every.items()
            if task not in self._by_task
            for number in map(sorted(numbers).__getitem__, all_over(len(numbers), DOCUMENTS))
        ]
        texts: dict[_Document, DocumentTexts] = {}
        for part in self._processes.gather(
            {one: DocumentTexts.of(documents[one], prompts[one]) for one in chosen if one in documents}
        ):
            texts |= part
        found: dict[str, list[DocumentTexts]] = {task: [] for task in every}
        for one in chosen:
            found[one[0]].append(texts[one])
        return found

    def _decide(self, sample: Mapping[str, Sequence[DocumentTexts]]) -> None:
        """Finds the language of each new task, if it is one for all its requests."""
        siblings = Siblings(sample, installed_siblings)
        for task, of_task in sample.items():
            if task not in self._by_task:
                self._by_task[task] = self._of_task(task, of_task, siblings)

    def _of_task(self, task: str, documents: Sequence[DocumentTexts], siblings: Siblings) -> Recognized | None:
        named = read_task_name(task, siblings)
        if named is not None and named.pair is not None:
            if named.may_be_region and self._witness.only_first(documents, *named.pair):
                return Recognized(named.pair[0], "task name")
            return Recognized(of_pair(named, self.pair) or UNDETERMINED, "task name")  # its texts are in both
        heard = self._witness.hear([one.text for one in documents], named.language if named else None)
        if named is None:
            return Recognized(heard.plainly, "detected") if heard.plainly else None
        if heard.plainly:
            logger.warning(
                "%s: the name of task %s says '%s', but its texts are plainly in '%s', and its requests are taken for "
                "that; give language=%s if the name is right.",
                self._asker,
                task,
                named.language,
                heard.plainly,
                named.language,
            )
            return Recognized(heard.plainly, "detected")
        return Recognized(named.language, "task name") if named.certain or heard.agrees else None

    def _of_document(self, of_task: Recognized | None, document: Any, prompt: str) -> Recognized:
        if of_task is not None and of_task.source == "task name":
            return of_task
        text = DocumentTexts.of(document, prompt).asked_in(prompt)
        if of_task is not None:
            return Recognized(self._witness.contradicts(text, of_task.language) or of_task.language, "detected")
        # The prompt has instructions, examples and a system's text around it, in whatever language.
        found = self._detector.detect(text)
        return Recognized(self._detector.detect(prompt) if found == UNDETERMINED else found, "detected")

    @cached_property
    def _witness(self) -> TextWitness:
        return TextWitness(self.known)

    @cached_property
    def _detector(self) -> Detector:
        return Detector(self.known)
