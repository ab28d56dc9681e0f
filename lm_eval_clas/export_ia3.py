"""Steering as a PEFT (IA)3 adapter: one vector for the projection of each bridge layer, which multiplies its input.

(IA)3 (Liu et al. 2022, arXiv 2205.05638) learns such vectors; here they are the factors of CLAS. PEFT applies them like any
other adapter, so whatever loads adapters can steer, without this package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_clas.cards import export_card
from lm_eval_clas.export import EXPORT_FILE, Outline, Scaling, provenance
from lm_eval_clas.files import writing
from lm_eval_clas.masks import MaskSet


def adapter_config(scaling: Scaling, model: Outline) -> dict[str, Any]:
    """The contents of `adapter_config.json`: all fields of PEFT's `IA3Config`, with the bridge layers' modules by name."""
    modules = [model.projections[layer].name for layer in scaling.steering.layers]
    return {
        "auto_mapping": None,
        "base_model_name_or_path": model.base,
        "exclude_modules": None,
        "fan_in_fan_out": model.transposed,
        "feedforward_modules": modules,  # these multiply the input of a module, all others its output
        "inference_mode": True,
        "init_ia3_weights": True,
        "modules_to_save": None,
        "peft_type": "IA3",
        "revision": model.revision,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
    }


def export_ia3(scaling: Scaling, masks: MaskSet, model: Outline, folder: Path) -> Path:
    """Writes an adapter's folder, whole or not at all: `adapter_config.json`, `adapter_model.safetensors`, a card.

    The vectors are float32 [1, neurons].

    Raises:
        ClasError: the folder cannot be written.
    """
    from safetensors.numpy import save

    vectors = {
        f"base_model.model.{model.projections[layer].name}.ia3_l": np.ascontiguousarray(scaling.factors[layer][None])
        for layer in scaling.steering.layers
    }
    with writing(folder) as temporary:
        temporary.mkdir()
        # As bytes, because safetensors' own writing turns a full disk into an exception of its own.
        (temporary / "adapter_model.safetensors").write_bytes(save(vectors, metadata={"format": "pt"}))
        for name, content in (
            ("adapter_config.json", adapter_config(scaling, model)),
            (EXPORT_FILE, provenance(scaling, masks, model, "ia3")),
        ):
            (temporary / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (temporary / "README.md").write_text(export_card(scaling, masks, model, "ia3"), encoding="utf-8")
    return folder
