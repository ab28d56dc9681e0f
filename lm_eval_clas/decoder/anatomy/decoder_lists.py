"""The list of a decoder's layers, in a model and in a checkpoint, never that of a tower or of another decoder beside it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
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


def keys_of_layer(module: str, keys: Iterable[str]) -> dict[str, list[str]]:
    """A checkpoint's names of weights in the layer that a module is in, by what stands before the list of layers.

    That depends on what was saved, and a checkpoint may hold other decoders beside: heads that predict further tokens
    (`mtp.layers.0`), a draft. Where the model's own list is there under the name that it has in the model, it is the only one.
    """
    before, rest = from_layers_on(module)
    layer = re.compile(rf"(?:^|\.){re.escape('.'.join(rest.split('.')[:2]))}(?:\.|$)")
    found: dict[str, list[str]] = {}
    for key in keys:
        if (match := layer.search(key)) and not OTHER_TOWERS.search(key):
            found.setdefault(key[: match.start()], []).append(key)
    return {before: found[before]} if before in found else found


def likeliest_list(module: str, lists: Collection[str]) -> list[str]:
    """Of the lists of `keys_of_layer` that have what is looked for, the one that is the model's; several if it cannot be told.

    It is all that there is; or the only one that has all of the names before the model's own list, or none but these: for
    `model`, `language_model.model` or nothing, and not `mtp`.
    """
    own = _names_in(from_layers_on(module)[0])
    kin = [one for one in lists if own <= _names_in(one) or _names_in(one) <= own]
    return kin if len(kin) == 1 and len(lists) > 1 else list(lists)


def from_layers_on(name: str) -> tuple[str, str]:
    """A name in two: what stands before the list of layers, and the rest; all is the rest where there is no number.

    `model.layers.7.mlp.down_proj` is `model` and `layers.7.mlp.down_proj`.
    """
    parts = name.split(".")
    start = next((i - 1 for i, part in enumerate(parts) if part.isdigit() and i > 0), 0)
    return ".".join(parts[:start]), ".".join(parts[start:])


def _names_in(name: str) -> set[str]:
    return {part for part in name.split(".") if part}


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
