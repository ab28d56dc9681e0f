"""What experts compute, with a place to read and change the activation between the first product and the second.

transformers 5 holds all experts of a layer in one module, whose weights are [experts, out, in] (or [experts, in, out], where
`is_transposed`), and notes there what else they have: a gate, biases, a norm behind. Two ways lead through it, as transformers
has them: one expert after the other, and all at once, rows sorted by expert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear


@dataclass(frozen=True)
class Routed:
    """Activations of experts: one row for each pair of a token and an expert that it was sent to.

    Attributes:
        h: [pairs, channels], in front of the second product.
        experts: int64 [pairs], ascending.
        tokens: int64 [pairs], the place of each token among the rows that entered the module.
    """

    h: torch.Tensor
    experts: torch.Tensor
    tokens: torch.Tensor


Change = Callable[[Routed], torch.Tensor]


def one_by_one(module: Any, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor, change: Change) -> torch.Tensor:
    """The experts' outputs, added up by token: [tokens, hidden]. Slow, and works everywhere.

    Args:
        module: the experts.
        hidden: [tokens, hidden].
        index, weights: [tokens, k], the experts of each token and what they count.
        change: called with the activations of each expert that has any.
    """
    result = torch.zeros_like(hidden)
    for expert in torch.unique(index).tolist():
        tokens, places = torch.where(index == expert)
        up = _product(module, _first(module), hidden[tokens], expert)
        h = change(Routed(_activated(module, up), torch.full_like(tokens, expert), tokens))
        out = _normed(module, _product(module, "down_proj", h, expert))
        result.index_add_(0, tokens, (out * weights[tokens, places, None]).to(result.dtype))
    return result


def all_at_once(module: Any, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor, change: Change) -> torch.Tensor:
    """The same by transformers' grouped product: one call of `change`, with rows sorted by expert."""
    from transformers.integrations.moe import _grouped_linear

    k = index.shape[-1]
    experts, order = torch.sort(index.reshape(-1), stable=True)
    tokens = order // k
    # As transformers counts: neither bincount nor whole numbers are there on every device.
    countable = experts.float() if hidden.device.type in ("cpu", "mps") else experts.int()
    many = module.down_proj.shape[0]
    ends = torch.cumsum(torch.histc(countable, bins=many, min=0, max=many - 1), dim=0, dtype=torch.int32)

    def product(name: str, rows: torch.Tensor) -> torch.Tensor:
        bias = getattr(module, f"{name}_bias")[experts] if _flag(module, "has_bias") else None
        out: torch.Tensor = _grouped_linear(rows, getattr(module, name), ends, bias=bias, is_transposed=module.is_transposed)
        return out

    h = change(Routed(_activated(module, product(_first(module), hidden[tokens])), experts, tokens))
    out = _normed(module, product("down_proj", h)) * weights.reshape(-1)[order, None]
    back = torch.empty_like(out)
    back[order] = out
    return back.view(len(hidden), k, -1).sum(dim=1).to(hidden.dtype)


def can_do_all_at_once() -> bool:
    """Whether this transformers has the grouped product."""
    try:
        from transformers.integrations.moe import _grouped_linear  # noqa: F401
    except ImportError:
        return False
    return True


def _first(module: Any) -> str:
    return "gate_up_proj" if _flag(module, "has_gate", True) else "up_proj"


def _flag(module: Any, name: str, default: bool = False) -> bool:
    return bool(getattr(module, name, default))


def _product(module: Any, name: str, rows: torch.Tensor, expert: int) -> torch.Tensor:
    weight = getattr(module, name)[expert]
    bias = getattr(module, f"{name}_bias")[expert] if _flag(module, "has_bias") else None
    return linear(rows, weight.T if module.is_transposed else weight, bias)


def _activated(module: Any, up: torch.Tensor) -> torch.Tensor:
    h: torch.Tensor = module._apply_gate(up) if _flag(module, "has_gate", True) else module.act_fn(up)
    return h


def _normed(module: Any, out: torch.Tensor) -> torch.Tensor:
    return module.post_expert_norm(out) if _flag(module, "has_post_expert_norm") else out
