"""Which tasks of some runs are one task in several languages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lm_eval_clas.results import Run
from lm_eval_clas.task_names import from_task_name, without_language
from lm_eval_clas.tuned import task_family

# Languages of the usual multilingual suites, for tasks that have theirs in the middle of their names or spell it out.
# A code that is an English word or a common part of names (id, is, it, no, or, pro) is left out.
_USUAL = {"ar", "bg", "bn", "de", "el", "en", "es", "fa", "fr", "he", "hi", "ja", "ko", "nl", "pl", "pt", "ro", "ru", "sw"}
_USUAL |= {"ta", "te", "th", "tr", "uk", "ur", "vi", "yo", "zh"}


def families(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """Task names by family and language. Tasks without a language are left out.

    The family is the name without language and split (`clas_xnli`); where the runs have several splits of one family, each is
    a family of its own, and keeps the split's name (`clas_xnli_dev` beside `clas_xnli`).
    """
    known = _known(runs)
    by_prefix: dict[str, dict[str, str]] = {}
    for task in sorted({task for run in runs for task in run.tasks}):
        if language := from_task_name(task, known):
            by_prefix.setdefault(without_language(task, known), {}).setdefault(language, task)
    family = {prefix: task_family(prefix, ()) for prefix in by_prefix}
    splits = list(family.values())
    return {
        family[prefix] if splits.count(family[prefix]) == 1 else prefix: tasks for prefix, tasks in sorted(by_prefix.items())
    }


def _known(runs: Iterable[Run]) -> frozenset[str]:
    steered = {language for run in runs for language in run.steering.get("languages", {})}
    return frozenset(_USUAL | steered - {"und"})
