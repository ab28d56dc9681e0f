"""Steering as a PEFT (IA)3 adapter: one vector for the projection of each bridge layer, which multiplies its input.

(IA)3 (Liu et al. 2022, arXiv 2205.05638) learns such vectors; here they are the factors of CLAS. PEFT applies them like any
other adapter, so whatever loads adapters can steer, without this package.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.projections import Projection
from lm_eval_clas.export.outline import Outline, Scaling, require_expressible
from lm_eval_clas.export.written_export import Export, ExportThere


def adapter_config(scaling: Scaling, model: Outline) -> dict[str, Any]:
    """The contents of `adapter_config.json`: all fields of PEFT's `IA3Config`, with the bridge layers' modules by name."""
    modules = [place.name for place in _linear_places(scaling, model)]
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


def adapter_files(scaling: Scaling, model: Outline) -> dict[str, bytes]:
    """The contents of an adapter's files by name, without card and record. The vectors are float32 [1, neurons]."""
    from safetensors.numpy import save

    vectors = {
        f"base_model.model.{place.name}.ia3_l": np.ascontiguousarray(scaling.factors[place.layer, place.here][None])
        for place in _linear_places(scaling, model)
    }
    return {
        # As bytes, because safetensors' own writing turns a full disk into an exception of its own.
        "adapter_model.safetensors": save(vectors, metadata={"format": "pt"}),
        "adapter_config.json": (json.dumps(adapter_config(scaling, model), indent=2) + "\n").encode(),
    }


def _linear_places(scaling: Scaling, model: Outline) -> list[Projection]:
    """The modules that get a vector.

    Raises:
        ClasError: there are experts among them, or the method adds something.
    """
    require_expressible(scaling.steering.method, "ia3")
    places = model.places(scaling)
    if any(place.experts for place in places):
        raise ClasError(
            "An (IA)3 adapter has one vector for a linear module, and experts have none of their own, each with factors of its "
            "own; use --format merged, which scales their weights."
        )
    return places


def find_ia3(export: Export) -> ExportThere:
    """What lies where an adapter goes.

    Raises:
        ClasError: something that no export wrote.
    """
    files = adapter_files(export.scaling, export.model)
    return export.find({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})


def write_ia3(export: Export, found: ExportThere) -> None:
    """Writes an adapter's folder, whole or not at all: `adapter_config.json`, `adapter_model.safetensors`, a card, the record.

    Raises:
        ClasError: the folder cannot be written.
    """
    with export.writing(found) as temporary:
        for name, content in adapter_files(export.scaling, export.model).items():
            (temporary / name).write_bytes(content)
