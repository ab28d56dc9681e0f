"""`Tape`: forward passes resumed at a layer, because nothing below it has changed.

Steering leaves everything below the first bridge layer as it is. A tape records what those layers gave in the passes of a
computation, and hands it out when the same computation runs again with other steering above: the hidden states that enter
the first layer above, and the keys and values that the layers below left in the cache. The result is bitwise that of a full
pass, since the layers above see the same tensors in the same shapes.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lm_eval_clas.decoder.anatomy.configuration import vocabulary
from lm_eval_clas.decoder.anatomy.decoder_lists import decoder_layers
from lm_eval_clas.decoder.below_head import bare_model
from lm_eval_clas.decoder.prefixes import cache_parameter
from lm_eval_clas.decoder.text_batches import device_of

# Of a pass that shows whether a model can be resumed: sequences and tokens.
_SEQUENCES, _TOKENS, _MORE = 2, 12, 2


def can_resume(model: Any, layer: int) -> bool:
    """Whether passes that are resumed at a layer are bitwise full ones: some are run both ways, with and without a cache.

    Not every decoder is a chain of layers that hand on hidden states alone: some share keys, or states of their own, with
    layers above.
    """
    size, device = vocabulary(model), device_of(model)
    ids = torch.arange(_SEQUENCES * (_TOKENS + _MORE)).reshape(_SEQUENCES, -1) % size
    try:
        with torch.no_grad():
            full, tape = _logits(model, ids.to(device)), Tape(model, layer)
            # The first run records; of the others, the second would see what the first replay has overwritten.
            return all(torch.equal(_logits(model, ids.to(device), tape), full) for _ in range(3))
    except Exception:  # a family's own code may raise every kind where its layers are not run as it expects
        return False


def _logits(model: Any, ids: torch.Tensor, tape: Tape | None = None) -> torch.Tensor:
    """Of a pass without a cache, of one with, and of the next tokens, one by one, that go on from the cache."""
    start, logits = ids[:, :_TOKENS], []
    with tape.running(2) if tape is not None else nullcontext():
        logits.append(model(input_ids=start, use_cache=False).logits)
        first = model(input_ids=start)
        logits.append(first.logits)
        cache = next((one for one in first.values() if isinstance(one, Cache)), None)
        name = cache_parameter(inspect.signature(bare_model(model).forward).parameters)
        for place in range(_TOKENS, ids.shape[1]) if cache is not None and name is not None else ():
            mask = torch.ones_like(ids[:, : place + 1])
            logits.append(model(input_ids=ids[:, place, None], attention_mask=mask, **{str(name): cache}).logits)
    return torch.cat(logits, dim=1)


@dataclass
class _Pass:
    """What the layers below gave in one forward pass."""

    output: Any = None  # of the last of them: the hidden states, or a tuple that begins with them
    extras: dict[int, int] = field(default_factory=dict)  # by layer: how many more outputs it has, for those with tuples
    cached: dict[int, Any] = field(default_factory=dict)  # by layer: its part of the key-value cache


class Tape:
    """Records the passes of a computation below a layer, and replays them.

    Examples:
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
                cache.layers[i : i + 1] = [_copied(this.cached[i])]
            if i == last:
                return this.output
            return (hidden, *[None] * this.extras[i]) if i in this.extras else hidden
        output = forward(hidden, *args, **kwargs)
        if isinstance(output, tuple):
            this.extras[i] = len(output) - 1
        if cache is not None:
            this.cached[i] = _copied(cache.layers[i])
        if i == last:
            # Beside hidden states, some layers hand on other tensors (the router's, for example); objects are of their pass.
            kept = [one if isinstance(one, torch.Tensor) else None for one in output] if isinstance(output, tuple) else []
            this.output = tuple(kept) if kept else output
        return output

    return run


def _copied(layer: Any) -> Any:
    """A layer's part of the cache, which the pass may go on with: keys and values are replaced then, never written to.

    The states of a recurrence are written to.
    """
    return copy.copy(layer) if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) else copy.deepcopy(layer)
