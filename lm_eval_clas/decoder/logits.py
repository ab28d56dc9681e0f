"""`RowLogits`: a model's logits at chosen positions, a bounded number at a time."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lm_eval_clas.decoder.anatomy.configuration import vocabulary
from lm_eval_clas.decoder.below_head import bare_model, decoder_of
from lm_eval_clas.decoder.prefixes import cache_parameter

# Logits held at a time: 64 MiB in float32, which is 64 positions of a vocabulary of 262,144.
_AT_ONCE = 2**24


class HeadError(RuntimeError):
    """The model's logits do not come from its output embeddings, or not from a decoder below them."""


class RowLogits:
    """A causal language model's logits at chosen positions only, so that memory is bounded by a chunk of them.

    The output embeddings see the chosen rows of their input instead of all. What the model does to logits afterwards, such
    as soft-capping, it does itself: for each further chunk it is called again, its decoder handing out what it gave before.

    Args:
        model: a Hugging Face model, bare or wrapped by PEFT.

    Raises:
        HeadError: it has no output embeddings, or no decoder below them.
    """

    def __init__(self, model: Any) -> None:
        bare = bare_model(model)
        self._model = model
        self._head = bare.get_output_embeddings()
        self._decoder = decoder_of(model)
        if self._head is None or self._decoder is bare:
            raise HeadError(f"{type(bare).__name__} has no output embeddings above a decoder.")
        self._parameters = inspect.signature(bare.forward).parameters
        self._chunk = max(1, _AT_ONCE // vocabulary(bare))

    def __call__(self, rows: torch.Tensor, cache: Any = None, **inputs: Any) -> Iterator[torch.Tensor]:
        """Runs the model and yields the logits of `rows` in order, [chunk, vocabulary] each, in the model's dtype.

        Args:
            rows: int64 [rows, 2], sequence and position of each.
            cache: the key-value cache, for a model that takes one.
            inputs: of the model's forward pass, `input_ids` among them; those that it has no parameter for are left out.

        Raises:
            HeadError: the model does not call its output embeddings as a module.
        """
        inputs = {name: value for name, value in inputs.items() if name in self._parameters}
        if cache is not None:
            name = cache_parameter(self._parameters)
            assert name is not None, "a model without a cache shares no prefixes"
            inputs[name] = cache
        hidden: torch.Tensor | None = None
        decoded: Any = None
        start = 0

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal decoded
            decoded = output

        def choose(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            nonlocal hidden
            if hidden is None:
                sequence, position = rows.to(args[0].device).unbind(-1)
                hidden = args[0][sequence, position]
            return hidden[None, start : start + self._chunk], *args[1:]

        kept = self._decoder.register_forward_hook(keep)
        chosen = self._head.register_forward_pre_hook(choose)
        try:
            logits = self._model(**inputs).logits
            kept.remove()
            if hidden is None or decoded is None or len(logits) != 1:
                raise HeadError(f"{type(self._model).__name__} does not call its output embeddings as a module.")
            yield logits[0]
            with _handing_out(self._decoder, decoded):
                while (start := start + self._chunk) < len(rows):
                    yield self._model(input_ids=inputs["input_ids"]).logits[0]
        finally:
            kept.remove()
            chosen.remove()


@contextmanager
def _handing_out(module: nn.Module, output: Any) -> Iterator[None]:
    """Inside the block, the module gives `output` whatever it is called with."""
    before = module.__dict__.get("forward")  # accelerate replaces it too, where weights lie on several devices
    module.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def padded(rows: Sequence[Sequence[int]], device: torch.device, *, left: bool) -> torch.Tensor:
    """int64 [rows, longest], padded with zeros."""
    width = max(map(len, rows))
    zeros = [(0,) * (width - len(row)) for row in rows]
    filled = [(*zero, *row) if left else (*row, *zero) for zero, row in zip(zeros, rows, strict=True)]
    return torch.tensor(filled, dtype=torch.long, device=device)
