"""Greedy generation that runs what prompts have in common once, and ends each answer by itself.

Stock generation runs every prompt whole, and a batch until its last answer ends. Here a shared prefix runs once
(`prefixes.py`), each prompt goes on from a copy of its key-value cache, and an answer that has ended leaves the batch. In
float32 the tokens are those that stock generation gives to each prompt alone.

The prompts of a pass end in the same column, so that whatever is written follows its prompt at once, as sliding windows
count. Where their suffixes differ in length, the shorter ones begin earlier, with tokens of their prefix in place of padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
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


class GreedyDecoder:
    """Writes answers to prompts with a Hugging Face causal language model, the likeliest token at each step.

    Args:
        model: the model, bare or wrapped by PEFT, for which `chooses_plainly` holds.
        device: where inputs go.

    Attributes:
        while_writing: opened around the passes that come after the prompts'.

    Raises:
        HeadError: the model has no output embeddings, or no decoder below them.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self.while_writing: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._logits = RowLogits(model)
        self._device = device
        ends = bare_model(model).generation_config.eos_token_id
        self._ends = {ends} if isinstance(ends, int) else set(ends or ())

    def plan(self, prompts: Sequence[tuple[int, ...]], size: int) -> list[list[Group]]:
        """Batches of prompts, which are not empty; those that start alike are in one, and batches with the longest come first.

        Args:
            size: how many prompts run at once; a batch has more only where more than that start alike.
        """
        batches: list[list[Group]] = []
        room = 0
        for group in group_by_prefix([Continuation(prompt, ()) for prompt in prompts], share=True):
            if len(group.members) > room:
                batches.append([])
                room = size
            batches[-1].append(group)
            room -= len(group.members)
        return batches

    @torch.no_grad()
    def write(
        self, batch: Sequence[Group], size: int, most: int, stops: Callable[[Sequence[int]], bool]
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Runs a batch of `plan`, and yields for each different prompt its positions among the prompts, and the answer's tokens.

        Args:
            batch: groups of prompts.
            size: how many prompts run at once.
            most: the most tokens in an answer.
            stops: whether an answer ends with the tokens that it has.

        Raises:
            HeadError: the model does not call its output embeddings as a module.
        """
        # A prompt's last token runs with the suffixes, since its logits are read there.
        prefixes = [group.prefix[:-1] if () in group.members else group.prefix for group in batch]
        inputs = padded([*prefixes, (0,)], self._device, left=True)[:-1]  # one column at least
        mask = padded([*((1,) * len(prefix) for prefix in prefixes), (0,)], self._device, left=True)[:-1]
        cache = DynamicCache()  # not of the model's kinds of layers: a sliding window's would forget what suffixes need
        self._next_tokens(inputs, mask, cache)
        prompts = [
            (row, (*group.prefix, *suffix), positions)
            for row, group in enumerate(batch)
            for suffix, positions in group.members.items()
        ]
        prompts.sort(key=lambda prompt: len(prompt[1]) - len(prefixes[prompt[0]]), reverse=True)
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            answers = self._answers(part, [len(prefix) for prefix in prefixes], cache, most, stops)
            yield from ((positions, answer) for (_, _, positions), answer in zip(part, answers, strict=True))

    def _answers(
        self,
        part: Sequence[tuple[int, tuple[int, ...], list[int]]],
        shared: Sequence[int],
        prefixes: DynamicCache,
        most: int,
        stops: Callable[[Sequence[int]], bool],
    ) -> list[list[int]]:
        width = max(len(prompt) - shared[row] for row, prompt, _ in part)
        kept = [max(0, len(prompt) - width) for _, prompt, _ in part]  # tokens of each prompt that are taken from the cache
        inputs = padded([prompt[-width:] for _, prompt, _ in part] + [(0,) * width], self._device, left=True)[:-1]
        total = max(kept) + width
        mask = padded([(1,) * len(prompt) for _, prompt, _ in part] + [(0,) * total], self._device, left=True)[:-1]
        cache = self._continued(prefixes, [row for row, _, _ in part], [shared[row] for row, _, _ in part], kept, total + most)
        chosen = self._next_tokens(inputs, mask, cache)
        answers: list[list[int]] = [[] for _ in part]
        rows = list(range(len(part)))  # whose answer each row of the pass is
        with self.while_writing():
            while True:
                going = []
                for place, (row, token) in enumerate(zip(rows, chosen, strict=True)):
                    answer = answers[row]
                    if row < 0:
                        continue
                    answer.append(token)
                    if token in self._ends or len(answer) == most or stops(answer):
                        rows[place] = -1
                    else:
                        going.append(place)
                if not going:
                    return answers
                if len(going) <= _LEFT * len(rows):
                    where = torch.tensor(going, device=self._device)
                    mask, rows, chosen = mask[where], [rows[place] for place in going], [chosen[place] for place in going]
                    cache.batch_select_indices(where)
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=-1)
                chosen = self._next_tokens(torch.tensor(chosen, device=self._device)[:, None], mask, cache)

    def _next_tokens(self, inputs: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> list[int]:
        """Runs tokens, int64 [rows, tokens], after what is in the cache, and chooses the token after each row's last one."""
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -inputs.shape[1] :]
        last = torch.tensor([(row, inputs.shape[1] - 1) for row in range(len(inputs))])
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


class _RoomyLayer(DynamicLayer):
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
            self.lazy_initialization(key_states, value_states)
            self._rooms = [self._room(states) for states in (key_states, value_states)]
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        end = self.get_seq_length()
        self._rooms = [room[indices.to(room.device)] for room in self._rooms]
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)

    def _room(self, states: torch.Tensor) -> torch.Tensor:
        rows, heads, _, width = states.shape
        return states.new_zeros(rows, heads, self._capacity, width)
