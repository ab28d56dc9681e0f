"""Greedy generation that runs what prompts have in common once, and ends each answer by itself.

Stock generation runs every prompt whole, and a batch until its last answer ends. Here a shared prefix runs once
(`prefixes.py`), each prompt goes on from a copy of its key-value cache, and an answer that has ended leaves the batch. In
float32 the tokens are those that stock generation gives to each prompt alone.

The prompts of a pass end in the same column, so that whatever is written follows its prompt at once, as sliding windows
count. Where their suffixes differ in length, the shorter ones begin earlier, with tokens of their prefix in place of padding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer

from lm_eval_clas.decoder.below_head import bare_model
from lm_eval_clas.decoder.logits import RowLogits, padded
from lm_eval_clas.decoder.prefixes import Continuation, Group, can_share_prefixes, group_by_prefix

# What a generation config may say without greedy choices being others, and the values at which other options do nothing.
_HARMLESS = {
    "assistant_confidence_threshold", "assistant_lookbehind", "bos_token_id", "cache_implementation", "compile_config",
    "decoder_start_token_id", "disable_compile", "do_sample", "early_stopping", "eos_token_id", "epsilon_cutoff",
    "eta_cutoff", "is_assistant", "length_penalty", "max_length", "min_p", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "output_attentions", "output_hidden_states", "output_logits", "output_scores",
    "pad_token_id", "renormalize_logits", "return_dict_in_generate", "target_lookbehind", "temperature", "top_h", "top_k",
    "top_p", "transformers_version", "typical_p", "use_cache", "_from_model_config",
}  # fmt: skip
_NEUTRAL = {
    "diversity_penalty": 0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1,
    "guidance_scale": 1,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1,
}
# A step of an answer is one token, so more of them than prompts fit into one pass.
_STEPS_PER_PROMPT = 4
# Moving the answers that go on to rows of their own is worth it when at most this share of a pass's rows goes on.
_LEFT = 0.8


def chooses_plainly(model: Any) -> bool:
    """Whether a model's own greedy generation is the likeliest token at each step, exactly as `GreedyDecoder` finds it."""
    bare = bare_model(model)
    config = getattr(bare, "generation_config", None)
    if config is None or getattr(type(bare), "generate", None) is not GenerationMixin.generate or not can_share_prefixes(bare):
        return False
    defaults = type(config)().to_dict()
    return all(
        name in _HARMLESS or value is None or value is False or value in (defaults.get(name), _NEUTRAL.get(name))
        for name, value in config.to_dict().items()
    )


@dataclass(frozen=True)
class Ways:
    """Several functions that a model's passes can be, such as strengths of steering; answers are written in each of them.

    Attributes:
        count: how many.
        of_rows: told before passes how many of their rows, in order, are to be computed in each way.
        prompts: by way, opened around the passes of prompts, which are the same in every way but for what it changes.
    """

    count: int = 1
    of_rows: Callable[[Sequence[int]], None] = lambda counts: None
    prompts: Callable[[int], AbstractContextManager[Any]] = lambda way: nullcontext()


@dataclass
class _Begun:
    """Prompts that have been run: the tokens chosen after them, int64 [rows, positions] with 1 where one is, and the cache."""

    chosen: list[int]
    mask: torch.Tensor
    cache: DynamicCache


class GreedyDecoder:
    """Writes answers to prompts with a Hugging Face causal language model, the likeliest token at each step.

    Args:
        model: the model, bare or wrapped by PEFT, for which `chooses_plainly` holds.
        device: where inputs go.

    Raises:
        HeadError: the model has no output embeddings, or no decoder below them.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self._logits = RowLogits(model)
        self._device = device
        ends = bare_model(model).generation_config.eos_token_id
        self._ends = {ends} if isinstance(ends, int) else set(ends or ())

    def plan(self, prompts: Sequence[tuple[int, ...]], size: int) -> list[list[Group]]:
        """Batches of at most `size` different prompts, which are not empty; those that start alike run together.

        Batches with the longest prompts come first.
        """
        batches: list[list[Group]] = []
        room = 0
        for whole in group_by_prefix([Continuation(prompt, ()) for prompt in prompts], share=True):
            for group in _divided(whole, size):
                if len(group.members) > room:
                    batches.append([])
                    room = size
                batches[-1].append(group)
                room -= len(group.members)
        return batches

    @torch.no_grad()
    def write(
        self, batch: Sequence[Group], size: int, most: int, stops: Callable[[Sequence[int]], bool], ways: Ways
    ) -> list[tuple[list[int], list[list[int]]]]:
        """Runs a batch of `plan`.

        Args:
            batch: groups of prompts.
            size: as for `plan`. Steps of answers, which are one token for each, have up to four times as many rows.
            most: the most tokens in an answer.
            stops: whether an answer ends with the tokens that it has.
            ways: in which the answers are written.

        Returns:
            For each different prompt, its positions among the prompts, and the answer's tokens in each way.

        Raises:
            HeadError: the model does not call its output embeddings as a module.
        """
        positions = [owners for group in batch for owners in group.members.values()]
        at_once = max(1, _STEPS_PER_PROMPT * size // len(positions))
        answers: list[list[list[int]]] = []
        for chunk in (range(ways.count)[start : start + at_once] for start in range(0, ways.count, at_once)):
            begun = []
            for way in chunk:
                with ways.prompts(way):
                    begun.append(self._begin(batch, ways, way, most))
            answers += self._finish(begun, chunk, most, stops, ways)
        return list(zip(positions, map(list, zip(*answers, strict=True)), strict=True))

    @torch.no_grad()
    def prompts_hold(self, batch: Sequence[Group], ways: Ways) -> bool:
        """Whether prompts give the same in the last way, bit for bit, inside `ways.prompts` and outside."""
        with ways.prompts(ways.count - 1):
            inside = self._begin(batch, ways, ways.count - 1, 1)
        outside = self._begin(batch, ways, ways.count - 1, 1)
        return inside.chosen == outside.chosen and all(
            torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)
            for one, other in zip(inside.cache.layers, outside.cache.layers, strict=True)
        )

    def _begin(self, batch: Sequence[Group], ways: Ways, way: int, most: int) -> _Begun:
        """Runs the prompts of a batch in one way."""
        # A prompt's last token runs with the suffixes, since its logits are read there.
        shared = [group.prefix[:-1] if () in group.members else group.prefix for group in batch]
        inputs = padded([*shared, (0,)], self._device, left=True)[:-1]  # one column at least
        mask = padded([*((1,) * len(prefix) for prefix in shared), (0,)], self._device, left=True)[:-1]
        prefixes = DynamicCache()  # not of the model's kinds of layers: a sliding window's would forget what suffixes need
        ways.of_rows([len(batch) if one == way else 0 for one in range(ways.count)])
        self._next_tokens(inputs, mask, prefixes, rows=1)  # for the cache alone
        rows = [row for row, group in enumerate(batch) for _ in group.members]
        prompts = [(*group.prefix, *suffix) for group in batch for suffix in group.members]
        width = max(len(prompt) - len(shared[row]) for row, prompt in zip(rows, prompts, strict=True))
        kept = [max(0, len(prompt) - width) for prompt in prompts]  # of each prompt, from the prefix's cache
        inputs = padded([prompt[-width:] for prompt in prompts] + [(0,) * width], self._device, left=True)[:-1]
        total = max(kept) + width
        mask = padded([(1,) * len(prompt) for prompt in prompts] + [(0,) * total], self._device, left=True)[:-1]
        cache = self._continued(prefixes, rows, [len(shared[row]) for row in rows], kept, total + most)
        ways.of_rows([len(prompts) if one == way else 0 for one in range(ways.count)])
        return _Begun(self._next_tokens(inputs, mask, cache), mask, cache)

    def _finish(
        self, begun: list[_Begun], chunk: range, most: int, stops: Callable[[Sequence[int]], bool], ways: Ways
    ) -> list[list[list[int]]]:
        """Writes the answers to prompts that were begun in a chunk of the ways, all at once; `begun` is emptied."""
        prompts = len(begun[0].chosen)
        answers: list[list[int]] = [[] for _ in range(len(chunk) * prompts)]
        chosen = [token for one in begun for token in one.chosen]
        rows = list(range(len(chosen)))  # whose answer each row of a pass is; way by way
        mask = torch.cat([one.mask for one in begun])
        cache = begun[0].cache
        if len(begun) > 1:
            for layer, others in zip(cache.layers, zip(*(one.cache.layers for one in begun[1:]), strict=True), strict=True):
                layer.join(others)
        begun.clear()
        done: set[int] = set()
        while True:
            for row, token in zip(rows, chosen, strict=True):
                if row in done:
                    continue
                answers[row].append(token)
                if token in self._ends or len(answers[row]) == most or stops(answers[row]):
                    done.add(row)
            going = [place for place, row in enumerate(rows) if row not in done]
            if not going:
                return [answers[start : start + prompts] for start in range(0, len(answers), prompts)]
            if len(going) <= _LEFT * len(rows):
                where = torch.tensor(going, device=self._device)
                mask, rows, chosen = mask[where], [rows[place] for place in going], [chosen[place] for place in going]
                cache.batch_select_indices(where)
            owned = Counter(chunk[row // prompts] for row in rows)
            ways.of_rows([owned[way] for way in range(ways.count)])
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=-1)
            chosen = self._next_tokens(torch.tensor(chosen, device=self._device)[:, None], mask, cache)

    def _next_tokens(self, inputs: torch.Tensor, mask: torch.Tensor, cache: DynamicCache, rows: int | None = None) -> list[int]:
        """Runs tokens, int64 [rows, tokens], after what is in the cache; the tokens that are chosen after the first `rows`."""
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -inputs.shape[1] :]
        last = torch.tensor([(row, inputs.shape[1] - 1) for row in range(rows or len(inputs))])
        logits = self._logits(last, cache, input_ids=inputs, attention_mask=mask, position_ids=positions, use_cache=True)
        return [token for chunk in logits for token in chunk.argmax(-1).tolist()]

    def _continued(
        self, prefixes: DynamicCache, rows: Sequence[int], shared: Sequence[int], kept: Sequence[int], capacity: int
    ) -> DynamicCache:
        """A cache for prompts: the first `kept` tokens of each one's prefix, side by side at their ends.

        Args:
            prefixes: the cache of padded prefixes.
            rows: for each prompt, the row of its prefix there.
            shared: for each prompt, how long its prefix is.
            kept: for each prompt, how much of it is wanted.
            capacity: positions that the cache will have in the end.
        """
        columns = max(kept)
        # Where the prefix's first token is in `prefixes`, less where it is in the new cache.
        shift = torch.tensor([prefixes.get_seq_length() - own - columns + keep for own, keep in zip(shared, kept, strict=True)])
        source = (torch.arange(columns) + shift[:, None]).clamp(min=0).to(self._device)
        row = torch.tensor(rows, device=self._device)[:, None]
        cache = DynamicCache()
        cache.layers = []
        for layer in prefixes.layers:
            cache.layers.append(_RoomyLayer(capacity))
            if columns:
                keys, values = (states.transpose(1, 2)[row, source].transpose(1, 2) for states in (layer.keys, layer.values))
                cache.layers[-1].update(keys, values)
        return cache


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A layer's keys and values with room for those to come, so that a step does not copy what is there.

    Args:
        capacity: the most positions.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not start:
            super().update(key_states[:, :, :0], value_states[:, :, :0])  # how a layer is initialized differs between versions
            self._rooms = [self._room(states) for states in (key_states, value_states)]
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        end = self.get_seq_length()
        self._rooms = [room[indices.to(room.device)] for room in self._rooms]
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)

    def join(self, others: Sequence[_RoomyLayer]) -> None:
        """Adds the rows of other layers, of the same positions, below its own."""
        end = self.get_seq_length()
        self._rooms = [torch.cat(rooms) for rooms in zip(self._rooms, *(other._rooms for other in others), strict=True)]
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)

    def _room(self, states: torch.Tensor) -> torch.Tensor:
        rows, heads, _, width = states.shape
        return states.new_zeros(rows, heads, self._capacity, width)


def _divided(group: Group, size: int) -> Iterator[Group]:
    """A group in parts of at most `size` members, as even as can be."""
    parts = -(-len(group.members) // size)
    suffixes = sorted(group.members, key=len)
    for first in range(parts):
        yield Group(group.prefix, {suffix: group.members[suffix] for suffix in suffixes[first::parts]})
