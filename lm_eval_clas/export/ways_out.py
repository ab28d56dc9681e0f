"""Through which linear modules a constant leaves a layer as it is: found by running the layer with one as their bias.

Where nothing (a norm, a residual multiplier, a gate, a mixture of experts) lies between a projection and what leaves its layer,
a bias of the projection is added to that and to nothing else. No names tell, and no list of families: the layer is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from lm_eval_clas.decoder.anatomy.configuration import vocabulary
from lm_eval_clas.decoder.anatomy.layer_results import hidden_in, require_hidden
from lm_eval_clas.decoder.anatomy.linear_parts import LinearPart, linear_parts
from lm_eval_clas.decoder.projections import Projection, layer_outputs
from lm_eval_clas.decoder.text_batches import device_of

_TOKENS = 4
# By how much of its largest value what leaves a layer may be off, in float32: the sums are made in another order.
_TOLERANCE = 1e-5


def ways_out(model: nn.Module, layers: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """By layer, the names of the linear modules whose bias is added to what leaves it, and to nothing else; the last first.

    The model runs once, on a few tokens. At each of the layers, a copy of it in float32 runs again on what the layer was given,
    once for each of the modules that could be one. A layer that runs more than once, or a module that several share, has none.

    Args:
        model: with weights, in any floating dtype.
        layers: zero-based.

    Raises:
        ClasError: the model has no list of layers, or a layer gives no hidden state for each token.
    """
    places = [place for place in layer_outputs(model) if place.layer in layers]
    found: dict[int, tuple[str, ...]] = {}
    handles = [place.module.register_forward_hook(_trying(place, found), with_kwargs=True) for place in places]
    try:
        with torch.no_grad():
            model(input_ids=(torch.arange(_TOKENS)[None] % vocabulary(model)).to(device_of(model)), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))

    def alone(name: str) -> bool:
        return uses[id(model.get_submodule(name))] == 1

    return {layer: tuple(filter(alone, found.get(layer, ()))) for layer in layers}


def could_leave(layer: Projection) -> tuple[str, ...]:
    """The names of a layer's linear modules that give hidden states, the last first."""
    return tuple(f"{layer.name}.{part.name}" for part in _candidates(layer.module, layer.neurons))


def _candidates(layer: nn.Module, hidden: int) -> list[LinearPart]:
    return [part for part in linear_parts(layer) if part.out == hidden and hasattr(part.module, "bias")][::-1]


def _trying(place: Projection, found: dict[int, tuple[str, ...]]) -> Callable[..., None]:
    def run(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        if place.layer in found:
            found[place.layer] = ()
            return
        layer = deepcopy(module).float().eval()
        given = _in_float32(args), _in_float32(kwargs)

        def leaving() -> torch.Tensor:
            return require_hidden(place.name, hidden_in(layer.forward(*given[0], **given[1])), place.neurons)

        before = leaving()
        constant = torch.randn(place.neurons, generator=torch.Generator().manual_seed(place.layer)).to(before.device)
        constant *= before.square().mean().sqrt()
        expected = before + constant
        allowed = _TOLERANCE * expected.abs().max()
        found[place.layer] = tuple(
            f"{place.name}.{part.name}"
            for part in _candidates(layer, place.neurons)
            if ((_with_bias(part.module, constant, leaving) - expected).abs().max() <= allowed).item()
        )

    return run


def _with_bias(module: Any, constant: torch.Tensor, run: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `run` gives while the bias of a linear module is larger by a constant."""
    own = module.bias
    module.bias = nn.Parameter(constant if own is None else own + constant, requires_grad=False)
    try:
        return run()
    finally:
        module.bias = own


def _in_float32(value: Any) -> Any:
    """The same with every floating tensor in float32, also in tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if type(value) in (tuple, list):
        return type(value)(map(_in_float32, value))
    return {key: _in_float32(one) for key, one in value.items()} if type(value) is dict else value
