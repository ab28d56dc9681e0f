"""Finding each layer's MLP down-projection in any Hugging Face decoder: by structure, or failing loudly.

The intermediate activation `h` of an MLP is the input of its down-projection, whatever the family calls it
(`down_proj`, `fc2`, `dense_4h_to_h`, `c_proj`), so that is the one place to read neurons and to steer them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lm_eval_clas.errors import ClasError

_ATTENTION = re.compile("attn|attention", re.IGNORECASE)
_OTHER_TOWERS = re.compile("vision|visual|image|audio", re.IGNORECASE)
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True)
class DownProjection:
    """One layer's down-projection: its name inside the model, the module, and its input width in neurons."""

    name: str
    module: nn.Module
    neurons: int


def text_config(model: nn.Module) -> Any:
    """The configuration of the text decoder, also where a multimodal model nests it."""
    config: Any = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of the text decoder, in order.

    Raises:
        ClasError: no list of modules has as many as the configuration names.
    """
    count = text_config(model).num_hidden_layers
    for name, layers in model.named_modules():
        if isinstance(layers, nn.ModuleList) and len(layers) == count and not _OTHER_TOWERS.search(name):
            return list(layers)
    raise ClasError(f"Found no list of {count} decoder layers in {type(model).__name__}; it is not supported here.")


def find_down_projections(model: nn.Module, pattern: str | None = None) -> list[DownProjection]:
    """The down-projections of all decoder layers, first layer first.

    In each layer it is the one linear module outside attention that maps back to the hidden size and has a sibling
    that widens the hidden size to its own input width (once, or twice for a fused gate and up projection). Quantised
    and PEFT-wrapped linear modules count as linear; what a wrapper contains is not looked at.

    Args:
        model: a Hugging Face decoder, bare or wrapped by PEFT.
        pattern: a shell-style pattern of module names that overrides the search, e.g. `*.mlp.down_proj`.

    Raises:
        ClasError: no such module in some layer, or more than one (a mixture of experts); the message names the modules
            that were seen. Or the model is in slices (tensor parallelism).
    """
    if int(getattr(model, "tp_size", None) or 1) > 1:
        raise slices_error()
    if pattern is not None:
        return _matching(model, pattern)
    config = text_config(model)
    experts = next((int(getattr(config, name) or 0) for name in _EXPERTS if hasattr(config, name)), 0)
    if experts > 1:
        raise ClasError(
            f"{type(model).__name__} is a mixture of {experts} experts, whose neurons have no single down-projection per "
            "layer; it is not supported (projection=PATTERN steers the modules you name)."
        )
    found = []
    for name, layers in model.named_modules():
        if isinstance(layers, nn.ModuleList) and len(layers) == config.num_hidden_layers:
            each = [list(_candidates(layer, f"{name}.{i}", config.hidden_size)) for i, layer in enumerate(layers)]
            if all(len(one) == 1 for one in each):
                found.append([one[0] for one in each])
    if len(found) != 1 or len({projection.neurons for projection in found[0]}) != 1:
        raise ClasError(
            f"Found no single MLP down-projection in every layer of {type(model).__name__}; its modules are "
            f"{_seen(model, config.num_hidden_layers)}. Name them with projection=PATTERN, e.g. projection=*.mlp.down_proj."
        )
    return found[0]


def slices_error() -> ClasError:
    """What is said of tensor parallelism, in which every process sees a slice of each layer's neurons."""
    return ClasError(
        "With tensor parallelism (tp_plan), each process sees only a slice of every layer's neurons, and masks and profiles "
        "are of whole layers; drop tp_plan, and use parallelize=True for a model that is too large for one GPU."
    )


@contextmanager
def reading(projections: Sequence[DownProjection], read: Callable[[int, torch.Tensor], None]) -> Iterator[None]:
    """Calls `read(layer, h)` with every layer's intermediate activation inside the block.

    `h` is [batch, tokens, neurons], but for OPT, which flattens the first two.
    """

    def hook(layer: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda module, args: read(layer, args[0])

    handles = [projection.module.register_forward_pre_hook(hook(i)) for i, projection in enumerate(projections)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _features(module: nn.Module) -> tuple[int, int] | None:
    """Input and output width of a linear module, plain, quantised or wrapped; None for anything else."""
    if isinstance(getattr(module, "in_features", None), int) and isinstance(getattr(module, "out_features", None), int):
        return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]
    if type(module).__name__ == "Conv1D":  # GPT-2's transposed linear module
        width_in, width_out = module.weight.shape  # type: ignore[union-attr, misc]
        return int(width_in), int(width_out)
    return None


def _linears(module: nn.Module, name: str) -> Iterator[tuple[str, tuple[int, int], nn.Module]]:
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}"
        if (features := _features(child)) is not None:
            yield full, features, child
        else:
            yield from _linears(child, full)


def _candidates(layer: nn.Module, name: str, hidden: int) -> Iterator[DownProjection]:
    linears = [
        (full, features, module) for full, features, module in _linears(layer, name) if not _ATTENTION.search(full[len(name) :])
    ]
    for full, (width, out), module in linears:
        parent = full.rpartition(".")[0]
        # A state-space mixer has the same widths, and parameters of its own; an MLP is made of linear modules alone.
        if parent != name and any(True for _ in layer.get_submodule(parent[len(name) + 1 :]).parameters(recurse=False)):
            continue
        siblings = [f for other, f, _ in linears if other != full and other.rpartition(".")[0] == parent]
        if out == hidden and any(f[0] == hidden and f[1] in (width, 2 * width) for f in siblings):
            # Where width and hidden size are equal, the widening sibling looks the same; the later module is the way back.
            if width == hidden and full != linears[-1][0]:
                continue
            yield DownProjection(full, module, width)


def _matching(model: nn.Module, pattern: str) -> list[DownProjection]:
    found = []
    for name, module in model.named_modules():
        if fnmatch.fnmatchcase(name, pattern) and (features := _features(module)) is not None:
            found.append(DownProjection(name, module, features[0]))
    found.sort(key=lambda projection: [int(number) for number in re.findall(r"\d+", projection.name)])
    layers = text_config(model).num_hidden_layers
    if len(found) != layers or len({projection.neurons for projection in found}) != 1:
        raise ClasError(
            f"projection={pattern} matches {len(found)} linear modules of {type(model).__name__}, but it must match one "
            f"of equal width in each of its {layers} layers; its modules are {_seen(model, layers)}."
        )
    return found


def _seen(model: nn.Module, layers: int) -> str:
    """The names of the modules in one layer (or at the top, where no list of layers is found), for an error message."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return ", ".join(f"{name}.0.{child}" for child, _ in module[0].named_modules() if child) or name
    return ", ".join(name for name, _ in model.named_modules() if name.count(".") < 2 and name)
