"""The places of a model inside vLLM that change what passes through them by the row of each token: what enters a projection,
or what leaves a decoder layer.

vLLM runs a step for many requests at once: activations are [tokens, width], and the tokens of one request lie side by side.
`rows` has the row of each token; `factors` and `shifts` have what each row multiplies by and adds. All of them stay where they
are while the engine runs, so that compiled code and captured graphs read what was written last. How many tokens a place changed
is counted there, by row.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Container
from typing import Any

import torch
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.anatomy.decoder_lists import OTHER_TOWERS
from lm_eval_clas.decoder.anatomy.layer_results import hidden_in, with_hidden
from lm_eval_clas.decoder.anatomy.linear_parts import ATTENTION
from lm_eval_clas.decoder.projections import Site
from lm_eval_clas.engine.row_tables import NEUTRAL, Operand, RowRoom


def find_row_projections(
    model: nn.Module, count: int, steered: Container[int], site: Site, pattern: str | None = None
) -> dict[int, Any]:
    """The projections of a site by layer, of those steered layers that this process has (all, but for pipeline parallelism).

    Args:
        model: as vLLM has loaded it.
        count: of layers in the whole model.
        steered: the layers to look at; what the others are does not matter.
        site: where to look.
        pattern: a shell-style pattern of module names that overrides the search.

    Raises:
        ClasError: there is not one in each layer: a hybrid's other mixer, adapters, or a model that vLLM has in another way.
    """
    from vllm.model_executor.layers.linear import RowParallelLinear

    found = {}
    name, layers = _own_layers(model, count, steered)
    for index, layer in layers.items():
        seen = {f"{name}.{index}.{own}": one for own, one in layer.named_modules() if isinstance(one, RowParallelLinear)}
        if pattern is not None:
            kept = [one for full, one in seen.items() if fnmatch.fnmatchcase(full, pattern)]
        else:
            inside = re.compile(rf"^{re.escape(name)}\.{index}\.")
            kept = [one for full, one in seen.items() if bool(ATTENTION.search(inside.sub("", full))) == (site == "attn")]
        if len(kept) != 1:
            raise ClasError(
                f"Layer {index} of vLLM's {type(model).__name__} has {len(kept)} projections at the site '{site}' that can be "
                f"steered, and not one (its row-parallel modules are {', '.join(seen) or 'none'}); use --model hf-clas, or "
                "name the right one with projection=PATTERN, which --model vllm-clas has."
            )
        found[index] = kept[0]
    return found


def find_row_outputs(model: nn.Module, count: int, steered: Container[int], dtype: torch.dtype) -> dict[int, Any]:
    """The steered decoder layers of this process, by number: what leaves them can be moved.

    Args:
        model: as vLLM has loaded it.
        count: of layers in the whole model.
        steered: the layers to look at; what the others are does not matter.
        dtype: of the model.

    Raises:
        ClasError: something is known to run the layers, or what leaves them, in another way than their code says.
    """
    name, layers = _own_layers(model, count, steered)
    for index, layer in layers.items():
        if "forward" in vars(layer):
            raise ClasError(
                f"vLLM has put something in the place of layer '{name}.{index}', as it does to keep weights outside of the GPU "
                "(cpu_offload_gb), so that what leaves it cannot be steered; start without that."
            )
        if dtype == torch.float16 and hasattr(layer, "routed_scaling_factor"):
            raise ClasError(
                f"vLLM's {type(model).__name__} scales what leaves its layers down in float16, and what is added would be too "
                "large there; use dtype=bfloat16."
            )
    return layers


def _own_layers(model: nn.Module, count: int, steered: Container[int]) -> tuple[str, dict[int, Any]]:
    """The list of decoder layers by its name, and those steered ones that this process has."""
    from vllm.model_executor.models.utils import PPMissingLayer

    for name, layers in model.named_modules():
        if isinstance(layers, nn.ModuleList) and len(layers) == count and not OTHER_TOWERS.search(name):
            own = {index: layer for index, layer in enumerate(layers) if not isinstance(layer, PPMissingLayer)}
            return name, {index: layer for index, layer in own.items() if index in steered}
    raise ClasError(f"Found no list of {count} decoder layers in vLLM's {type(model).__name__}; use --model hf-clas.")


@functools.cache
def steered_input(cls: type[nn.Module]) -> type[nn.Module]:
    """A subclass of a projection whose input is changed first."""

    def forward(self: Any, input_: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if input_.dtype != self.clas_dtype:
            raise ClasError(
                f"The activations before a down-projection arrive as {input_.dtype} and not as {self.clas_dtype}, "
                "quantised before they can be steered; use a checkpoint that quantises weights alone."
            )
        return cls.forward(self, _changed(self, input_), *args, **kwargs)

    return type(f"Steered{cls.__name__}", (cls,), {"forward": forward})


@functools.cache
def steered_output(cls: type[nn.Module]) -> type[nn.Module]:
    """A subclass of a decoder layer whose output is changed.

    Most layers of vLLM give two tensors, (h, r), whose sum is the output: the norm of the next layer adds them, in one kernel
    with its own work. What is added to h is added to that sum. It is added to h and not to r, because other layers give the
    whole output as h: alone (Granite's), with an r of None (Gemma 4's), or with an r that nobody reads (Cohere's); and because
    h, what the layer itself adds, is mostly the smaller one, so that less is lost to rounding in bfloat16.
    """

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = cls.forward(self, *args, **kwargs)
        hidden = hidden_in(output)
        if hidden.shape[-1] != self.clas_shifts.shape[1] or hidden.dtype != self.clas_dtype:
            raise ClasError(
                f"What leaves a {cls.__name__} of vLLM is {hidden.dtype} with {hidden.shape[-1]} numbers for a token, and not "
                f"{self.clas_dtype} with {self.clas_shifts.shape[1]}; use --model hf-clas for methods that act there."
            )
        return with_hidden(output, _changed(self, hidden))

    return type(f"Steered{cls.__name__}", (cls,), {"forward": forward})


def _changed(module: Any, h: torch.Tensor) -> torch.Tensor:
    """An activation after its rows, [tokens, width]; counts the tokens."""
    if h.ndim != 2 and (h.ndim != 3 or h.shape[0] != 1):  # transformers' own code, run by vLLM, has [1, tokens, width]
        raise ClasError(
            f"Activations in vLLM's {type(module).__name__} have {h.ndim} axes, and not one for tokens and one for numbers; "
            "use --model hf-clas."
        )
    rows = module.clas_rows[: h.shape[-2]]
    module.clas_counts.index_add_(0, rows, module.clas_ones[: h.shape[-2]])
    changed: torch.Tensor
    if module.clas_shifts is None:
        changed = h * module.clas_factors.index_select(0, rows)
    elif module.clas_factors is None:
        changed = h + module.clas_shifts.index_select(0, rows)
    else:
        changed = torch.addcmul(module.clas_shifts.index_select(0, rows), h, module.clas_factors.index_select(0, rows))
    return changed


def put_rows(
    module: Any, room: RowRoom, layer: int, rows: torch.Tensor, ones: torch.Tensor, found: int, dtype: torch.dtype
) -> None:
    """Makes a projection change its input, or a decoder layer its output; at first, no row changes anything.

    Args:
        module: vLLM's.
        room: what there is to be room for.
        layer: whose module it is.
        rows: the row of each token, int64 [tokens of the largest step]; shared by all layers.
        ones: int64 of the same length.
        found: how many numbers the whole model has there for a token.
        dtype: of the model.

    Raises:
        ClasError: that is another number than a row has.
    """
    if found != room.width(layer):
        raise ClasError(
            f"What is to be steered in layer {layer} has {found} numbers for a token in vLLM's {type(module).__name__}, and "
            f"{room.width(layer)} in the masks; use --model hf-clas."
        )
    module.clas_columns = own_columns(module) if room.place == "neurons" else slice(found)
    wide = len(range(found)[module.clas_columns])
    for operand, neutral in NEUTRAL.items():
        table = torch.full((room.rows, wide), neutral, dtype=dtype, device=rows.device) if operand in room.operands else None
        module.register_buffer(f"clas_{operand}", table, persistent=False)
    module.register_buffer("clas_rows", rows, persistent=False)
    module.register_buffer("clas_ones", ones, persistent=False)
    module.register_buffer("clas_counts", torch.zeros(room.rows, dtype=torch.int64, device=rows.device), persistent=False)
    module.clas_dtype = dtype
    module.__class__ = (steered_input if room.place == "neurons" else steered_output)(type(module))  # type: ignore[arg-type]


def own_columns(module: Any) -> slice:
    """The neurons that reach a projection in this process: with tensor parallelism, sliced as the layer's weights are."""
    if not module.input_is_parallel:
        return slice(module.input_size)
    wide = module.input_size_per_partition
    return slice(module.tp_rank * wide, (module.tp_rank + 1) * wide)


def row_tables_in(module: Any) -> dict[Operand, torch.Tensor]:
    """The tables that `put_rows` gave a module."""
    found = {operand: getattr(module, f"clas_{operand}") for operand in NEUTRAL}
    return {operand: table for operand, table in found.items() if table is not None}
