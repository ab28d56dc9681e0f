"""The harness's task objects by name, loaded as it loads them."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.near_names import did_you_mean
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.languages.task_index import TaskIndex, installed, read_index

# The harness's defaults.
FEWSHOT_SEED = NUMPY_SEED = 1234
RANDOM_SEED = 0


def load_tasks(names: Sequence[str], include_path: Sequence[str], num_fewshot: int | None = None) -> dict[str, Any]:
    """The harness's task objects by name; groups and tags are taken apart.

    Examples in the prompt are as many and the same as in `lm_eval`: a task that is zero-shot by its own word stays so.

    Raises:
        ClasError: there is no such task.
    """
    folders = tuple(include_path)
    manager = _manager(folders, defaults=not _alone(_own_index(folders), names))
    if missing := [name for name in names if name not in manager.all_tasks]:
        raise no_tasks(missing, manager.all_tasks)
    with _seeded():
        tasks = tasks_of(manager, names)
    for task in tasks.values():
        own = task.get_config("num_fewshot")
        if own is None or (num_fewshot is not None and own != 0):
            task.set_config(key="num_fewshot", value=num_fewshot or 0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return tasks


def no_tasks(names: Iterable[str], known: Collection[str], more: str = ", --include-path adds folders") -> ClasError:
    """What is said of names that are no task's.

    Args:
        names: they.
        known: all names of tasks, groups and tags.
        more: where else tasks may come from.
    """
    told = ", ".join(f"{name}{did_you_mean(name, known)}" for name in names)
    return ClasError(f"There is no task {told}; 'lm_eval ls tasks' lists them{more}.")


def require_tasks(names: Iterable[str]) -> None:
    """Refuses names that neither our tasks have nor the harness's, without loading any.

    Raises:
        ClasError: there are some.
    """
    own = _own_index((str(shipped("tasks")),)).members
    if others := [name for name in names if name not in own]:
        known = own.keys() | installed().members.keys()
        if missing := [name for name in others if name not in known]:
            raise no_tasks(missing, known, more="")


@contextmanager
def _seeded() -> Iterator[None]:
    """Chance is inside the block what it is when `lm_eval` loads tasks, some of which shuffle choices then."""
    before, of_numpy = random.getstate(), np.random.get_state()
    random.seed(RANDOM_SEED)
    np.random.seed(NUMPY_SEED)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(of_numpy)


def other_splits(names: Sequence[str], include_path: Sequence[str]) -> list[str]:
    """What to evaluate after tuning: the test splits of tasks whose names end in `tune`, where there are any.

    Args:
        names: of tasks and groups.
        include_path: more folders of tasks than ours.
    """
    own = _own_index((str(shipped("tasks")), *include_path)).members

    def other(name: str) -> str:
        found = re.sub("[_-]tune(?=[_-]|$)", "", name)
        return found if found != name and (found in own or found in installed().members) else name

    return [other(name) for name in names]


def tasks_of(manager: Any, names: Sequence[str]) -> dict[str, Any]:
    """The task objects that names of tasks, groups and tags stand for, in their order."""
    if hasattr(manager, "load"):
        return dict(manager.load(list(names))["tasks"])
    from lm_eval.tasks import get_task_dict

    # Before lm-eval 0.4.12: groups within groups, and several names back to front.
    return dict(leaf for name in names for leaf in _leaves(get_task_dict([name], manager)))


@cache
def _own_index(include_path: tuple[str, ...]) -> TaskIndex:
    """The names in some folders, without the harness's own."""
    return read_index([Path(one) for one in include_path], defaults=False)


def _alone(own: TaskIndex, names: Sequence[str]) -> bool:
    """Whether the names, and all that they stand for, are in these folders, which win over the harness's own tasks."""
    return all(one in own.members for name in names for one in own.tasks(name))


@cache
def _manager(include_path: tuple[str, ...], *, defaults: bool) -> Any:
    """The harness's index of tasks. That of its own, which are more than ten thousand files, takes seconds to make."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=list(include_path), include_defaults=defaults)


def _leaves(tasks: Mapping[Any, Any]) -> Iterable[tuple[str, Any]]:
    for name, task in tasks.items():
        if isinstance(task, Mapping):
            yield from _leaves(task)
        else:
            yield str(name), task
