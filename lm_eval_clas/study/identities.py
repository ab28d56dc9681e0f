"""What of masks decides the stages of a study and the answers of a run, as values whose hash tells a change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import CLAS, Tuned
from lm_eval_clas.steering.by_task import tuned_for


def masks_identity(folder: Path) -> Any:
    """All that a mask folder holds for any method; None where there are no masks."""
    try:
        masks = MaskSet.load(folder)
    except ClasError:
        return None
    tuned = {name: _settings(masks.config.tuned_of(name)) for name in (CLAS, *masks.config.tuned_methods)}
    # Without what other methods need, it is what it was before there were any.
    others = [masks.residual_hash, tuned] if masks.residual is not None or masks.config.tuned_methods else []
    return [masks.hash, masks.means_hash, masks.config.beta, masks.config.gamma, tuned[CLAS], *others]


def run_identity(folder: Path, run: Mapping[str, Any]) -> Any:
    """What decides a run's answers beside its options: strengths of its own method alone.

    Args:
        folder: of its masks.
        run: its options.
    """
    masks = MaskSet.load(folder)
    settings = _settings(tuned_for(masks, str(run.get("method", CLAS)))) if run.get("alpha") == "tuned" else None
    return [masks.hash, masks.means_hash, masks.residual_hash, masks.config.beta, masks.config.gamma, settings]


def _settings(tuned: Tuned) -> dict[str, dict[str, Any]]:
    """The chosen settings by task family and language, without their evidence, which another seed tells otherwise."""
    return {family: {one: strength.chosen.setting.options() for one, strength in by.items()} for family, by in tuned.items()}
