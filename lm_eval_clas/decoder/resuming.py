"""`Tape`: forward passes resumed at a layer, because nothing below it has changed.

Steering leaves everything below the first bridge layer as it is. A tape records what those layers gave in the passes of a
computation, and hands it out when the same computation runs again with other steering above: the hidden states that enter
the first layer above, and the keys and values that the layers below left in the cache. The result is bitwise that of a full
pass, since the layers above see the same tensors in the same shapes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Cache

from lm_eval_clas.decoder.projections import decoder_layers


@dataclass
class _Pass:
    """What the layers below gave in one forward pass."""

    hidden: torch.Tensor | None = None
    extras: dict[int, int] = field(default_factory=dict)  # by layer: how many more outputs it has, for those with tuples
    cached: dict[int, Any] = field(default_factory=dict)  # by layer: its part of the key-value cache


class Tape:
    """Records the passes of a computation below a layer, and replays them.

    Example:
        >>> tape = Tape(model, layer=13)
        >>> for steerer in steerers:
        ...     with tape.running(), steerer.language("hi"):
        ...         logits = model(**inputs).logits  # the layers 0-12 run the first time only
        >>> tape.clear()  # before other inputs

    Args:
        model: a Hugging Face decoder, bare or wrapped by PEFT.
        layer: the first one that runs every time.
    """

    def __init__(self, model: Any, layer: int) -> None:
        self._below = decoder_layers(model)[:layer]
        self._passes: list[_Pass] = []
        self._recorded = False

    def clear(self) -> None:
        """Forgets what was recorded."""
        self._passes.clear()
        self._recorded = False

    @contextmanager
    def running(self, passes: int | None = None) -> Iterator[None]:
        """Records what runs inside the block, the first time after `clear`; replays it every other time.

        Args:
            passes: how many forward passes, from the first one on, the tape has to do with; later ones are ordinary. For
                generation it is 1: the prompt's. None for all.
        """
        state = _State(self._passes, self._recorded, passes)
        before = [layer.__dict__.get("forward") for layer in self._below]
        for i, layer in enumerate(self._below):
            layer.forward = _taped(layer.forward, i, len(self._below) - 1, state)
        try:
            yield
            self._recorded = True
        finally:
            for layer, forward in zip(self._below, before, strict=True):
                if forward is None:
                    del layer.forward
                else:
                    layer.forward = forward
            if not self._recorded:
                self._passes.clear()  # a computation that broke off is no record of itself


@dataclass
class _State:
    """Where a run of the tape stands."""

    passes: list[_Pass]
    replays: bool
    limit: int | None
    current: int = -1

    def start(self) -> None:
        self.current += 1
        if not self.replays and self.active:
            self.passes.append(_Pass())

    @property
    def active(self) -> bool:
        return self.limit is None or self.current < self.limit


def _taped(forward: Callable[..., Any], i: int, last: int, state: _State) -> Callable[..., Any]:
    """The forward method of layer `i`, recording or replaying."""

    def run(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if i == 0:
            state.start()
        if not state.active:
            return forward(hidden, *args, **kwargs)
        this = state.passes[state.current]
        cache = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
        if state.replays:
            if cache is not None and i in this.cached:
                # A copy, as the pass may append to it; its tensors are replaced then, never written to.
                cache.layers[i : i + 1] = [copy.copy(this.cached[i])]
            hidden = this.hidden if i == 0 and this.hidden is not None else hidden
            return (hidden, *[None] * this.extras[i]) if i in this.extras else hidden
        output = forward(hidden, *args, **kwargs)
        if isinstance(output, tuple):
            this.extras[i] = len(output) - 1
        if cache is not None:
            this.cached[i] = copy.copy(cache.layers[i])
        if i == last:
            this.hidden = output[0] if isinstance(output, tuple) else output
        return output

    return run
