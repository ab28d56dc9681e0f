"""Which tasks of some runs are one task in several languages."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_clas.comparing.runs import Run
from lm_eval_clas.languages.task_names import from_task_name, task_family, without_language


def families(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """Task names by family and language. Tasks without a language are left out.

    The family is the name without language and split (`clas_xnli`); where the runs have several splits of one family, each is
    a family of its own, and keeps the split's name (`clas_xnli_dev` beside `clas_xnli`).
    """
    by_prefix: dict[str, dict[str, str]] = {}
    for task in sorted({task for run in runs for task in run.tasks}):
        if language := from_task_name(task):
            by_prefix.setdefault(without_language(task), {}).setdefault(language, task)
    family = {prefix: task_family(prefix, ()) for prefix in by_prefix}
    splits = list(family.values())
    return {
        family[prefix] if splits.count(family[prefix]) == 1 else prefix: tasks for prefix, tasks in sorted(by_prefix.items())
    }
