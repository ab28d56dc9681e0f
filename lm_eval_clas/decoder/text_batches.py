"""Texts as padded batches on a model's device."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.anatomy.configuration import text_config
from lm_eval_clas.disk.checked_json import shown


@dataclass(frozen=True)
class Batch:
    """One padded batch on the model's device.

    Attributes:
        inputs: of the model.
        real: float32 [batch, tokens], 1 on tokens that count.
        last: int64 [batch], the position of each text's last one.
        items: the positions of the texts in the list that was given.
    """

    inputs: dict[str, torch.Tensor]
    real: torch.Tensor
    last: torch.Tensor
    items: tuple[int, ...] = ()


def text_batches(
    tokenizer: Any,
    lines: Sequence[str],
    batch_size: int,
    max_tokens: int,
    device: torch.device,
    sort: bool = True,
    skip_first: bool = False,
) -> Iterator[Batch]:
    """Batches of texts, longest first so that memory problems show at once.

    Args:
        tokenizer, lines, batch_size, max_tokens, device: as in `profile`.
        sort: whether the longest come first.
        skip_first: the first position of a sequence does not count, whatever token stands there. Where that is BOS, which
            never counts, nothing changes.

    Raises:
        ClasError: no token that counts is left of a text.
    """
    encoded = tokenizer(list(lines), return_special_tokens_mask=True)
    ignored = encoded["special_tokens_mask"]
    _require_counted(lines, ignored, max_tokens, _SPECIAL)
    if skip_first:
        ignored = [[1, *mask[1:]] for mask in ignored]
        _require_counted(lines, ignored, max_tokens, _FIRST)
    tokens = [ids[:max_tokens] for ids in encoded["input_ids"]]
    ignored = [mask[:max_tokens] for mask in ignored]
    order = sorted(range(len(lines)), key=lambda i: -len(tokens[i])) if sort else list(range(len(lines)))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = max(len(tokens[i]) for i in rows)
        ids = torch.full((len(rows), width), pad, dtype=torch.long)
        attention = torch.zeros((len(rows), width), dtype=torch.long)
        real = torch.zeros((len(rows), width), dtype=torch.float32)
        # Padding on the right: no real token sees it, so results do not depend on it.
        for row, i in enumerate(rows):
            length = len(tokens[i])
            ids[row, :length] = torch.tensor(tokens[i])
            attention[row, :length] = 1
            real[row, :length] = 1 - torch.tensor(ignored[i], dtype=torch.float32)
        last = width - 1 - real.flip(1).argmax(dim=1)
        inputs = {"input_ids": ids.to(device), "attention_mask": attention.to(device)}
        yield Batch(inputs, real.to(device), last.to(device), tuple(rows))


# What a text has nothing but, where no token of it counts: all of it, and what --max-tokens leaves.
_SPECIAL = ("special tokens", "special tokens such as BOS, which do not count")
_FIRST = ("a first token, which does not count,", "its first token, which does not count")


def _require_counted(
    lines: Sequence[str], ignored: Sequence[Sequence[int]], max_tokens: int, nothing_but: tuple[str, str]
) -> None:
    """Every text needs one token that counts among its first ones."""
    first = [next((place for place, mask in enumerate(one) if not mask), None) for one in ignored]
    whole, left = nothing_but
    if None in first:
        text = shown(lines[first.index(None)])
        raise ClasError(f"The tokenizer makes nothing but {whole} of the text {text!r} of the corpus; take it out.")
    needed = max((place + 1 for place in first if place is not None), default=0)
    if needed > max_tokens:
        raise ClasError(f"--max-tokens {max_tokens} leaves nothing of a text but {left}; give {needed} or more.")


def position_limit(model: nn.Module) -> int:
    """The longest input that the model's positions allow."""
    return int(getattr(text_config(model), "max_position_embeddings", None) or sys.maxsize)


def device_of(model: nn.Module) -> torch.device:
    """Where the model wants its input ids."""
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    device: torch.device = embeddings.weight.device
    # With offloading, the weights wait on the meta device until their turn; accelerate moves the input itself.
    return torch.device("cpu") if device.type == "meta" else device
