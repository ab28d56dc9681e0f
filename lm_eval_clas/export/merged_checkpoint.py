"""Steering as a checkpoint: factors multiplied into the columns of the bridge layers' projections, and constants as biases.

Such a checkpoint needs nothing but its architecture: plain `hf`, vLLM, SGLang and llama.cpp run it. W (s * h) = (W diag(s)) h.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.checkpoint import Checkpoint
from lm_eval_clas.disk.checked_json import read_json
from lm_eval_clas.disk.files import put_text
from lm_eval_clas.export.added_biases import AddedBiases, find_added
from lm_eval_clas.export.outline import Outline, require_expressible
from lm_eval_clas.export.written_export import Export, ExportThere


def mergeable(model: Outline) -> Checkpoint:
    """The model's checkpoint, if steering can be folded into it.

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


def write_merged(
    export: Export,
    found: ExportThere,
    checkpoint: Checkpoint,
    biases: AddedBiases | None = None,
    report: Callable[[], None] = lambda: None,
) -> None:
    """Writes a merged checkpoint's folder, whole or not at all.

    It is a copy of the model's: shards, dtype, tokenizer, generation configuration and every byte of every other weight.
    Products and sums are made in float32 and rounded to the weight's dtype. Where the model as it is has no biases that take
    what is added, one field of its configuration says that this one has.

    Args:
        export: what is done, and where to write.
        found: what lies there.
        checkpoint: what `mergeable` returned for the model.
        biases: what `find_added` returned for this export, or for several of the model; by default, it is found.
        report: called after each file of weights.

    Raises:
        ClasError: a weight is not in the checkpoint or does not fit, there is no bias that takes what is added, or the folder
            cannot be written.
    """
    scaling, model = export.scaling, export.model
    require_expressible(scaling.steering.method, "merged")
    biases = biases or find_added(model, [scaling], checkpoint)
    factors: dict[str, NDArray[np.float32]] = {}
    for place in model.places(scaling):
        if ((own := scaling.factors[place.layer, place.here]) != 1).any():
            factors |= checkpoint.scales(place, own)
    added = {} if biases is None else biases.vectors(scaling, model, checkpoint)
    with export.writing(found) as temporary:
        checkpoint.copy_changed(temporary, factors, added, report)
        if biases is not None and biases.form.field:
            _set_field(temporary / "config.json", biases.form.field, biases.form.value)


def _set_field(path: Path, field: tuple[str, ...], value: bool) -> None:
    """Sets one field of a configuration, which may be inside another one."""
    content = read_json(path)
    inner = content
    for name in field[:-1]:
        inner = inner.setdefault(name, {})
    inner[field[-1]] = value
    put_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
