"""Linear modules of one layer that map back to the hidden size: the MLP's way down, and attention's way out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from lm_eval_clas.decoder.anatomy.configuration import whole_number
from lm_eval_clas.decoder.anatomy.decoder_lists import is_cross_attention

ATTENTION = re.compile("attn|attention", re.IGNORECASE)
# Attention without a softmax over keys: its outputs are states of a recurrence, and no heads' mixtures of values.
_RECURRENT = re.compile("linear_?att|lightning|delta|retention", re.IGNORECASE)
_DECAY = re.compile(r"decay|^A_?log$|^dt_|^D$|^time_", re.IGNORECASE)
# Of attention: what makes queries, keys and values, alone, fused (query_key_value, Wqkv) or in two steps (kv_b_proj), or gates.
_INTO_HEADS = re.compile(r"(^|_)w?[qkv]+(_|$)|query|key|value|wqkv|c_attn|gate|(^|_)[qkv]_?lin", re.IGNORECASE)
_NO_WEIGHTS_OF_ITS_OWN = re.compile("norm|act|gelu|silu|relu|xielu|dropout", re.IGNORECASE)
_COMPUTED_IN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_ONE_OF_EXPERTS = re.compile(r"(^|\.)experts?\.\d+(\.|$)", re.IGNORECASE)


@dataclass(frozen=True)
class LinearPart:
    """A linear module: its name in the layer, the module, its widths, and the module that it is a child of."""

    name: str
    module: nn.Module
    width: int
    out: int
    parent: nn.Module

    @property
    def own(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    @property
    def above(self) -> str:
        """The parent's name; empty for the layer itself."""
        return self.name.rpartition(".")[0]


def features(module: nn.Module) -> tuple[int, int] | None:
    """Input and output width of a linear module, plain, quantised or wrapped; None for anything else."""
    if isinstance(getattr(module, "in_features", None), int) and isinstance(getattr(module, "out_features", None), int):
        return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]
    if is_transposed(module):
        width_in, width_out = module.weight.shape  # type: ignore[union-attr, misc]
        return int(width_in), int(width_out)
    return None


def is_transposed(module: nn.Module) -> bool:
    """Whether a linear module's weight is [in, out], as GPT-2's is, and not [out, in]."""
    return type(module).__name__ == "Conv1D"


def is_quantised(weight: torch.Tensor) -> bool:
    """Whether a weight's numbers stand for others, which a scale beside them gives; those of 8 bits may be floats to torch."""
    return weight.dtype not in _COMPUTED_IN


def linear_parts(layer: nn.Module, name: str = "") -> Iterator[LinearPart]:
    """The linear modules of a layer; what a wrapper contains is not looked at."""
    for child_name, child in layer.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if (widths := features(child)) is not None:
            yield LinearPart(full, child, *widths, layer)
        else:
            yield from linear_parts(child, full)


def down_projections(layer: nn.Module, hidden: int) -> list[LinearPart]:
    """The ways down of a layer's MLPs: linear modules outside attention whose sibling widens the hidden size.

    Of several, those inside a module of their own win over those of the layer itself (a gate for per-layer embeddings), and
    those with an activation function over those without (a low-rank detour such as LAUREL). More than one is left where a
    layer has several MLPs, of one class.
    """
    linears = [part for part in linear_parts(layer) if not _attends(part, layer) and not _ONE_OF_EXPERTS.search(part.name)]
    found = [part for part in linears if part.out == hidden and _is_way_down(part, linears, layer, hidden)]
    if not any(part.width >= hidden for part in found):  # BERT keeps the two halves of its MLP in two modules
        found = [
            part
            for part in linears
            if part.out == hidden < part.width and any(one.width == hidden and one.out == part.width for one in linears)
        ] or found
    found = [part for part in found if part.parent is not layer] or found
    return [part for part in found if _has_activation(part.parent)] or found


def attention_outputs(layer: nn.Module, hidden: int) -> list[LinearPart]:
    """The ways out of a layer's attention: the last linear module in each that has a softmax over the text."""
    by_parent: dict[str, LinearPart] = {}
    for part in linear_parts(layer):
        if _attends(part, layer) and part.out == hidden and not _makes_heads(part) and _over_text(part, layer):
            by_parent[part.above] = part  # the last one stays
    return list(by_parent.values())


def heads_of(part: LinearPart, layer: nn.Module, config: object) -> int | None:
    """How many heads share a projection's input evenly: as its module says, or else the configuration; None if neither does."""
    around = [module for _, module in _path(part.name, layer)][::-1]
    for source in (*around, config):
        heads = whole_number(source, "num_heads", "num_attention_heads", "n_heads", "n_head")
        if heads is not None and part.width % heads == 0:
            return heads
    return None


def _is_way_down(part: LinearPart, linears: list[LinearPart], layer: nn.Module, hidden: int) -> bool:
    # A state-space mixer has the same widths, and parameters of other kinds; an MLP is made of linear modules alone.
    if part.parent is not layer and any(_has_other_weights(module) for module in part.parent.modules()):
        return False
    siblings = [one for one in linears if one is not part and one.parent is part.parent]
    if not any(one.width == hidden and one.out in (part.width, 2 * part.width) for one in siblings):
        return False
    # Where width and hidden size are equal, the widening sibling looks the same; the later module is the way back.
    return part.width != hidden or part is [one for one in linears if one.parent is part.parent][-1]


def _has_other_weights(module: nn.Module) -> bool:
    if features(module) is not None or _NO_WEIGHTS_OF_ITS_OWN.search(type(module).__name__):
        return False
    return any(True for _ in module.parameters(recurse=False))


def _has_activation(module: nn.Module) -> bool:
    names = {*vars(module), *(name for name, _ in module.named_children())}
    return any("act" in name or "gelu" in name for name in names)


def _path(name: str, layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules around a part, from the layer inwards, with their names."""
    parts = name.split(".")[:-1]
    for end in range(len(parts) + 1):
        yield ".".join(parts[:end]), layer.get_submodule(".".join(parts[:end])) if end else layer


def _attends(part: LinearPart, layer: nn.Module) -> bool:
    """Whether a part is inside attention of any kind, by the name or the class of a module around it."""
    return any(ATTENTION.search(name) or _is_attention(module) for name, module in _path(part.name, layer))


def _is_attention(module: nn.Module) -> bool:
    name = type(module).__name__
    return ATTENTION.search(name) is not None and not name.endswith(("Layer", "Block"))


def _over_text(part: LinearPart, layer: nn.Module) -> bool:
    """Whether the attention around a part has a softmax over the text."""
    around = list(_path(part.name, layer))
    if is_cross_attention(part.name) or any(_RECURRENT.search(name) for name, _ in around):
        return False
    attention = [module for name, module in around if _is_attention(module) or ATTENTION.search(name)]
    return not any(_RECURRENT.search(type(module).__name__) or _is_recurrence(module) for module in attention)


def _makes_heads(part: LinearPart) -> bool:
    """Whether a part of attention makes queries, keys or values: its own name says so, or that of a wrapper around it."""
    names = [part.own] if _is_attention(part.parent) else part.name.split(".")[-2:]
    return any(_INTO_HEADS.search(name) for name in names)


def _is_recurrence(module: nn.Module) -> bool:
    """Whether a module keeps a state: it has a convolution over time, or a decay of its own."""
    return any(_DECAY.search(name) for name, _ in module.named_parameters(recurse=False)) or any(
        isinstance(child, nn.Conv1d) for child in module.children()
    )
