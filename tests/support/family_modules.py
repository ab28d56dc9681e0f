"""Which modules each family has at each site."""

from __future__ import annotations

import torch
from small_models import LAYERS
from transformers import PreTrainedModel

from lm_eval_clas.decoder.projections import Site

SITES: tuple[Site, ...] = ("mlp", "attn")
# Where each family keeps layers, the MLP's way back and attention's, as its authors name them.
_LLAMA = ("model.layers.{}", "mlp.down_proj", "self_attn.o_proj")
_GPT2 = ("transformer.h.{}", "mlp.c_proj", "attn.c_proj")
_BLOOM = ("transformer.h.{}", "mlp.dense_4h_to_h", "self_attention.dense")
MODULES = {
    "gpt_neox": ("gpt_neox.layers.{}", "mlp.dense_4h_to_h", "attention.dense"),
    "opt": ("model.decoder.layers.{}", "fc2", "self_attn.out_proj"),
    "xglm": ("model.layers.{}", "fc2", "self_attn.out_proj"),
    "bloom": _BLOOM,
    "falcon": _BLOOM,
    "gpt2": _GPT2,
}


def modules(model: PreTrainedModel, family: str, site: Site) -> list[torch.nn.Module]:
    """The modules that a reader of the family's code would name."""
    layer, *names = MODULES.get(family, _LLAMA)
    return [model.get_submodule(f"{layer.format(i)}.{names[SITES.index(site)]}") for i in range(LAYERS)]
