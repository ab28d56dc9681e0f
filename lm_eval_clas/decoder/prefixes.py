"""What sequences have in common at their start: which of them run together, and whether that is exact for a model."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.base.logs import own_logger
from lm_eval_clas.decoder.anatomy.configuration import field
from lm_eval_clas.decoder.anatomy.decoder_lists import decoder_lists, runs_on_text
from lm_eval_clas.decoder.text_batches import device_of

logger = own_logger("lm_eval.models.hf_clas")

# A shared prefix costs one more pass, which pays from about this many tokens on.
_WORTH = 8
# Sequences that are tried as one group; only few-shot prompts that all start alike have more in common.
_LARGEST = 64


@dataclass(frozen=True)
class Continuation:
    """One continuation to be scored.

    Attributes:
        tokens: the model's input: context and continuation but for the last token, cut from the left where too long.
        targets: the continuation; its last token is predicted at the last position of `tokens`.
    """

    tokens: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Requests whose inputs start with the same tokens.

    Attributes:
        prefix: what they share; all of it, where they have no suffixes.
        members: by distinct suffix (empty where the prefix is the whole input), the positions of the requests that end so.
    """

    prefix: tuple[int, ...]
    members: dict[tuple[int, ...], list[int]]

    @property
    def has_suffixes(self) -> bool:
        """Whether anything is left to run after the prefix."""
        return any(self.members)

    @property
    def longest(self) -> int:
        """Tokens in the longest input."""
        return len(self.prefix) + max(map(len, self.members))


def group_by_prefix(requests: Sequence[Continuation], share: bool) -> list[Group]:
    """Groups requests so that the fewest tokens are run; the group with the longest input comes first.

    Requests with the same input are always one. With `share`, sorted inputs are cut into runs whose common prefix runs once.
    """
    same: dict[tuple[int, ...], list[int]] = {}
    for position, request in enumerate(requests):
        same.setdefault(request.tokens, []).append(position)
    inputs = sorted(same)
    runs = _cheapest_runs(inputs) if share else [(i, i + 1, len(tokens)) for i, tokens in enumerate(inputs)]
    groups = [
        Group(inputs[first][:common], {tokens[common:]: same[tokens] for tokens in inputs[first:end]})
        for first, end, common in runs
    ]
    return sorted(groups, key=lambda group: (group.longest, len(group.prefix)), reverse=True)


def _cheapest_runs(inputs: list[tuple[int, ...]]) -> list[tuple[int, int, int]]:
    """Cuts sorted inputs into runs (first, end, shared tokens) at the least cost, by dynamic programming."""
    following = [_common(one, other) for one, other in pairwise(inputs)]
    best = [0]  # the cost of the inputs before each position
    cuts: list[tuple[int, int]] = []  # the run that ends at each position: its first input and what it shares
    for end in range(1, len(inputs) + 1):
        length = common = len(inputs[end - 1])
        cost, cut = best[end - 1] + length, (end - 1, length)
        for first in range(end - 2, max(-1, end - 1 - _LARGEST), -1):
            common = min(common, following[first])
            if common < _WORTH:
                break
            length += len(inputs[first])
            together = best[first] + length - common * (end - first - 1) + _WORTH
            if together < cost:
                cost, cut = together, (first, common)
        best.append(cost)
        cuts.append(cut)
    runs = []
    end = len(inputs)
    while end:
        first, common = cuts[end - 1]
        runs.append((first, end, common))
        end = first
    return runs


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    for position, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return position
    return min(len(one), len(other))


def cache_parameter(takes: Iterable[str]) -> str | None:
    """The parameter that a model takes its key-value cache by: `past_key_values`, which transformers 5 renamed on its way."""
    return next((name for name in takes if name in ("cache", "past_key_values")), None)


def can_share_prefixes(model: nn.Module) -> bool:
    """Whether going on from a left-padded key-value cache is exact for this model.

    It is where every layer is full or sliding-window attention over keys of its own, and positions are either told to the
    model or relative (ALiBi). It is not for recurrent layers, for attention in fixed chunks of absolute positions, for
    layers that share keys or do not run on text, for rotary embeddings that change with the length of the whole input, for
    positions that do not begin at 0, and where attention sees fewer keys than are in the cache, or other ones. What is left is
    tried once for each model, on a few tokens: code of a family's own may not take such a cache at all.
    """
    return _looks_shareable(model) and _goes_on_from_cache(model)


def _looks_shareable(model: nn.Module) -> bool:
    """What can be told without running the model."""
    config: Any = model.config
    text = config.get_text_config(decoder=True)
    takes = inspect.signature(model.forward).parameters
    if cache_parameter(takes) is None or "attention_mask" not in takes:
        return False
    if "position_ids" not in takes and not (field(text, "alibi", False) or text.model_type == "bloom"):
        return False
    rope = field(text, "rope_parameters", None) or field(text, "rope_scaling", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    if any(kind.get("rope_type", kind.get("type")) in ("dynamic", "longrope") for kind in kinds):
        return False
    if set(field(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}:
        return False
    if field(text, "attention_chunk_size", None) or field(text, "num_kv_shared_layers", 0):
        return False
    if _masks_by_content(model) or _counts_positions_from_tokens(model):
        return False
    if not _all_layers_run(model):
        return False
    try:
        layers = DynamicCache(config=config).layers
    except (TypeError, AttributeError, KeyError):  # a model with a cache of its own kind
        return False
    if any(isinstance(layer, DynamicSlidingWindowLayer) for layer in layers) and not _masks_by_window(model):
        return False  # the cache would drop keys that the model attends to
    # Some caches make their layers as they go; those are all full attention.
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


_tried: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _goes_on_from_cache(model: nn.Module) -> bool:
    """Whether a pass over padded prefixes and one over what follows them run at all."""
    if model not in _tried:
        try:
            _go_on_from_cache(model)
        except Exception as error:  # the family's own code may raise every kind
            reason = first_line(error)
            logger.info("hf-clas: every request runs whole, as %s takes no shared prefix: %s", type(model).__name__, reason)
            _tried[model] = False
        else:
            _tried[model] = True
    return _tried[model]


@torch.no_grad()
def _go_on_from_cache(model: nn.Module) -> None:
    takes = inspect.signature(model.forward).parameters
    device, cache = device_of(model), DynamicCache(config=model.config)
    name = cache_parameter(takes)
    assert name is not None
    given = torch.ones(2, 6, dtype=torch.long, device=device)
    given[1, 0] = 0  # the second prefix is shorter
    positions = (given.cumsum(-1) - 1).clamp(min=0)
    for here in (slice(0, 4), slice(4, 6)):
        inputs = {"input_ids": positions[:, here], "attention_mask": given[:, : here.stop], "position_ids": positions[:, here]}
        model(**{one: value for one, value in inputs.items() if one in takes}, **{name: cache}, use_cache=True)
        rows = torch.tensor([0, 1], device=device)
        cache.batch_select_indices(rows)


def _all_layers_run(model: nn.Module) -> bool:
    """Whether all layers run on text alone: others leave nothing in the cache."""
    try:
        return all(runs_on_text(layer) for _, layers in decoder_lists(model) for layer in layers)
    except ClasError:  # a model whose configuration names no layers
        return False


def _masks_by_content(model: nn.Module) -> bool:
    """Whether attention has weights that decide which keys it sees, among which those of padding would count."""
    return any(
        name in ("A", "dt_bias")
        for module in model.modules()
        if "Attention" in type(module).__name__
        for name, _ in module.named_parameters(recurse=False)
    )


def _counts_positions_from_tokens(model: nn.Module) -> bool:
    """Whether positions begin elsewhere than at 0, as RoBERTa's do behind its padding token's number, and cannot be told."""
    return any(
        isinstance(module, nn.Embedding) and module.padding_idx is not None and "position" in name
        for name, module in model.named_modules()
    )


def _masks_by_window(model: nn.Module) -> bool:
    """Whether the model's code masks what is outside a sliding window, as far as can be seen from what it imports."""
    for module in model.modules():
        code = vars(sys.modules.get(type(module).__module__) or object)
        if "create_causal_mask" in code:
            return "create_sliding_window_causal_mask" in code
    return True  # versions before transformers made masks in one place
