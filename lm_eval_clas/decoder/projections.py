"""Finding where to read and steer each layer of any Hugging Face decoder: by structure, or failing loudly.

The intermediate activation `h` of an MLP is the input of its down-projection, whatever the family calls it
(`down_proj`, `fc2`, `dense_4h_to_h`, `c_proj`), so that is the one place to read neurons and to steer them: site `mlp`. The
concatenated heads of attention are the input of its output projection (`o_proj`, `out_proj`, `dense`, `c_proj`): site `attn`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from lm_eval_clas.base.errors import ClasError

ATTENTION = re.compile("attn|attention", re.IGNORECASE)
OTHER_TOWERS = re.compile("vision|visual|image|audio", re.IGNORECASE)
# Of attention: what makes queries, keys and values, alone, fused (query_key_value, Wqkv) or in two steps (kv_b_proj).
_INTO_HEADS = re.compile(r"(^|_)[qkv]+(_|$)|query|key|value|wqkv|c_attn", re.IGNORECASE)
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")

Site = Literal["mlp", "attn"]


@dataclass(frozen=True)
class Projection:
    """One layer's projection back to the hidden size: its name inside the model, the module, and its input width in neurons.

    `heads` is the number of attention heads that share the width evenly, one after the other; None for MLPs, and where the
    configuration names none that would.
    """

    name: str
    module: nn.Module
    neurons: int
    heads: int | None = None


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
        if isinstance(layers, nn.ModuleList) and len(layers) == count and not OTHER_TOWERS.search(name):
            return list(layers)
    raise ClasError(f"Found no list of {count} decoder layers in {type(model).__name__}; it is not supported here.")


def find_projections(model: nn.Module, site: Site = "mlp", pattern: str | None = None) -> list[Projection]:
    """The projections of all decoder layers whose inputs are the neurons of a site, first layer first.

    `mlp`: in each layer, the one linear module outside attention that maps back to the hidden size and has a sibling that
    widens the hidden size to its own input width (once, or twice for a fused gate and up projection). `attn`: the last linear
    module of the one attention module that maps to the hidden size and makes no queries, keys or values. Quantised and
    PEFT-wrapped linear modules count as linear; what a wrapper contains is not looked at.

    Args:
        model: a Hugging Face decoder, bare or wrapped by PEFT.
        site: where to look.
        pattern: a shell-style pattern of module names that overrides the search, e.g. `*.mlp.down_proj`.

    Raises:
        ClasError: no such module in some layer, or more than one (a mixture of experts); the message names the modules
            that were seen. Or the model is in slices (tensor parallelism), or is a wrapper without a configuration.
    """
    if not hasattr(model, "config"):
        raise ClasError(
            f"{type(model).__name__} has no configuration of a decoder; give the Hugging Face model, without wrappers such as "
            "DataParallel."
        )
    if int(getattr(model, "tp_size", None) or 1) > 1:
        raise slices_error()
    found = _matching(model, pattern) if pattern is not None else _by_structure(model, site)
    if site == "mlp":
        return found
    heads = getattr(text_config(model), "num_attention_heads", None)
    known = isinstance(heads, int) and heads > 0 and found[0].neurons % heads == 0
    return [replace(projection, heads=heads) for projection in found] if known else found


def _by_structure(model: nn.Module, site: Site) -> list[Projection]:
    config = text_config(model)
    experts = next((int(getattr(config, name) or 0) for name in _EXPERTS if hasattr(config, name)), 0)
    if site == "mlp" and experts > 1:
        raise ClasError(
            f"{type(model).__name__} is a mixture of {experts} experts, whose neurons have no single down-projection per layer "
            "(in transformers 5 all experts' weights are one tensor, with no module to hook); supported are its attention "
            "(clas profile --site attn), and a dense MLP beside the experts that projection=PATTERN names in every layer."
        )
    candidates = _down_projections if site == "mlp" else _attention_outputs
    found = []
    for name, layers in model.named_modules():
        if isinstance(layers, nn.ModuleList) and len(layers) == config.num_hidden_layers:
            if OTHER_TOWERS.search(name) and site == "attn":
                continue  # encoders of images and sounds have attention, too
            each = [list(candidates(layer, f"{name}.{i}", config.hidden_size)) for i, layer in enumerate(layers)]
            if all(len(one) == 1 for one in each):
                found.append([one[0] for one in each])
    if len(found) != 1 or len({projection.neurons for projection in found[0]}) != 1:
        what, example = _WORDS[site]
        raise ClasError(
            f"Found no single {what} in every layer of {type(model).__name__}; its modules are "
            f"{_seen(model, config.num_hidden_layers)}. Name them with projection=PATTERN, e.g. projection={example}."
        )
    return found[0]


def slices_error() -> ClasError:
    """What is said of tensor parallelism, in which every process sees a slice of each layer's neurons."""
    return ClasError(
        "With tensor parallelism (tp_plan), each process sees only a slice of every layer's neurons, and masks and profiles "
        "are of whole layers; drop tp_plan, and use parallelize=True for a model that is too large for one GPU."
    )


_WORDS: dict[Site, tuple[str, str]] = {
    "mlp": ("MLP down-projection", "*.mlp.down_proj"),
    "attn": ("output projection of attention", "*.self_attn.o_proj"),
}


@contextmanager
def reading(projections: Sequence[Projection], read: Callable[[int, torch.Tensor], None]) -> Iterator[Callable[[], None]]:
    """Calls `read(layer, h)` with the input of every projection inside the block.

    `h` is [batch, tokens, neurons], but for the MLPs of OPT, which flattens the first two.

    Yields:
        a function to call after each pass, which raises a ClasError if a projection was not read once in it.
    """
    times = [0] * len(projections)

    def hook(layer: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def count(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            times[layer] += 1
            read(layer, args[0])

        return count

    def passed() -> None:
        for projection, ran in zip(projections, times, strict=True):
            if ran != 1:
                raise ClasError(
                    f"'{projection.name}' runs {ran} times and not once in a pass on text alone, so its neurons cannot be "
                    "read; name other modules with projection=PATTERN."
                )
        times[:] = [0] * len(times)

    handles = [projection.module.register_forward_pre_hook(hook(i)) for i, projection in enumerate(projections)]
    try:
        yield passed
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


def _down_projections(layer: nn.Module, name: str, hidden: int) -> Iterator[Projection]:
    linears = [
        (full, features, module) for full, features, module in _linears(layer, name) if not ATTENTION.search(full[len(name) :])
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
            yield Projection(full, module, width)


def _attention_outputs(layer: nn.Module, name: str, hidden: int) -> Iterator[Projection]:
    by_parent: dict[str, Projection] = {}
    for full, (width, out), module in _linears(layer, name):
        parent, _, own = full.rpartition(".")
        if ATTENTION.search(parent[len(name) :]) and out == hidden and not _INTO_HEADS.search(own):
            by_parent[parent] = Projection(full, module, width)  # the last one stays
    yield from by_parent.values()


def _matching(model: nn.Module, pattern: str) -> list[Projection]:
    found = []
    for name, module in model.named_modules():
        if fnmatch.fnmatchcase(name, pattern) and (features := _features(module)) is not None:
            found.append(Projection(name, module, features[0]))
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
