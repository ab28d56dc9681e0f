"""Steering as weights of a loaded model: no hook is involved, so that what hooks did can be held against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.projections import Projection


@contextmanager
def merged(places: Sequence[Projection], factors: torch.Tensor, shifts: torch.Tensor | None) -> Iterator[None]:
    """Inside the block, projections compute W (s * h + t) as (W diag(s)) h + W t; afterwards they are as they were.

    Args:
        places: linear modules, plain, GPT-2's, or wrapped by LoRA; and experts.
        factors, shifts: s and t, float32 [layers, neurons]; t is None where nothing is added.

    Raises:
        ClasError: a module's weights are quantised, or are no weights of a linear module.
    """
    saved: list[tuple[nn.Parameter, torch.Tensor]] = []
    without_bias: list[nn.Module] = []
    try:
        with torch.no_grad():
            for place in places:
                module, here = place.module, (place.layer, place.here)
                if place.experts:
                    saved.append(_scaled_experts(place, factors[here], None if shifts is None else shifts[here]))
                    continue
                base: Any = getattr(module, "base_layer", module)
                added = None if shifts is None else _image(module, shifts[here])
                for one in _linear_parts(module):
                    weight = one.weight
                    assert isinstance(weight, nn.Parameter)
                    saved.append((weight, weight.detach().clone()))
                    scale = factors[here].to(weight.device)
                    scale = scale[:, None] if type(one).__name__ == "Conv1D" else scale[None, :]
                    weight.copy_((weight.float() * scale).to(weight.dtype))
                if added is not None and base.bias is None:
                    base.bias = nn.Parameter(added.to(base.weight.dtype), requires_grad=False)
                    without_bias.append(base)
                elif added is not None:
                    saved.append((base.bias, base.bias.detach().clone()))
                    base.bias += added.to(base.bias.dtype)
        yield
    finally:
        with torch.no_grad():
            for weight, before in saved:
                weight.copy_(before)
        for base in without_bias:
            base.bias = None  # type: ignore[assignment]


def _scaled_experts(place: Projection, factors: torch.Tensor, shifts: torch.Tensor | None) -> tuple[nn.Parameter, torch.Tensor]:
    """Scales the second product of all experts, and returns it as it was."""
    weight = place.module.down_proj
    assert isinstance(weight, nn.Parameter)
    assert place.experts is not None
    if shifts is not None:
        raise ClasError("method=int-mu adds to the activations of experts, which no weight does; it cannot be verified.")
    before = weight.detach().clone()
    scale = factors.reshape(place.experts, -1).to(weight.device)
    scale = scale[:, :, None] if place.module.is_transposed else scale[:, None, :]
    weight.copy_((weight.float() * scale).to(weight.dtype))
    return weight, before


def _linear_parts(module: nn.Module) -> list[nn.Module]:
    """What multiplies the input of a projection: its own weights, and those of LoRA that come first."""
    base = getattr(module, "base_layer", module)
    weight = getattr(base, "weight", None)
    wrapped = hasattr(module, "base_layer") and not hasattr(module, "lora_A")
    if wrapped or not isinstance(weight, nn.Parameter) or weight.ndim != 2 or not weight.is_floating_point():
        raise ClasError(
            f"The weights of a {type(module).__name__} cannot be scaled in place, as they are quantised or wrapped; give the "
            "unquantised, merged model with --model."
        )
    adapters = module.lora_A.values() if hasattr(module, "lora_A") else []  # type: ignore[operator, union-attr]
    return [base, *adapters]


def _image(module: nn.Module, shift: torch.Tensor) -> torch.Tensor:
    """W t, of whatever W is made of; [hidden]."""
    weight = getattr(module, "base_layer", module).weight
    assert isinstance(weight, nn.Parameter)
    given = shift.to(weight.device, weight.dtype)[None]
    return (module(given) - module(torch.zeros_like(given)))[0]  # type: ignore[no-any-return]
