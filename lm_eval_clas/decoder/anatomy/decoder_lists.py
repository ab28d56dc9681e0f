"""The list of a decoder's layers, never that of a vision or audio tower beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.anatomy.configuration import field, text_config, whole_number

OTHER_TOWERS = re.compile("vision|visual|image|audio|speech", re.IGNORECASE)
_CROSS = re.compile("cross_?attn|cross_?attention|encoder_attn|encdec", re.IGNORECASE)
_ANY_ATTENTION = re.compile("attn|attention", re.IGNORECASE)


def layer_count(model: nn.Module) -> int:
    """How many layers the configuration says that the text decoder has.

    Raises:
        ClasError: it does not say.
    """
    count = whole_number(text_config(model), "num_hidden_layers", "num_layers", "n_layer", "n_layers")
    if count is None:
        raise ClasError(f"The configuration of {type(model).__name__} names no number of layers; it is not supported here.")
    return count


def decoder_lists(model: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """Every list of modules in the text decoder that has as many as it has layers, with its name."""
    count = layer_count(model)
    for name, module in _outside_towers(model, "", text_config(model)):
        if isinstance(module, nn.ModuleList) and len(module) == count and not OTHER_TOWERS.search(name):
            yield name, module


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of the text decoder, in order.

    Raises:
        ClasError: no list of modules has as many as the configuration names.
    """
    for _, layers in decoder_lists(model):
        return list(layers)
    raise ClasError(
        f"Found no list of {layer_count(model)} decoder layers in {type(model).__name__}; it is not supported here."
    )


def runs_on_text(layer: nn.Module) -> bool:
    """Whether a layer has any part in a pass without images or an encoder: its attention is not cross-attention alone."""
    modules = ((name, module) for name, module in layer.named_modules() if any(True for _ in module.children()))
    attention = [name for name, _ in modules if _ANY_ATTENTION.search(name.rpartition(".")[2])]
    return not attention or not all(_CROSS.search(name) for name in attention)


def is_cross_attention(name: str) -> bool:
    """Whether a module's name says that it attends to something else than the text."""
    return _CROSS.search(name) is not None


def _outside_towers(module: nn.Module, name: str, text: Any) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a model but for its towers: models inside that have another configuration than the text decoder's.

    Names alone do not tell: a tower may have the decoder's depth and width, and any name.
    """
    yield name, module
    for child_name, child in module.named_children():
        own = getattr(child, "config", None)
        if hasattr(child, "get_input_embeddings") and own is not None and not _holds(own, text):
            continue
        yield from _outside_towers(child, f"{name}.{child_name}" if name else child_name, text)


def _holds(config: Any, text: Any) -> bool:
    """Whether a configuration is the text decoder's, or has it inside."""
    inner = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return inner is text or field(inner, "model_type") == field(text, "model_type")
