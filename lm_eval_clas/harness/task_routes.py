"""What language the requests of tasks get, from which evidence, and whether they would be steered: `clas route`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.near_names import nearest
from lm_eval_clas.languages.codes import UNDETERMINED
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.languages.sibling_names import Siblings
from lm_eval_clas.languages.task_index import TaskIndex
from lm_eval_clas.languages.task_names import Pair, of_pair, read_task_name

EVERY_NAME = "all"


@dataclass(frozen=True)
class TaskRoute:
    """The language of a task's requests, or of some of them.

    Attributes:
        task: its name.
        language: the code; None where nothing but the texts can tell.
        source: where the language is from, as the results file has it: `task name`, `doc` or `detected`.
        steered: whether it would be steered; None where that cannot be told.
        why: in words.
    """

    task: str
    language: str | None
    source: str
    steered: bool | None
    why: str


@dataclass(frozen=True)
class Steerable:
    """The languages that are steered, as masks or a user name them; both None where nobody did."""

    languages: tuple[str, ...] | None = None
    anchor: str | None = None

    def judge(self, language: str) -> tuple[bool | None, str]:
        """Whether a language is steered, and why or why not."""
        if language == UNDETERMINED:
            return False, "not recognised"
        if self.languages is None:
            return None, "no masks were given"
        known = as_known(language, self.languages)
        also = "" if known == language else f", as '{known}'"
        if known == self.anchor:
            return False, f"the anchor{also}"
        if known not in self.languages:
            return False, "not in the masks"
        return True, f"in the masks{also}"


def find_tasks(wanted: Sequence[str], index: TaskIndex) -> list[str]:
    """The tasks that names, groups, tags and wildcards stand for, each once; with `all`, every name, groups and tags too.

    Raises:
        ClasError: one of them is the name of nothing; it says which names are nearest.
    """
    found: dict[str, None] = {}
    for one in wanted:
        if one == EVERY_NAME and EVERY_NAME not in index.members:
            found |= dict.fromkeys(index.members)
            continue
        names = index.match(one)
        if not names:
            near = nearest(one, index.members, most=3)
            hint = f"the nearest names are {', '.join(near)}" if near else "'lm_eval ls tasks' lists them"
            raise ClasError(f"There is no task, group or tag '{one}'; {hint}, and --include-path adds folders.")
        found |= dict.fromkeys(task for name in names for task in index.tasks(name))
    return list(found)


def route_by_name(tasks: Iterable[str], index: TaskIndex, steerable: Steerable, pair: Pair) -> list[TaskRoute]:
    """The routes of tasks, as far as their names tell; no data is loaded."""
    siblings = Siblings(index.members)
    return [_by_name(task, siblings, steerable, pair) for task in tasks]


def _by_name(task: str, siblings: Siblings, steerable: Steerable, pair: Pair) -> TaskRoute:
    named = read_task_name(task, siblings)
    if named is None:
        return TaskRoute(task, None, "detected", None, "its name gives no language, so its texts tell")
    language = of_pair(named, pair)
    unless = f" unless its texts are plainly in '{named.pair[0]}' alone" if named.pair and named.may_be_region else ""
    if language is None:
        return TaskRoute(task, UNDETERMINED, "task name", False, f"{_two(named.pair)}, and neither counts{unless}")
    steered, why = steerable.judge(language)
    if named.pair:
        why = f"{_two(named.pair)}, of which the {pair} counts{unless}; {why}"
    elif not named.certain:
        why = f"'{task[slice(*named.span)]}' may mean something else, so the texts must agree; {why}"
    return TaskRoute(task, language, "task name", steered, why)


def _two(pair: tuple[str, str] | None) -> str:
    return "" if pair is None else f"'{pair[0]}' and '{pair[1]}' in its name"


def route_by_texts(
    tasks: Sequence[str], include_paths: Sequence[Path], steerable: Steerable, pair: Pair, documents: int
) -> list[TaskRoute]:
    """The routes of tasks by name and by documents all over them, as a run has them; one for each language that a task has.

    A task whose data cannot be had is told by its name alone, with the reason.
    """
    from lm_eval_clas.harness.task_loading import load_tasks
    from lm_eval_clas.languages.routing import LanguageRouter
    from lm_eval_clas.languages.task_index import read_index

    found = []
    index = read_index(include_paths)
    router = LanguageRouter(steerable.languages or (), pair=pair)
    for name in tasks:
        try:
            (task,) = load_tasks([name], [str(path) for path in include_paths]).values()
            requests = _requests(name, task, documents)
        except ClasError:
            raise
        except Exception as error:  # whatever a data set's host, or a task's own code, does
            route = _by_name(name, Siblings(index.members), steerable, pair)
            why = f"{route.why}; its data cannot be loaded ({type(error).__name__})"
            found.append(TaskRoute(name, route.language, route.source, route.steered, why))
            continue
        counts = Counter(router.recognize(requests))
        for recognized, count in counts.most_common():
            steered, why = steerable.judge(recognized.language)
            if len(counts) > 1:
                why = f"{count} of {len(requests)} documents; {why}"
            found.append(TaskRoute(name, recognized.language, recognized.source, steered, why))
    return found


def _requests(name: str, task: Any, documents: int) -> list[Any]:
    from lm_eval.api.instance import Instance

    from lm_eval_clas.languages.text_witness import all_over

    every = task.eval_docs
    chosen = ((number, every[number]) for number in all_over(len(every), documents))
    return [
        Instance("loglikelihood", doc, (str(task.doc_to_text(doc)), ""), 0, metadata=(name, number, 1))
        for number, doc in chosen
    ]
