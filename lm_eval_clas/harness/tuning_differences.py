"""`TuningDifferences`: where a run with tuned strengths is not like the run that tuned them, or not apart from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance

from lm_eval_clas.base.logs import logger
from lm_eval_clas.harness.prompting import note_prompting, prompting_of
from lm_eval_clas.masks.strengths import Tuned, known_hashes

_CALLED = {
    "num_fewshot": "number of shots",
    "apply_chat_template": "chat template",
    "dtype": "dtype",
    "scoring": "scoring path",
    "model": "model",
    "model_args": "model arguments",
}
_Where = tuple[str, str]  # task family and language
_State = tuple[set[tuple[_Where, str]], dict[_Where, set[str]]]


class TuningDifferences:
    """Compares requests with the record of the strength that steers them; what is not recorded is not compared.

    Args:
        tuned: the strengths, with their records.
        asker: the model class, which warnings name.
    """

    def __init__(self, tuned: Tuned, asker: str) -> None:
        self._asker = asker
        self._tuned = tuned
        self._tuned_on: dict[_Where, frozenset[str]] = {}
        self._hashes: dict[tuple[str | None, int | None], set[str]] = {}  # of documents, by task and number
        self._warned: set[str] = set()
        self._otherwise: set[tuple[_Where, str]] = set()
        self._again: dict[_Where, set[str]] = {}
        note_prompting()

    def look(
        self,
        family: str,
        language: str,
        requests: Sequence[Instance],
        computes_in: str,
        scoring: str,
        loaded: Mapping[str, str | None],
    ) -> None:
        """Notes what differs, and warns of each kind of difference once.

        Args:
            family, language: of all the requests.
            computes_in, scoring, loaded: of the model, as `FastLM` has them.
        """
        if (tuned := self._tuned.get(family, {}).get(language)) is None:
            return
        where, known = (family, language), tuned.conditions.model_dump()
        here: set[tuple[str, Any]] = {
            ("dtype", computes_in),
            *((name, value) for name, value in loaded.items() if value is not None),
        }
        if any(request.request_type != "generate_until" for request in requests):
            here.add(("scoring", scoring))
        for prompting in {prompting_of(request) for request in requests} - {None}:
            here |= set(vars(prompting).items())
        for name, value in sorted(here, key=str):
            if known[name] not in (None, value):
                told = f"{_CALLED[name]} {_shown(value)}, tuned with {_shown(known[name])}"
                self._otherwise.add((where, told))
                self._warn(name, f"{told}; another strength may be better here", where)
        if tuned.documents:
            tuned_on = self._tuned_on.setdefault(where, frozenset(tuned.documents.split()))
            if again := set().union(*map(self._hashed, requests)) & tuned_on:
                self._again.setdefault(where, set()).update(again)
                self._warn("items", "items that it was tuned on; their scores are too high: report another split", where)

    def _hashed(self, request: Instance) -> set[str]:
        place = (request.task_name, request.doc_id)
        if place not in self._hashes:
            self._hashes[place] = known_hashes(request.doc)
        return self._hashes[place]

    def _warn(self, kind: str, told: str, where: _Where) -> None:
        if kind not in self._warned:
            logger.warning("%s: alpha=tuned is used for %s in '%s' with %s.", self._asker, *where, told)
        self._warned.add(kind)

    @property
    def state(self) -> _State:
        """What was found by this process."""
        return self._otherwise, self._again

    def gathered(self, every: Iterable[_State]) -> None:
        """Takes what all processes found."""
        otherwise: set[tuple[_Where, str]] = set()
        again: dict[_Where, set[str]] = {}
        for one, other in every:
            otherwise |= one
            for where, hashes in other.items():
                again[where] = again.get(where, set()) | hashes
        self._otherwise, self._again = otherwise, again

    def clear(self) -> None:
        """Forgets what was found: a model may be used for another run, with other documents."""
        self._hashes.clear()
        self._warned.clear()
        self._otherwise, self._again = set(), {}

    def info(self) -> dict[str, str]:
        """What was found, by language and task family, as plain JSON."""
        found: dict[_Where, list[str]] = {}
        for where, told in sorted(self._otherwise):
            found.setdefault(where, []).append(told)
        for where, hashes in sorted(self._again.items()):
            found.setdefault(where, []).append(f"{len(hashes)} of the {self._items(where)} items that it was tuned on")
        return {f"{language} in {family}": "; ".join(told) for (family, language), told in sorted(found.items())}

    def _items(self, where: _Where) -> int:
        return self._tuned[where[0]][where[1]].items


def _shown(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value) or "none"
