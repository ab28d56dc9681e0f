"""The language of a request: the first that answers of forced, document, task name, detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lm_eval_clas.languages.codes import code_of_name, normalize
from lm_eval_clas.languages.detection import Detector
from lm_eval_clas.languages.task_names import from_task_name

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

Source = Literal["forced", "doc", "task name", "detected"]


def from_doc(doc: object) -> str | None:
    """The language in a document's `language` field, a code or an English name, or None."""
    value = doc.get("language") if isinstance(doc, dict) else None
    if not isinstance(value, str) or not value.strip():
        return None
    return normalize(value) or code_of_name(value)


@dataclass(frozen=True)
class Recognized:
    """A request's language and how it was recognised."""

    language: str
    source: Source


class LanguageRouter:
    """Tells the language of each request: the first that answers of forced, doc, task name, detection on the text.

    Args:
        known: the languages of the masks. Detection chooses among them; the other sources may give any language.
        forced: one language for every request.
    """

    def __init__(self, known: Sequence[str], forced: str | None = None) -> None:
        self.known = tuple(known)
        self.forced = forced
        self._detector: Detector | None = None
        self._by_task: dict[str, str | None] = {}

    def recognize(self, requests: Sequence[Instance]) -> list[Recognized]:
        """The language of each request. All choices of one document get one language."""
        texts: dict[tuple[str | None, object], str] = {}
        found: dict[tuple[str | None, object], Recognized] = {}
        for position, request in enumerate(requests):
            key = self._item(request, position)
            # The choices of an item share its context; where that is empty, they are the only text there is.
            context = str(request.args[0])
            texts[key] = context if context.strip() else f"{texts.get(key, '')}\n{' '.join(map(str, request.args))}"
        recognized = []
        for position, request in enumerate(requests):
            key = self._item(request, position)
            if key not in found:
                found[key] = self._told(request) or Recognized(self._detect(texts[key]), "detected")
            recognized.append(found[key])
        return recognized

    @staticmethod
    def _item(request: Instance, position: int) -> tuple[str | None, object]:
        return request.task_name, position if request.doc_id is None else request.doc_id

    def _told(self, request: Instance) -> Recognized | None:
        if self.forced is not None:
            return Recognized(self.forced, "forced")
        if language := from_doc(request.doc):
            return Recognized(language, "doc")
        name = request.task_name or ""
        if name not in self._by_task:
            self._by_task[name] = from_task_name(name, self.known)
        if language := self._by_task[name]:
            return Recognized(language, "task name")
        return None

    def _detect(self, text: str) -> str:
        if self._detector is None:
            self._detector = Detector(self.known)
        return self._detector.detect(text)
