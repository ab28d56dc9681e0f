"""The harness's index of its own tasks, which are more than ten thousand files, is made once a process; it takes seconds.

It is made for a command that evaluates (`clas eval`), and for one that is given the name of no task.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lm_eval import tasks

OWN = Path(tasks.__file__).parent
_made: list[dict[str, Any]] = []

if hasattr(tasks.TaskManager, "_get_task_and_group"):  # before lm-eval 0.4.12
    _of_folder = tasks.TaskManager._get_task_and_group

    def _once(self: tasks.TaskManager, task_dir: str) -> dict[str, Any]:
        if Path(task_dir) != OWN:
            return _of_folder(self, task_dir)
        _made[:] = _made or [_of_folder(self, task_dir)]
        return _made[0]

    tasks.TaskManager._get_task_and_group = _once
else:
    from lm_eval.tasks._index import TaskIndex

    _of_folders = TaskIndex.build

    def _first_once(paths: Iterable[Path]) -> dict[str, Any]:
        if (folders := list(paths))[:1] != [OWN]:
            return _of_folders(folders)
        _made[:] = _made or [_of_folders([OWN])]
        return _made[0] | _of_folders(folders[1:])

    TaskIndex.build = staticmethod(_first_once)
