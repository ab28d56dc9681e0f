"""Steering as a checkpoint: the factors multiplied into the columns of the bridge layers' projections.

Such a checkpoint needs nothing but its architecture: plain `hf`, vLLM, SGLang and llama.cpp run it. W (s * h) = (W diag(s)) h.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from lm_eval_clas.cards import export_card
from lm_eval_clas.checkpoint import Checkpoint
from lm_eval_clas.errors import ClasError
from lm_eval_clas.export import EXPORT_FILE, Outline, Scaling, provenance
from lm_eval_clas.files import writing
from lm_eval_clas.masks import MaskSet


def mergeable(model: Outline) -> Checkpoint:
    """The model's checkpoint, if factors can be folded into it.

    Raises:
        ClasError: it is quantised, or has no safetensors weights.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        raise ClasError(
            f"'{model.pretrained}' is quantised, and scaling would need to quantise it again; use --format ia3, or merge the "
            "unquantised model and quantise that."
        )
    return Checkpoint.find(model.pretrained, model.revision)


def require_space(checkpoint: Checkpoint, count: int, folder: Path) -> None:
    """Refuses to begin what the disk cannot hold: `count` copies of a checkpoint.

    Raises:
        ClasError: there is too little room.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    needed, free = count * checkpoint.size, shutil.disk_usage(there).free
    if needed > free:
        raise ClasError(
            f"{count} merged checkpoints need {needed / 1e9:.1f} GB, and '{there}' has {free / 1e9:.1f} GB free; choose "
            "another place or fewer languages, or --format ia3, which needs almost none."
        )


def export_merged(
    scaling: Scaling,
    masks: MaskSet,
    model: Outline,
    checkpoint: Checkpoint,
    folder: Path,
    report: Callable[[], None] = lambda: None,
) -> Path:
    """Writes a merged checkpoint's folder, whole or not at all.

    It is a copy of the model's: shards, dtype, tokenizer, generation configuration and every byte of every other weight.
    Products are made in float32 and rounded to the weight's dtype.

    Args:
        scaling: the factors.
        masks: where they come from, for the record.
        model: the model.
        checkpoint: what `mergeable` returned for it.
        folder: to write.
        report: called after each file of weights.

    Raises:
        ClasError: a weight is not in the checkpoint or does not fit, or the folder cannot be written.
    """
    factors = {
        checkpoint.key(model.projections[layer]): scaling.factors[layer]
        for layer in scaling.steering.layers
        if (scaling.factors[layer] != 1).any()
    }
    with writing(folder) as temporary:
        temporary.mkdir()
        checkpoint.copy_scaled(temporary, factors, model.transposed, report)
        content = json.dumps(provenance(scaling, masks, model, "merged"), indent=2)
        (temporary / EXPORT_FILE).write_text(content + "\n", encoding="utf-8")
        (temporary / "README.md").write_text(export_card(scaling, masks, model, "merged"), encoding="utf-8")
    return folder
