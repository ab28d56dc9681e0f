"""`config.clas`, what a results file tells of the steering: which of it decides the answers, and how entries become one.

`CLASLM.steering_info` writes it; whoever reads results files, or keeps answers apart by their steering, asks here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# The methods that CLAS must beat to mean anything: its own factors, without knowing which neuron they belong to.
CONTROLS = {"uniform": "uniform gain", "random": "random masks"}

# Where the masks came from and how they were made: their hash says what they are.
_WHENCE = ("masks", "masks_repository", "masks_revision", "site", "specific")
# What happened in the run, by language or task.
_HAPPENED = ("languages", "left_alone", "witness", "unlike_tuning")
_NOT_DECIDING = frozenset(("version", "scoring", *_WHENCE, *_HAPPENED))
# What the entries of one run's tasks tell of their own tasks each.
_OF_TASKS = ("left_alone", "tuned", "unlike_tuning")


def deciding(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What of an entry decides the answers: method, strengths, layers, scopes, the masks' hash, and so on."""
    return {name: value for name, value in entry.items() if name not in _NOT_DECIDING}


def joined(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One entry for all tasks of a run, from those of its results files, the newest last.

    Requests are added up by language, and what is told of tasks is put together. Whatever else differs is the newest's.
    """
    together = dict(entries[-1])
    languages: dict[str, Any] = {}
    for entry in entries:
        for language, told in entry.get("languages", {}).items():
            known = languages.setdefault(language, {"requests": 0, "recognized": {}})
            known["requests"] += told.get("requests", 0)
            for source, count in told.get("recognized", {}).items():
                known["recognized"][source] = known["recognized"].get(source, 0) + count
    of_tasks = {key: {name: one for entry in entries for name, one in entry.get(key, {}).items()} for key in _OF_TASKS}
    return together | {key: value for key, value in {**of_tasks, "languages": languages}.items() if value}
