"""Experts of one layer: those that the registry of transformers 5 runs, and others, which cannot be steered."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from lm_eval_clas.decoder.anatomy.linear_parts import is_quantised

_EXPERTS = re.compile("experts", re.IGNORECASE)


def registered_shape(module: nn.Module) -> tuple[int, int] | None:
    """How many experts a module has, and the channels of each; None if transformers' registry does not run it.

    The registry's decorator (`use_experts_implementation`) notes on the module how its weights lie. Quantised experts have the
    same notes and a registry of their own, whose functions multiply by scales, too.
    """
    down = getattr(module, "down_proj", None)
    if not isinstance(down, nn.Parameter) or down.ndim != 3 or not hasattr(module, "is_transposed") or is_quantised(down):
        return None
    experts, out, width = down.shape
    return int(experts), int(out if module.is_transposed else width)


def registered_experts(layer: nn.Module) -> Iterator[tuple[str, nn.Module, int, int]]:
    """A layer's experts that can be steered: name, module, how many, and channels of each."""
    for name, module in layer.named_modules():
        if (shape := registered_shape(module)) is not None:
            yield name, module, *shape


def other_experts(layer: nn.Module) -> str | None:
    """What kind of experts a layer has that can not be steered; None if there are none.

    They are told by their modules, and not by fields of the configuration, which models without experts have, too.
    """
    for name, module in layer.named_modules():
        own = name.rpartition(".")[2]
        if registered_shape(module) is not None:
            continue
        if isinstance(module, nn.ModuleList) and _EXPERTS.search(own) and len(module) > 1:
            return f"a list of {len(module)} modules ('{name}'), each of which sees some of the tokens"
        weights = list(module.parameters(recurse=False))
        if _EXPERTS.search(type(module).__name__) and weights:  # of some, nothing but biases are parameters
            why = (
                "whose weights are quantised"
                if any(map(is_quantised, weights))
                else "which transformers runs by code of their own"
            )
            return f"{type(module).__name__} ('{name}'), {why}"
    return None
