"""The layers of a model inside vLLM whose projection multiplies its input by the row of each token.

vLLM runs a step for many requests at once: activations are [tokens, neurons], and the tokens of one request lie side by side.
`rows` has the row of each token; `tables` has the factors of each row. Both stay where they are while the engine runs, so that
compiled code and captured graphs read what was written last. What a layer multiplied is counted in the same place, by row.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from typing import Any

import torch
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.anatomy.decoder_lists import OTHER_TOWERS
from lm_eval_clas.decoder.anatomy.linear_parts import ATTENTION
from lm_eval_clas.decoder.projections import Site


def find_row_projections(model: nn.Module, count: int, site: Site, pattern: str | None = None) -> dict[int, Any]:
    """The projections of a site by layer, of those layers that this process has (all, but for pipeline parallelism).

    Args:
        model: as vLLM has loaded it.
        count: of layers in the whole model.
        site: where to look.
        pattern: a shell-style pattern of module names that overrides the search.

    Raises:
        ClasError: there is not one in each layer: a mixture of experts, adapters, or a model that vLLM has in another way.
    """
    from vllm.model_executor.layers.linear import RowParallelLinear
    from vllm.model_executor.models.utils import PPMissingLayer

    for name, layers in model.named_modules():
        if isinstance(layers, nn.ModuleList) and len(layers) == count and not OTHER_TOWERS.search(name):
            break
    else:
        raise ClasError(f"Found no list of {count} decoder layers in vLLM's {type(model).__name__}; use --model hf-clas.")
    found = {}
    for index, layer in enumerate(layers):
        if isinstance(layer, PPMissingLayer):
            continue
        seen = {f"{name}.{index}.{own}": one for own, one in layer.named_modules() if isinstance(one, RowParallelLinear)}
        if pattern is not None:
            kept = [one for full, one in seen.items() if fnmatch.fnmatchcase(full, pattern)]
        else:
            inside = re.compile(rf"^{re.escape(name)}\.{index}\.")
            kept = [one for full, one in seen.items() if bool(ATTENTION.search(inside.sub("", full))) == (site == "attn")]
        if len(kept) != 1:
            raise ClasError(
                f"Layer {index} of vLLM's {type(model).__name__} has {len(kept)} projections at the site '{site}' that can be "
                f"steered, and not one (its row-parallel modules are {', '.join(seen) or 'none'}); mixtures of experts are not "
                "steered in vLLM, so use --model hf-clas, or name a module with projection=PATTERN."
            )
        found[index] = kept[0]
    return found


@functools.cache
def steered(cls: type[nn.Module]) -> type[nn.Module]:
    """A subclass whose input is multiplied first."""

    def forward(self: Any, input_: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if input_.dtype != self.clas_table.dtype:
            raise ClasError(
                f"The activations before a down-projection arrive as {input_.dtype} and not as {self.clas_table.dtype}, "
                "quantised before they can be steered; use a checkpoint that quantises weights alone."
            )
        rows = self.clas_rows[: input_.shape[0]]
        self.clas_counts.index_add_(0, rows, self.clas_ones[: input_.shape[0]])
        return cls.forward(self, input_ * self.clas_table.index_select(0, rows), *args, **kwargs)

    return type(f"Steered{cls.__name__}", (cls,), {"forward": forward})


def put_rows(module: Any, rows: torch.Tensor, ones: torch.Tensor, count: int, neurons: int, dtype: torch.dtype) -> None:
    """Makes a projection multiply its input; at first, every row is ones.

    Args:
        module: vLLM's.
        rows: the row of each token, int64 [tokens of the largest step]; shared by all layers.
        ones: int64 of the same length.
        count: of rows.
        neurons: of a row of the whole layer.
        dtype: of the model.

    Raises:
        ClasError: the layer has another number of neurons.
    """
    if module.input_size != neurons:
        raise ClasError(
            f"This mask folder was made for another model: neurons per layer {neurons} there, {module.input_size} in the model "
            "that was loaded; profile this model, or load the one it was made for."
        )
    table = torch.ones(count, width(module), dtype=dtype, device=rows.device)
    module.register_buffer("clas_table", table, persistent=False)
    module.register_buffer("clas_rows", rows, persistent=False)
    module.register_buffer("clas_ones", ones, persistent=False)
    module.register_buffer("clas_counts", torch.zeros(count, dtype=torch.int64, device=rows.device), persistent=False)
    module.__class__ = steered(type(module))  # type: ignore[arg-type]


def width(module: Any) -> int:
    """How many neurons reach a projection in this process: a slice of them, with tensor parallelism."""
    return int(module.input_size_per_partition if module.input_is_parallel else module.input_size)


def own_columns(module: Any, table: torch.Tensor) -> torch.Tensor:
    """The columns of a table, [rows, neurons], that belong to this process: as the layer's weights are sliced."""
    wide = width(module)
    first = module.tp_rank * wide if module.input_is_parallel else 0
    return table[:, first : first + wide]
