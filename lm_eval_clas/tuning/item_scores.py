"""`ItemScores`: every item's score of one task under every setting, as a tuning run keeps it in `scores/TASK.json`.

The file is strict JSON: a score that is not a finite number, or that is not there, is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.checked_json import Strict, first_fault, read_json
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.masks.strengths import Conditions, known_hashes, short_hashes

Document = tuple[str, int, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]  # task, number and the harness's hash
ABSENT = object()  # in the place of a score that the task did not give


class LanguageItems(Strict):
    """The items in one language.

    Attributes:
        documents: those that are items.
        values: [settings][items]: numbers, or whatever the metric aggregates; None where there is no finite score.
        without: how many documents have no score under any setting, and are no items.
    """

    documents: list[Document]
    values: list[list[Any]]
    without: int = 0


class ItemScores(Strict):
    """One task.

    Attributes:
        objective, metric: what was measured.
        conditions: under which.
        languages: the items by language.
    """

    task: str
    objective: str
    metric: str
    conditions: Conditions = Conditions()
    languages: dict[str, LanguageItems]

    def write(self, path: Path) -> None:
        """Writes the file.

        Raises:
            ClasError: the task gives something as its metric that JSON does not know.
        """
        try:
            text = json.dumps(self.model_dump(), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ClasError(
                f"The task {self.task} gives for {self.metric} what cannot be kept in a file ({error}); choose another with "
                "--metric, or use --objective loglikelihood."
            ) from error
        write_text(path, text + "\n")

    @classmethod
    def read(cls, path: Path, task: str, settings: int) -> ItemScores:
        """Reads the scores of a task under so many settings.

        Raises:
            ClasError: the file is damaged, or holds something else.
        """
        try:
            scores = cls.model_validate(read_json(path))
            why = scores._strange(task, settings)
        except ValidationError as error:
            why = first_fault(error)
        except ValueError as error:
            why = str(error)
        if why:
            raise ClasError(f"'{path}' is damaged ({why}); delete it, and the same command measures the task again.")
        return scores

    def require_documents(self, documents: Sequence[Any], path: Path) -> None:
        """Refuses scores of other documents than the task has.

        Args:
            documents: of the task, by number.
            path: the file that the scores are from.

        Raises:
            ClasError: there are such scores.
        """
        for _, number, digest in (one for items in self.languages.values() for one in items.documents):
            if number >= len(documents) or short_hashes([digest]) not in known_hashes(documents[number]):
                raise ClasError(
                    f"'{path}' has scores of other documents than {self.task} has now (number {number} is the first): the task "
                    "or its data has changed, or another --include-path has a task of this name; delete the file, and the same "
                    "command measures the task again, or give another --out."
                )

    def _strange(self, task: str, settings: int) -> str:
        if self.task != task:
            return f"it holds the task '{self.task[:80]}'"
        for language, one in self.languages.items():
            if [len(row) for row in one.values] != settings * [len(one.documents)]:
                return f"it does not hold {settings} scores of each item in '{language[:80]}'"
        return ""


def items_of(documents: list[Document], values: list[list[Any]]) -> LanguageItems:
    """The items among documents: those with a score under some setting.

    Args:
        documents: all of a language.
        values: [settings][documents]; `ABSENT` where the task gave none.
    """
    given = [position for position in range(len(documents)) if any(row[position] is not ABSENT for row in values)]
    return LanguageItems(
        documents=[documents[position] for position in given],
        values=[[_plain(row[position]) for position in given] for row in values],
        without=len(documents) - len(given),
    )


def _plain(value: Any) -> Any:
    """What a metric gives for an item, as JSON has it; None if there is nothing, or a number in it is not finite."""
    return None if value is ABSENT or holds(value, lambda number: not math.isfinite(number)) else _numbers_of_python(value)


def holds(value: Any, what: Any) -> bool:
    """Whether any float in a value, at any depth of its lists and tuples, is so."""
    if isinstance(value, (list, tuple)):
        return any(holds(part, what) for part in value)
    value = _numbers_of_python(value)
    return isinstance(value, float) and bool(what(value))


def _numbers_of_python(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_numbers_of_python(part) for part in value]
    return value.tolist() if hasattr(value, "tolist") else value  # NumPy's and torch's scalars and arrays
