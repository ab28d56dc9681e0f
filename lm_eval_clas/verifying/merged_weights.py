"""Steering as weights of a loaded model: no hook is involved, so that what hooks did can be held against it.

What is added to what leaves a layer is no weight in most families; there, the layer's own `forward` is another function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.anatomy.layer_results import hidden_in, with_hidden
from lm_eval_clas.decoder.anatomy.linear_parts import is_quantised, is_transposed
from lm_eval_clas.decoder.projections import Projection
from lm_eval_clas.steering.methods.intervention import Intervention


@contextmanager
def merged(places: Sequence[Projection], done: Intervention) -> Iterator[None]:
    """Inside the block, projections compute W (s * h + t) as (W diag(s)) h + W t; afterwards they are as they were.

    Layers give s * h + t, and with a map W h more.

    Args:
        places: linear modules, plain, GPT-2's, or wrapped by LoRA; experts; and layers.
        done: s, t, and W by layer.

    Raises:
        ClasError: a module's weights are quantised, or are no weights of a linear module.
    """
    factors, shifts = torch.from_numpy(done.factors), None if done.shifts is None else torch.from_numpy(done.shifts)
    saved: list[tuple[nn.Parameter, torch.Tensor]] = []
    layers: list[tuple[nn.Module, Any]] = []
    without_bias: list[nn.Module] = []
    try:
        with torch.no_grad():
            for place in places:
                module, here = place.module, (place.layer, place.here)
                if place.of_output:
                    layers.append((module, module.__dict__.get("forward")))  # accelerate puts one of its own on the instance
                    module.forward = _moved(module.forward, done, place.layer)
                    continue
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
                    scale = scale[:, None] if is_transposed(one) else scale[None, :]
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
        for layer, own in layers:
            del layer.forward
            if own is not None:
                layer.forward = own


def _moved(forward: Callable[..., Any], done: Intervention, layer: int) -> Callable[..., Any]:
    """A layer's own computation, and what is done to the hidden states that leave it, in float32."""
    factors, map_ = torch.from_numpy(done.factors[layer]), done.maps.get(layer)
    shift = None if done.shifts is None else torch.from_numpy(done.shifts[layer])
    matrix = None if map_ is None else torch.from_numpy(map_.matrix.astype(np.float32))

    def run(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        hidden = hidden_in(output)
        moved = hidden.float() * factors.to(hidden.device)
        if shift is not None:
            moved = moved + shift.to(hidden.device)
        if matrix is not None:
            moved = moved + hidden.float() @ matrix.to(hidden.device).T
        return with_hidden(output, moved.to(hidden.dtype))

    return run


def _scaled_experts(place: Projection, factors: torch.Tensor, shifts: torch.Tensor | None) -> tuple[nn.Parameter, torch.Tensor]:
    """Scales the second product of all experts, and returns it as it was."""
    weight = place.module.down_proj
    assert isinstance(weight, nn.Parameter)
    assert place.experts is not None
    if shifts is not None:
        raise ClasError("What is added to the activations of experts is no weight, so such a run cannot be verified.")
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
    if wrapped or not isinstance(weight, nn.Parameter) or weight.ndim != 2 or is_quantised(weight):
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
