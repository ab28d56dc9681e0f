"""The names that the installed harness knows, from its task files alone: no task is built, no data loaded, no code run."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml


class _TaskFileLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML and passes over the harness's `!function` tags."""


_TaskFileLoader.add_multi_constructor("!", lambda loader, suffix, node: None)


@dataclass(frozen=True)
class TaskIndex:
    """Every name on some paths: tasks, groups and tags.

    Attributes:
        members: of each group or tag, in order, the names in it; empty for a task.
    """

    members: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def tasks(self, name: str) -> list[str]:
        """The tasks that a name stands for, which is itself for a task; each once."""
        found: dict[str, None] = {}
        waiting, seen = [name], set()
        while waiting:
            one = waiting.pop(0)
            if one in seen:
                continue
            seen.add(one)
            below = self.members.get(one, ())
            waiting = [*below, *waiting]
            if not below:
                found[one] = None
        return list(found)

    def match(self, pattern: str) -> list[str]:
        """The names that a name or a pattern with wildcards stands for, as the harness matches them."""
        return [pattern] if pattern in self.members else fnmatch.filter(self.members, pattern)


def read_index(include_paths: Sequence[Path] = (), *, defaults: bool = True) -> TaskIndex:
    """The names in the harness's own task files and in further folders, which win.

    Files that are no task files, or cannot be read, are passed over, as the harness does.
    """
    members = dict(installed().members) if defaults else {}
    for root in include_paths:
        members |= _read_folder(root)
    return TaskIndex(dict(sorted(members.items())))


@lru_cache(maxsize=1)
def installed() -> TaskIndex:
    """The index of the installed harness, read once: a second or two."""
    return TaskIndex(dict(sorted(_read_folder(_harness()).items())))


def _read_folder(root: Path) -> dict[str, tuple[str, ...]]:
    own: dict[str, tuple[str, ...]] = {}
    tags: dict[str, dict[str, None]] = {}
    read = _WithIncludes()
    for path in sorted(root.resolve().glob("**/*.yaml"), key=lambda path: path.as_posix()):
        try:
            _add(read(path, ()), own, tags)
        except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError):
            continue
    return {**{tag: tuple(tasks) for tag, tasks in tags.items()}, **own}


def _harness() -> Path:
    found = importlib.util.find_spec("lm_eval")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "tasks"


class _WithIncludes:
    """Task files with what they include; what many include is read once."""

    def __init__(self) -> None:
        self._whole: dict[Path, dict[str, Any]] = {}

    def __call__(self, path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
        if path in self._whole:
            return self._whole[path]
        if path in above:
            raise ValueError(f"{path} includes itself")
        content = yaml.load(path.read_bytes(), _TaskFileLoader)
        if not isinstance(content, dict):
            raise ValueError(f"{path} is no mapping")
        included = content.pop("include", [])
        merged: dict[str, Any] = {}
        for one in included if isinstance(included, list) else [included]:
            merged |= self(Path(os.path.normpath(path.parent / one)), (*above, path))
        self._whole[path] = {**merged, **content}
        return self._whole[path]


def _add(content: dict[str, Any], own: dict[str, tuple[str, ...]], tags: dict[str, dict[str, None]]) -> None:
    if "group" in content and "class" not in content:
        own.setdefault(content["group"], tuple(_names(content.get("task") or ())))
    elif "task" in content and content["task"] not in own:
        name = content["task"]
        own[name] = ()
        tag = content.get("tag") or ()
        for one in [tag] if isinstance(tag, str) else tag:
            tags.setdefault(one, {})[name] = None


def _names(listed: str | Iterable[Any]) -> Iterable[str]:
    for one in [listed] if isinstance(listed, str) else listed:
        name = one.get("task") or one.get("group") if isinstance(one, dict) else one
        if isinstance(name, str):
            yield name
        elif isinstance(name, list):
            yield from _names(name)
