"""Tiny random models of any family that transformers knows, shrunk from the family's default configuration by rules.

No family is named here. A field is shrunk by what its name says that it counts, so that a family which transformers adds
tomorrow is built tiny as it is; one that these rules do not make consistent is told apart from one that is not supported.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn


class _Width(int):
    """How wide something is; all others are counts, and the same in models that are wider."""


VOCABULARY, LAYERS, HEADS, EXPERTS = 320, 4, 4, 4
HIDDEN, NEURONS, HEAD_SIZE = _Width(32), _Width(48), _Width(8)

# What the names of fields say, the first rule that fits; the number is the largest value that stays.
_RULES: tuple[tuple[str, int], ...] = (
    (r"kv_shared", 2),
    (r"moe_layer_start|first_k_dense|num_dense_layers|num_nextn|mtp|num_mem_blocks|num_hash_layers", 1),
    (r"moe_layer_end", LAYERS - 1),
    (r"vocab", VOCABULARY),
    (r"max_position|max_seq|n_ctx|n_positions|max_target|max_source", 512),
    (r"^(num_)?(hidden_)?layers?$|(^|_)n_?layers?$|depth$|_layers$", LAYERS),
    (r"shared_experts|n_group|num_group|topk_group|^(mamba_)?expand$|_expand$", 1),
    (r"_period$|_interval$|_step$|_every|frequency", 2),
    (r"_offset$", 1),
    (r"num_experts_per|top_?k|experts_per_tok|moe_k", 2),
    (r"(num|n|routed|local)_experts|expert_num|num_.*experts", EXPERTS),
    (r"(kv|key_value)_heads|num_kv|multi_query_group|num_k(ey)?_heads|query_groups|n_head_kv", 2),
    (r"heads?$", HEADS),
    (r"index_head_dim", HEAD_SIZE),
    (r"rotary_dim", _Width(HEAD_SIZE // 2)),
    (r"head_?dim|head_size|d_kv|kv_channels|v_head", HEAD_SIZE),
    (r"lora_rank|_rank$|_rank_|low_rank", HEAD_SIZE),
    (r"intermediate|ffn|inner|feed_?forward|d_ff|mlp_dim|expert_.*size|n_inner", NEURONS),
    (r"hidden_size_per_layer|per_layer_input", HEAD_SIZE),
    (r"hidden|d_model|n_embd|embed|^dim$|emb_dim|width|model_dim|lru", HIDDEN),
    (r"state|chunk|n_groups|ssm", HEAD_SIZE),
    (r"image_size", 16),
    (r"patch_size", 8),
    (r"window|chunk_size|block_size|local", 16),
)

# What some families leave to whoever writes a configuration.
_NEEDED = {
    "num_key_value_heads": 2,
    "head_dim": HEAD_SIZE,
    "moe_intermediate_size": NEURONS,
    "num_experts_per_tok": 2,
    "n_routed_experts": EXPERTS,
    "attn_layer_indices": [1],
    "num_local_experts": EXPERTS,
}

_KV = re.compile("kv_heads|key_value_heads")


def tiny_config(config: Any, wider: int = 1) -> Any:
    """Shrinks a configuration and those inside it, in place; returns it."""
    _shrink(config, wider)
    return config


def tiny_model(model_type: str, seed: int = 0, wider: int = 1) -> nn.Module:
    """A tiny model of a family, seeded, in evaluation mode.

    Args:
        model_type: the family.
        seed: of the weights.
        wider: how many times as wide as a tiny model is, in its heads and its layers.

    Raises:
        Exception: whatever transformers raises where such a configuration is not consistent.
    """
    import transformers
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = tiny_config(CONFIG_MAPPING[model_type](), wider)
    causal = model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    wrapper = getattr(transformers, "AutoModelForMultimodalLM", None) or transformers.AutoModelForImageTextToText
    torch.manual_seed(seed)
    model: nn.Module = (transformers.AutoModelForCausalLM if causal else wrapper).from_config(config).float().eval()
    return model


def _shrink(config: Any, wider: int) -> None:
    before, heads = _get(config, "num_hidden_layers"), _get(config, "num_attention_heads")
    for name in list(vars(config)):
        value = vars(config)[name]
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            _shrink(value, wider)
        elif isinstance(value, bool):
            continue
        elif value is None and name in _NEEDED:
            setattr(config, name, _wide(_NEEDED[name], wider))
        elif isinstance(value, int):
            if name.endswith("_token_id") or name.endswith("token_index"):
                setattr(config, name, min(value, VOCABULARY - 1))
            elif (limit := _limit(name, wider)) is not None and value > limit:
                # Where every head has keys of its own, as latent attention needs it, it stays so.
                limit = HEADS if limit == 2 and value == heads and _KV.search(name) else limit
                setattr(config, name, limit)
        elif isinstance(value, list) and value and before and len(value) == before:
            setattr(config, name, _representative(value, LAYERS, wider))
        elif isinstance(value, list) and value and all(type(one) is int for one in value) and (limit := _limit(name, wider)):
            setattr(config, name, [min(one, limit) for one in value])


def _representative(by_layer: list[Any], count: int, wider: int) -> list[Any]:
    """`count` of a list's values: its kinds in turn, so that each is early, and late, too."""
    if all(type(one) is int for one in by_layer):
        return [min(one, _wide(NEURONS, wider)) for one in by_layer[:count]]
    kinds = list({repr(one): one for one in by_layer}.values())
    return [kinds[i % len(kinds)] for i in range(count)]


def _limit(name: str, wider: int) -> int | None:
    return next((_wide(limit, wider) for rule, limit in _RULES if re.search(rule, name)), None)


def _wide(limit: Any, wider: int) -> Any:
    return limit * wider if isinstance(limit, _Width) else limit


def _get(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except Exception:
        return None
