"""Small seeded models of every family."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

LAYERS, NEURONS, HIDDEN = 6, 48, 32
Run = Callable[..., tuple[int, str, str]]  # exit code, standard output, standard error of a command
_LLAMA_LIKE = {
    "hidden_size": HIDDEN,
    "intermediate_size": NEURONS,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
FAMILIES: dict[str, dict[str, object]] = {
    "llama": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": {**_LLAMA_LIKE, "head_dim": 8},
    "mistral": {**_LLAMA_LIKE, "sliding_window": 64},
    "gemma2": {**_LLAMA_LIKE, "head_dim": 8, "sliding_window": 64},
    "gemma3_text": {**_LLAMA_LIKE, "head_dim": 8, "sliding_window": 64},
    "phi3": _LLAMA_LIKE,
    "gpt_neox": {**_LLAMA_LIKE, "rotary_pct": 0.5},
    "opt": {
        "hidden_size": HIDDEN,
        "ffn_dim": NEURONS,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "word_embed_proj_dim": HIDDEN,
    },
    "bloom": {"hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": 4},  # always 4 x hidden neurons
    "xglm": {
        "d_model": HIDDEN,
        "ffn_dim": NEURONS,
        "num_layers": LAYERS,
        "attention_heads": 4,
        "max_position_embeddings": 512,
        "init_std": 0.3,  # what XGLM reads instead of `initializer_range`
    },
    "gpt2": {"n_embd": HIDDEN, "n_inner": NEURONS, "n_layer": LAYERS, "n_head": 4, "n_positions": 512},
    "falcon": {"hidden_size": HIDDEN, "ffn_hidden_size": NEURONS, "num_hidden_layers": LAYERS, "num_attention_heads": 4},
    "cohere": _LLAMA_LIKE,
    "olmo2": _LLAMA_LIKE,
    "glm4": {**_LLAMA_LIKE, "head_dim": 8},
}


def make_model(family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A small model of a family with seeded random weights, wide enough that steering shows in its answers."""
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[family](
        vocab_size=300, pad_token_id=0, bos_token_id=1, eos_token_id=2, **{"initializer_range": 0.3, **FAMILIES[family]}
    )
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def columns(module: torch.nn.Module) -> torch.Tensor:
    """A view of a linear module's weight as [out, in]; GPT-2's Conv1D keeps it the other way round."""
    return module.weight.T if type(module).__name__ == "Conv1D" else module.weight
