"""Log-likelihoods with no work that nobody reads.

The harness turns every position of every sequence into log-probabilities of the whole vocabulary and then reads the
continuation's. `Scorer` computes the logits of the positions that are read (`logits.py`), and runs what several requests
have in common once (`prefixes.py`). The answers are the same up to float noise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from lm_eval_clas.decoder.below_head import bare_model
from lm_eval_clas.decoder.logits import RowLogits, padded
from lm_eval_clas.decoder.prefixes import Continuation, Group, can_share_prefixes, group_by_prefix

# Suffixes are short beside their prefix, so more of them than a batch has sequences fit into one pass.
_SUFFIXES_PER_SEQUENCE = 4


class Answer(NamedTuple):
    """The position of a request in the list, its log-likelihood in nats, and whether it is the greedy choice."""

    position: int
    log_likelihood: float
    is_greedy: bool


class Scorer:
    """Scores continuations with a Hugging Face causal language model.

    Args:
        model: the model, bare or wrapped by PEFT.
        device: where inputs go.
        dtype: in which probabilities are normalised; default: float32.

    Raises:
        HeadError: the model has no output embeddings, or no decoder below them.
    """

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self._logits = RowLogits(model)
        self._device = device
        self._dtype = dtype or torch.float32
        bare = bare_model(model)
        self._config = bare.config
        self._shares = can_share_prefixes(bare)

    def plan(self, requests: Sequence[Continuation]) -> list[Group]:
        """Groups of requests that run together, the longest first."""
        return group_by_prefix(requests, self._shares)

    @torch.no_grad()
    def score(self, groups: Sequence[Group], requests: Sequence[Continuation]) -> list[Answer]:
        """Scores a batch of `plan`'s groups; it takes one forward pass, and one or more for suffixes.

        Raises:
            HeadError: the model does not call its output embeddings as a module.
        """
        found = _Found()
        if any(group.has_suffixes for group in groups):
            self._score_with_suffixes(groups, requests, found)
        else:
            reads = _Reads(requests)
            for row, group in enumerate(groups):
                reads.add(row, 0, group, ())
            # Padded on the right and without a mask, as the harness does it: nothing looks at what comes after it.
            inputs = padded([group.prefix for group in groups], self._device, left=False)
            self._run(reads, found, input_ids=inputs, use_cache=False)
        return found.answers()

    def _score_with_suffixes(self, groups: Sequence[Group], requests: Sequence[Continuation], found: _Found) -> None:
        # Prefixes are padded on the left, so that each suffix follows its prefix at once, as sliding windows count.
        inputs = padded([group.prefix for group in groups], self._device, left=True)
        mask = padded([(1,) * len(group.prefix) for group in groups], self._device, left=True)
        reads = _Reads(requests)
        for row, group in enumerate(groups):
            for suffix in group.members:
                reads.add(row, inputs.shape[1] - len(group.prefix), group, suffix, in_prefix=True)
        cache = DynamicCache(config=self._config)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        self._run(reads, found, cache, input_ids=inputs, attention_mask=mask, use_cache=True, position_ids=positions)
        ends = [(row, suffix) for row, group in enumerate(groups) for suffix in group.members if suffix]
        ends.sort(key=lambda end: len(end[1]), reverse=True)
        at_once = _SUFFIXES_PER_SEQUENCE * len(groups)
        for part in (ends[start : start + at_once] for start in range(0, len(ends), at_once)):
            rows = torch.tensor([row for row, _ in part], device=self._device)
            inputs = padded([suffix for _, suffix in part], self._device, left=False)
            reads = _Reads(requests)
            for i, (row, suffix) in enumerate(part):
                reads.add(i, 0, groups[row], suffix)
            positions = mask[rows].sum(-1, keepdim=True) + torch.arange(inputs.shape[1], device=self._device)
            self._run(
                reads,
                found,
                _select(cache, rows),
                input_ids=inputs,
                attention_mask=torch.cat([mask[rows], torch.ones_like(inputs)], dim=-1),
                use_cache=True,
                position_ids=positions,
            )

    def _run(self, reads: _Reads, found: _Found, cache: DynamicCache | None = None, **inputs: Any) -> None:
        rows = torch.tensor(list(reads.rows) or [(0, 0)])  # a prefix of which nothing is read still fills the cache
        row_of, targets = torch.tensor(reads.row_of, dtype=torch.long), torch.tensor(reads.targets, dtype=torch.long)
        start = 0
        for chunk in self._logits(rows, cache, **inputs):
            here = ((row_of >= start) & (row_of < start + len(chunk))).nonzero().squeeze(-1)
            local = (row_of[here] - start).to(chunk.device)
            wanted = targets[here].to(chunk.device)
            chunk = chunk.to(self._dtype)
            log_probabilities = chunk[local, wanted] - chunk.logsumexp(-1)[local]
            found.add([reads.owners[i] for i in here.tolist()], log_probabilities, chunk.argmax(-1)[local] == wanted)
            start += len(chunk)


def _select(cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
    """A cache of its own for each of `rows`, int64 [suffixes], which name sequences and may repeat."""
    selected = copy.copy(cache)
    selected.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in selected.layers:
        layer.batch_select_indices(rows.to(layer.keys.device))
    return selected


class _Reads:
    """Which positions of a pass are read, for which target tokens of which requests."""

    def __init__(self, requests: Sequence[Continuation]) -> None:
        self._requests = requests
        self.rows: dict[tuple[int, int], int] = {}  # (sequence, position) to its place among those that are read
        self.row_of: list[int] = []  # for each read
        self.targets: list[int] = []
        self.owners: list[int] = []

    def add(self, sequence: int, padding: int, group: Group, suffix: tuple[int, ...], in_prefix: bool = False) -> None:
        """Notes what is read of the requests that end in `suffix`: in their prefix, or in the suffix, if there is one."""
        shared, length = len(group.prefix), len(group.prefix) + len(suffix)
        first, last = (shared, length) if suffix and not in_prefix else (0, shared)
        for owner in group.members[suffix]:
            targets = self._requests[owner].targets
            begin = length - len(targets)
            for position in range(max(first, begin), last):
                place = (sequence, padding + position - first)
                self.row_of.append(self.rows.setdefault(place, len(self.rows)))
                self.targets.append(targets[position - begin])
                self.owners.append(owner)


class _Found:
    """Log-probabilities of single tokens, added up to answers."""

    def __init__(self) -> None:
        self._owners: list[int] = []
        self._log_probabilities: list[torch.Tensor] = []
        self._greedy: list[torch.Tensor] = []

    def add(self, owners: list[int], log_probabilities: torch.Tensor, greedy: torch.Tensor) -> None:
        self._owners += owners
        self._log_probabilities.append(log_probabilities)
        self._greedy.append(greedy)

    def answers(self) -> list[Answer]:
        sums: dict[int, float] = {}
        greedy: dict[int, bool] = {}
        # Fetched from the device once a batch, and added up in float64.
        values = torch.cat(self._log_probabilities).tolist()
        for owner, value, best in zip(self._owners, values, torch.cat(self._greedy).tolist(), strict=True):
            sums[owner] = sums.get(owner, 0.0) + value
            greedy[owner] = greedy.get(owner, True) and best
        return [Answer(owner, sums[owner], greedy[owner]) for owner in sums]


def group_batches(groups: Sequence[Group], size_at: Callable[[int], int]) -> Iterator[list[Group]]:
    """Cuts planned groups into batches, those with suffixes apart from those without, which need no mask.

    Args:
        groups: the longest first.
        size_at: how many fit into a batch whose longest one is at a position of `groups`.
    """
    waiting: dict[bool, list[Group]] = {}
    size: dict[bool, int] = {}
    for position, group in enumerate(groups):
        batch = waiting.setdefault(group.has_suffixes, [])
        if not batch:
            size[group.has_suffixes] = size_at(position)
        batch.append(group)
        if len(batch) == size[group.has_suffixes]:
            yield waiting.pop(group.has_suffixes)
    yield from waiting.values()
