"""Strengths go into the masks as they are when tuning ends, and into no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress
from small_models import make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import ClasError, MaskSet
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.tuning.measuring import TuningPlan, grid
from lm_eval_clas.tuning.tuning_run import run_tuning

Tune = Callable[..., None]
NAME = "clas_mini_nli_hi"


@pytest.fixture
def tune(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Tune:
    """Tunes masks, while somebody does something else after the masks were loaded."""

    def go(masks: MaskSet, target: Path, meanwhile: Callable[[], Any], method: str = "clas") -> None:
        def load() -> FastLM:
            meanwhile()
            return FastLM(make_model(), tokenizer=tokenizer, batch_size=3)

        settings = grid(masks, [0.5])
        plan = TuningPlan("m", "", masks.hash, (NAME,), settings, "loglikelihood", limit=2, method=method)
        found = load_tasks([NAME], [str(shipped("tasks"))])
        with Progress(disable=True) as progress:
            run_tuning(plan, found, masks, tmp_path / "run", target, load=load, progress=progress)

    return go


def bare(masks: MaskSet) -> MaskSet:
    return replace(masks, means=None, residual=None, config=masks.config.model_copy(update={"residual": None}))


@pytest.mark.parametrize("place", ["masks", "run/masks"])
def test_what_was_put_beside_the_masks_meanwhile_stays(
    full: MaskSet, tune: Tune, tmp_path: Path, place: str, sketched: None
) -> None:
    plain = bare(full)
    assert full.residual is not None
    assert full.means is not None
    assert plain.hash == full.hash
    plain.save(tmp_path / place)
    tune(plain, tmp_path / place, lambda: full.save(tmp_path / place))
    after = MaskSet.load(tmp_path / place)
    assert set(after.config.tuned["clas_mini_nli"]) == {"hi"}
    assert (after.residual_hash, after.means_hash) == (full.residual_hash, full.means_hash)


@pytest.mark.parametrize("case", ["other neurons", "without what the method needs"])
def test_other_masks_that_were_put_there_meanwhile_stay_and_are_told(
    full: MaskSet, tune: Tune, tmp_path: Path, case: str, sketched: None
) -> None:
    method = "clas" if case == "other neurons" else "diffmean"
    other = replace(full, active=~full.active) if case == "other neurons" else bare(full)
    full.save(tmp_path / "masks")
    with pytest.raises(ClasError, match=r"The strengths are in '.*tuned\.json' and not in '.*masks', where other masks are"):
        tune(full, tmp_path / "masks", lambda: other.save(tmp_path / "masks"), method)
    assert "clas_mini_nli" in json.loads((tmp_path / "run" / "tuned.json").read_bytes())
    after = MaskSet.load(tmp_path / "masks")
    assert (after.hash, after.residual_hash, after.config.tuned) == (other.hash, other.residual_hash, {})
    assert not after.config.tuned_methods
