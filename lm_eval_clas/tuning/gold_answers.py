"""`GoldAnswers`: which of a document's requests, or which text, is its gold answer, as the harness takes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lm_eval.api.utils import ends_with_whitespace

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.logs import logger
from lm_eval_clas.disk.checked_json import shown


class GoldAnswers:
    """The gold answers of a task of the harness.

    Of a multiple choice, the harness takes a whole number, or a text of digits that a template makes, as a position among the
    choices, any other text as one of them, and any of several as right; of tasks whose choices are contexts (XWinograd,
    Winogrande), the position is what `doc_to_text` gives. Where that leaves documents without a gold answer, and digits are
    among the choices themselves, they are taken as such.

    Args:
        name: of the task.
        task: the harness's object.
        limit: as `lm_eval` has it: only so many documents are looked at.
        apply_chat_template: whether prompts go through the model's chat template.

    Raises:
        ClasError: a document has no gold answer.
    """

    def __init__(self, name: str, task: Any, limit: int | None = None, apply_chat_template: bool = False) -> None:
        self._name = name
        self._task = task
        self._templated = apply_chat_template
        self._positions: dict[int, list[int]] = {}
        if task.OUTPUT_TYPE == "multiple_choice":
            self._find_positions(limit)
        elif task.OUTPUT_TYPE == "generate_until":
            for number, doc in self._documents(limit):
                self._text(number, doc)

    @property
    def generated(self) -> bool:
        """Whether the task asks for a text, and the gold one is to be scored in its place."""
        return bool(self._task.OUTPUT_TYPE == "generate_until")

    def text(self, doc: Any) -> str:
        """The first gold answer of a task that generates, as the harness would ask for it as a choice."""
        return f"{_delimiter(self._task.config, self._templated)}{self._text(None, doc)}"

    def log_likelihood(self, number: int, responses: Any) -> float:
        """That of the gold answer, in nats; of several, the likeliest's, as each of them is right.

        Args:
            number: of the document.
            responses: the harness's record of the answers to a document's requests.
        """
        positions = self._positions.get(number, [0])  # tasks of other kinds than multiple choice ask for nothing else
        answers = [responses[position][0] for position in positions]
        found = [float(one[0] if isinstance(one, (list, tuple)) else one) for one in answers]
        return max(found, key=lambda one: (one != one, one))  # NaN, if one of them is

    def _documents(self, limit: int | None) -> Iterator[tuple[int, Any]]:
        return ((int(number), doc) for number, doc in self._task.doc_iterator(rank=0, limit=limit, world_size=1))

    def _find_positions(self, limit: int | None) -> None:
        documents = list(self._documents(limit))
        found = {number: self._as_harness(doc) for number, doc in documents}
        texts = {number: self._as_texts(doc) for number, doc in documents}
        if texts != found and all(texts.values()) and self._digits_are_texts():
            logger.warning(
                "clas tune: the labels of %s are digits that are choices themselves, and are taken as such; lm_eval takes them "
                "as positions from 0 on, and so scores another choice: give doc_to_target the field's name without braces.",
                self._name,
            )
            found = texts
        for number, doc in documents:
            if not found[number]:
                raise self._without(number, self._label(doc))
        self._positions = found

    def _digits_are_texts(self) -> bool:
        """Whether labels can be choices and cannot be positions, in all of the task's documents."""
        documents = [doc for _, doc in self._documents(None)]
        return all(map(self._as_texts, documents)) and not all(map(self._as_harness, documents))

    @property
    def _of_contexts(self) -> bool:
        return bool(getattr(self._task, "multiple_input", 0))

    def _label(self, doc: Any) -> Any:
        return self._task.doc_to_text(doc) if self._of_contexts else self._task.doc_to_target(doc)

    def _as_harness(self, doc: Any) -> list[int]:
        """The positions that the harness counts as right."""
        choices, label = list(self._task.doc_to_choice(doc)), self._label(doc)
        golds = label if isinstance(label, list) else [label]
        if isinstance(label, str):
            golds = [choices.index(label)] if label in choices else []
        return [int(one) for one in golds if isinstance(one, int) and 0 <= one < len(choices)]

    def _as_texts(self, doc: Any) -> list[int]:
        """The position of the choice that the label is, written out."""
        choices, label = [str(one) for one in self._task.doc_to_choice(doc)], str(self._label(doc))
        return [choices.index(label)] if label in choices and not self._of_contexts else []

    def _text(self, number: int | None, doc: Any) -> str:
        gold = self._task.doc_to_target(doc)
        if self._task.config.doc_to_choice is not None:
            positions = self._as_harness(doc)
            gold = self._task.doc_to_choice(doc)[positions[0]] if positions else None
        gold = gold[0] if isinstance(gold, list) and gold else gold
        if isinstance(gold, (int, float)) and not isinstance(gold, bool):
            gold = str(gold)
        if not isinstance(gold, str) or not gold.strip():
            raise self._without(number, gold)
        return gold

    def _without(self, number: int | None, label: Any) -> ClasError:
        which = "a document" if number is None else f"document {number}"
        return ClasError(
            f"--objective loglikelihood: {which} of the task {self._name} has no gold answer (its label is "
            f"{shown(repr(label), 40)}), as where a test split hides its labels; use another split, or leave the task out."
        )


def _delimiter(config: Any, apply_chat_template: bool) -> str:
    """What the harness puts between a prompt and a choice: nothing where the turn of the answer has just begun."""
    begun = apply_chat_template and (not config.gen_prefix or ends_with_whitespace(config.gen_prefix))
    return "" if begun else str(config.target_delimiter)
