"""Engines that the tests share: starting one takes a while, and two of them need twice the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exporting import made_masks
from measured_masks import with_measured
from small_engines import STARTING, STEERING, engine_model, saved
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import MaskSet


@pytest.fixture(scope="session")
def engine_checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    return saved(engine_model(), tokenizer, tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="session")
def engine_masks() -> MaskSet:
    """With what any method needs."""
    return with_measured(made_masks(engine_model()))


@pytest.fixture(scope="session")
def start(engine_checkpoint: Path, engine_masks: MaskSet) -> Iterator[Any]:
    """Starts `vllm-clas`. All engines are kept to the end: one that goes takes what it shares with the others."""
    engines = []

    def started(masks: MaskSet | None = engine_masks, checkpoint: Path = engine_checkpoint, **options: Any) -> Any:
        from lm_eval_clas.engine.vllm_clas import VLLMCLAS

        engines.append(VLLMCLAS(str(checkpoint), masks, **{**STARTING, **options}))
        return engines[-1]

    started.kept = engines
    yield started
    del engines[:]


@pytest.fixture(scope="session")
def plain(start: Callable[..., Any], engine_checkpoint: Path) -> Any:
    """The harness's own model class."""
    from lm_eval.models.vllm_causallms import VLLM

    return VLLM(str(engine_checkpoint), **STARTING)


@pytest.fixture(scope="session")
def steered(start: Callable[..., Any]) -> Any:
    """Ours, with other factors in each language; a test that changes that changes it back."""
    return start(**STEERING)
