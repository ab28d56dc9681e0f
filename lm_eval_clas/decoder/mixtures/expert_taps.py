"""`tap`: reading and changing the activations of experts, through the registry of experts' functions of transformers 5.

No module of its own takes the activation between an expert's two products, so there is nothing to hook. A tap is what a hook is
elsewhere. While a model has one, its `_experts_implementation` is ours, which asks the module's taps and, where none has
anything to do, calls the implementation that was there: then every bit is the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from typing import Any

import torch
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.mixtures.expert_products import Change, Routed, all_at_once, can_do_all_at_once, one_by_one

# Given the module and the rows that enter it, says what to do with this pass's activations; None for nothing.
Tap = Callable[[nn.Module, torch.Tensor], Change | None]
_TAPS, _OURS = "_lm_eval_clas_taps", "lm_eval_clas."
_numbers = count(1)  # of taps; never one twice, so that an old handle takes off nobody else's
_switched: dict[int, tuple[Any, str | None, int]] = {}  # by id: a configuration, what it had, and how many taps need it


@dataclass(frozen=True)
class TapHandle:
    """What takes a tap off again."""

    module: Any
    key: int

    @property
    def on(self) -> bool:
        """Whether the tap is still there and is asked."""
        name = self.module.config._experts_implementation
        return self.key in self.module.__dict__.get(_TAPS, {}) and str(name).startswith(_OURS)

    def remove(self) -> None:
        """Takes the tap off; with its last one, a model has its own implementation again."""
        if self.module.__dict__.get(_TAPS, {}).pop(self.key, None) is None:
            return
        config, before, needed = _switched.pop(id(self.module.config))
        if needed > 1:
            _switched[id(config)] = (config, before, needed - 1)
        elif str(config._experts_implementation).startswith(_OURS):
            config._experts_implementation = before


def tap(module: nn.Module, ask: Tap, first: bool = False) -> TapHandle:
    """Asks `ask` in every pass of a module of experts.

    Args:
        module: experts that transformers' registry runs.
        ask: what to ask.
        first: before all other taps, and not after them.
    """
    taps: dict[int, Tap] = module.__dict__.setdefault(_TAPS, {})
    key = -next(_numbers) if first else next(_numbers)
    taps[key] = ask
    config: Any = module.config
    kept, before, needed = _switched.get(id(config), (config, config._experts_implementation, 0))
    if needed == 0:
        config._experts_implementation = _registered(before)
    _switched[id(config)] = (kept, before, needed + 1)
    return TapHandle(module, key)


def original(module: nn.Module, before: str | None) -> Callable[..., torch.Tensor]:
    """The function that runs a module's experts without taps."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    own = getattr(type(module).forward, "__wrapped__", None)
    if own is None:
        raise ClasError(f"{type(module).__name__} does not run through transformers' registry of experts' functions.")
    function: Callable[..., torch.Tensor] = ALL_EXPERTS_FUNCTIONS.get_interface(before or "eager", own)
    return partial(function, module)


@cache
def _registered(before: str | None) -> str:
    """The name of our implementation in front of another one."""
    from transformers.integrations.moe import ExpertsInterface

    name = f"{_OURS}{before}"
    at_once = before not in (None, "eager") and can_do_all_at_once()

    def run(module: Any, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        asked = [ask(module, hidden) for _, ask in sorted(module.__dict__.get(_TAPS, {}).items())]
        changes = [change for change in asked if change is not None]
        if not changes:
            return original(module, before)(hidden, index, weights)

        def change(routed: Routed) -> torch.Tensor:
            for one in changes:
                routed = Routed(one(routed), routed.experts, routed.tokens)
            return routed.h

        return (all_at_once if at_once else one_by_one)(module, hidden, index, weights, change)

    # Compiled code would keep what the taps said when it was compiled.
    ExpertsInterface.register(name, torch.compiler.disable(run))  # type: ignore[no-untyped-call]
    return name
