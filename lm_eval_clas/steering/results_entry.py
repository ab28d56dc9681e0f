"""`config.clas`, what a results file tells of the steering: which of it decides the answers, and how entries become one.

`CLASLM.steering_info` writes it; whoever reads results files, or keeps answers apart by their steering, asks here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_clas.languages.task_names import task_family
from lm_eval_clas.steering.methods.method_table import METHODS

# The methods that others must beat to mean anything: as strong as these, without knowing what they know.
CONTROLS = {name: method.control for name, method in METHODS.items() if method.control}

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


def seed_of(entry: Mapping[str, Any]) -> int | None:
    """The seed of what was drawn by chance; None where nothing was."""
    method = METHODS.get(str(entry.get("method")))
    return int(entry.get("seed", 0)) if method is not None and method.seeded else None


def left_alone(entry: Mapping[str, Any], language: str, family: str) -> str:
    """Why a run left a language alone in a task family; empty if it did not, or does not tell."""
    language = str(entry.get("forced_language") or language)
    family = task_family(family)
    found: Any = entry.get("tuned")
    for key in (family, language, "alpha"):
        found = found.get(key) if isinstance(found, Mapping) else None
    reasons = {f"{language} in {family}": "tuned to 0"} if found == 0 else {}  # older results do not tell
    told = entry.get("left_alone")
    reasons |= told if isinstance(told, Mapping) else {}
    return str(reasons.get(language) or reasons.get(f"{language} in {family}", ""))


def joined(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One entry for all tasks of a run, from those of its results files, the newest last.

    Requests are added up by language, and so is what the witness saw; what is told of tasks is put together. Whatever else
    differs is the newest's.
    """
    together = dict(entries[-1])
    languages: dict[str, Any] = {}
    witness: dict[str, Any] = {}
    for entry in entries:
        for language, told in entry.get("languages", {}).items():
            languages[language] = _added(languages[language], told) if language in languages else told
        for key, seen in entry.get("witness", {}).items():
            witness[key] = _seen_twice(witness[key], seen) if key in witness else seen
    of_tasks = {key: {name: one for entry in entries for name, one in entry.get(key, {}).items()} for key in _OF_TASKS}
    found = {**of_tasks, "languages": languages, "witness": witness}
    return together | {key: value for key, value in found.items() if value}


def positions_told(by_layer: Mapping[Any, int]) -> int | dict[str, int]:
    """Positions as the witness tells them: one number where all layers have the same, or one by layer."""
    counts = set(by_layer.values())
    return counts.pop() if len(counts) == 1 else {str(layer): count for layer, count in by_layer.items()}


def positions_by_layer(seen: Mapping[str, Any]) -> dict[str, int]:
    """The same in the other direction, by layer in any case."""
    positions = seen.get("positions", 0)
    return dict(positions) if isinstance(positions, Mapping) else dict.fromkeys(map(str, seen.get("layers", ())), positions)


def _added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of the requests of one language in two files."""
    both = {**one, **other, "requests": one.get("requests", 0) + other.get("requests", 0)}
    both["recognized"] = _sums(one.get("recognized", {}), other.get("recognized", {}))
    if cached := one.get("from_cache", 0) + other.get("from_cache", 0):
        both["from_cache"] = cached
    return both


def _seen_twice(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What was seen of one language in two files; without the factors' hash if they were steered by two."""
    both = {**one, **other, "requests": one.get("requests", 0) + other.get("requests", 0)}
    layers = sorted({*one.get("layers", ()), *other.get("layers", ())})
    counts = _sums(positions_by_layer(one), positions_by_layer(other))
    both |= {"positions": positions_told({str(layer): counts.get(str(layer), 0) for layer in layers}), "layers": layers}
    if one.get("factors_hash") != other.get("factors_hash"):
        del both["factors_hash"]
    return both


def _sums(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in (*one, *(key for key in other if key not in one))}
