"""Which tasks of some runs are one task in several languages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lm_eval_clas.comparing.runs import Run
from lm_eval_clas.languages.task_names import from_task_name, task_family, without_language

OURS = "clas_"  # how the names of our own tasks begin


def is_ours(family: str) -> bool:
    """Whether tasks are this package's own."""
    return family.startswith(OURS)


def families(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """Task names by family and column, which is a language. Tasks without a language are left out.

    The family is the name without language and split (`clas_xnli`); where the runs have several splits of one family, each is
    a family of its own, and keeps the split's name (`clas_xnli_dev` beside `clas_xnli`).

    Several tasks of one language in a family have a column each, which says what tells them apart: `hi-Deva` and `hi-Latn`.
    """
    by_prefix: dict[str, dict[str, list[str]]] = {}
    for task in sorted({task for run in runs for task in run.tasks}):
        if language := from_task_name(task):
            by_prefix.setdefault(without_language(task), {}).setdefault(language, []).append(task)
    family = {prefix: task_family(prefix, ()) for prefix in by_prefix}
    splits = list(family.values())
    return {
        family[prefix] if splits.count(family[prefix]) == 1 else prefix: {
            column: task for language, tasks in by_language.items() for column, task in _columns(language, tasks).items()
        }
        for prefix, by_language in sorted(by_prefix.items())
    }


def language_of(column: str) -> str:
    """The language of a column that `families` made: `hi` of `hi` and of `hi-Latn`."""
    return column.partition("-")[0]


def _columns(language: str, tasks: Sequence[str]) -> dict[str, str]:
    """A column for each of the tasks of one language, called after the words of its name that the others do not all have."""
    words = [re.findall("[A-Za-z0-9]+", task) for task in tasks]
    common = set(words[0]).intersection(*words) if len(tasks) > 1 else set(words[0])
    own = ["-".join([language, *(word for word in of_one if word not in common)]) for of_one in words]
    return dict(zip(own if len(set(own)) == len(own) else [f"{language}-{task}" for task in tasks], tasks, strict=True))
