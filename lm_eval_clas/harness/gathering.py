"""How the harness's shares of documents become the results of a single process.

The harness gives process r of n the documents r, r + n, ... of each task, and puts the processes' results one behind the
other. Here they come in the order of documents, so that samples, and standard errors from resampling, are those of one process;
and a task may have fewer documents than there are processes, which the harness alone does not allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import chain, islice, zip_longest
from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.task import Task

from lm_eval_clas.base.errors import ClasError

_lent: set[str] = set()


def lent(task: str | None) -> bool:
    """Whether the process has no document of a task of its own, and answers one that counts elsewhere."""
    return task in _lent


def prepare_harness() -> None:
    """Makes the harness ready for several processes: none is left without any document of a task.

    The harness fails in a process that has nothing to do for a task. Such a one gets the first document, whose answers are
    left out of the results.

    Raises:
        ClasError: this version of the harness gathers results without asking the model.
    """
    if not hasattr(LM, "gather_object"):
        raise ClasError("Several processes need lm-eval 0.4.12 or newer; install it, or start without a launcher.")
    original = Task.doc_iterator
    if hasattr(original, "lends"):
        return

    @wraps(original)
    def doc_iterator(self: Task, *, rank: int = 0, world_size: int = 1, **options: Any) -> Iterator[tuple[int, Any]]:
        own: Iterator[tuple[int, Any]] = iter(original(self, rank=rank, world_size=world_size, **options))
        if rank == 0:
            return own
        name = self.config.task
        _lent.discard(name)
        for first in own:
            return chain([first], own)
        _lent.add(name)
        return islice(original(self, rank=0, world_size=1, **options), 1)

    doc_iterator.lends = True  # type: ignore[attr-defined]
    Task.doc_iterator = doc_iterator


def own_results(found: Any) -> Any:
    """What the harness gathers, without lent documents: a dict by task; anything else stays as it is."""
    return {task: results for task, results in found.items() if not lent(task)} if isinstance(found, dict) else found


def in_order(parts: Sequence[Any]) -> list[Any]:
    """Puts gathered results into the order of documents: all of them first, and nothing in the place of other processes.

    Args:
        parts: by process, what the harness gathers: samples by task, or by task values by metric and filter. Anything
            else is left as it is.

    Raises:
        ClasError: a metric occurs only in documents of other processes than the first, where the harness would lose it.
    """
    if not all(isinstance(part, dict) for part in parts):
        return list(parts)
    samples = {task: [part[task] for part in parts if task in part] for task in parts[0]}
    values = list(chain.from_iterable(samples.values()))
    if all(map(_are_samples, values)):
        nothing: dict[str, Any] = {task: [] for task in samples}
        return [{task: _samples_in_order(lists) for task, lists in samples.items()}, *[nothing] * (len(parts) - 1)]
    if all(isinstance(one, dict) and all(isinstance(each, list) for each in one.values()) for one in values):
        nothing = {task: {metric: [] for metric in dicts[0]} for task, dicts in samples.items()}
        return [{task: _metrics_in_order(task, dicts) for task, dicts in samples.items()}, *[nothing] * (len(parts) - 1)]
    return list(parts)


def _are_samples(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and {"doc_id", "filter"} <= set(one) for one in value)


def _samples_in_order(parts: Iterable[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    by_filter: dict[str, list[list[Mapping[str, Any]]]] = {}
    for part in parts:
        own: dict[str, list[Mapping[str, Any]]] = {}
        for sample in part:
            own.setdefault(sample["filter"], []).append(sample)
        for name, found in own.items():
            by_filter.setdefault(name, []).append(found)
    return [sample for lists in by_filter.values() for sample in _in_turn(lists)]


def _metrics_in_order(task: str, parts: Sequence[Mapping[Any, list[Any]]]) -> dict[Any, list[Any]]:
    if elsewhere := {metric for part in parts for metric in part} - set(parts[0]):
        raise ClasError(
            f"The task {task} has metrics that only some documents give ({', '.join(sorted(map(str, elsewhere)))}), which the "
            "harness cannot gather; evaluate it in one process."
        )
    return {metric: _in_turn([part[metric] for part in parts if metric in part]) for metric in parts[0]}


def _in_turn(lists: Iterable[Sequence[Any]]) -> list[Any]:
    """The first of each list, then the second of each, and so on."""
    missing = object()
    return [one for row in zip_longest(*lists, fillvalue=missing) for one in row if one is not missing]
