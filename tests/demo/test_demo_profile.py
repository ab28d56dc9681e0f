"""The demo's profile: measured once, and read after that without the model's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM

from lm_eval_clas import MaskSet, Profile
from lm_eval_clas.base.job_progress import JobProgress
from lm_eval_clas.demo import demo_run
from lm_eval_clas.demo.demo_model import DEMO_NAME
from lm_eval_clas.neurons.profiling import finished_profile
from lm_eval_clas.texts.corpora import ParallelInputBuilder


class LoadedError(Exception):
    """The model was."""


def test_weights_are_loaded_only_where_a_language_is_left(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MaskSet, "from_profile", staticmethod(lambda profile: profile))  # tiny models have no bridge

    def profiled() -> Profile:
        made: Any = demo_run._profile(checkpoint, "mini", tmp_path, JobProgress(Console(quiet=True)))
        return made

    def refuse(*_: object, **__: object) -> None:
        raise LoadedError

    first = profiled()
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    again = profiled()
    assert again.config == first.config
    for one, other in zip(again.by_language.values(), first.by_language.values(), strict=True):
        assert np.array_equal(one.sums["all", "signed-mean"], other.sums["all", "signed-mean"])
    with torch.device("meta"):
        outline = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint))
    texts = ParallelInputBuilder("mini", None, 16).build()
    assert finished_profile(outline, texts, tmp_path, name=DEMO_NAME) is not None
    assert finished_profile(outline, texts, tmp_path, name=DEMO_NAME, max_tokens=100) is None
    assert finished_profile(outline, texts, tmp_path / "other", name=DEMO_NAME) is None
    (tmp_path / "hi.safetensors").unlink()
    with pytest.raises(LoadedError):
        profiled()
