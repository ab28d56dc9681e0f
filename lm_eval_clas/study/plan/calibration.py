"""How fast this machine runs a recipe's model: timed on the model itself, and kept for later plans."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.plain_numbers import real_number
from lm_eval_clas.decoder.shapes import ModelShape
from lm_eval_clas.disk.checked_json import read_json
from lm_eval_clas.disk.files import cache_dir, write_text
from lm_eval_clas.study.plan.machines import Machine, Span, cores
from lm_eval_clas.study.recipe import StudyRecipe
from lm_eval_clas.study.record import hash_of

_SEQUENCES = 8
_TOKENS = 192
_STEPS = 4  # of answers
_ROUNDS = 3
_SHARE = 0.7  # of the measured speed, at least, that a study gets: batches are padded, and the harness has work of its own
_EXTRA = 1.2  # and at most, as batches of more rows run faster


def kept_calibration(recipe: StudyRecipe) -> Machine | None:
    """What a calibration of this recipe's model on this machine found, if there was one; damaged ones count as none."""
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        kept = read_json(_path(recipe))
        return _machine(real_number(kept["operations"]), real_number(kept["bytes"]))
    return None


def calibrate(recipe: StudyRecipe, shape: ModelShape, load: Callable[[], Any]) -> Machine:
    """Times passes of many tokens, and steps of one token each, unsteered; what was found is kept in the cache folder.

    Args:
        load: the model as the harness loads it.

    Raises:
        ClasError: the model cannot be loaded.
    """
    import torch

    model = load().model
    tokens = torch.arange(_SEQUENCES * _TOKENS, device=model.device).reshape(_SEQUENCES, _TOKENS) % (shape.vocabulary - 1)
    with torch.no_grad():
        inside = getattr(model, model.base_model_prefix)
        passed = _fastest(lambda: inside(tokens, use_cache=False).last_hidden_state.sum().item())
        step = _fastest(lambda: [model(tokens[:, :1], use_cache=False).logits.sum().item() for _ in range(_STEPS)]) / _STEPS
    operations = 2 * shape.in_layers * tokens.numel() / passed
    speed = (shape.in_layers + shape.in_output) * shape.bytes_per_weight / step
    with suppress(ClasError):  # without it, the next plan is made from what is assumed
        write_text(_path(recipe), json.dumps({"operations": operations, "bytes": speed}) + "\n")
    return _machine(operations, speed)


def _fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds, after one that pays for what is done once."""
    run()
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _machine(operations: float, speed: float) -> Machine:
    return Machine(
        name="this machine, as calibrated",
        operations=Span(operations * _SHARE, operations * _EXTRA),
        bytes=Span(speed * _SHARE, speed * _EXTRA),
        layer=Span(0.0, 3e-4),
        start=Span(2, 8),
        disk=Span(0.3e9, 2e9),
        assumes=(
            f"{100 * _SHARE:.0f} to {100 * _EXTRA:.0f} % of the {operations / 1e9:,.0f} billion operations a second that were "
            "timed"
        ),
    )


def _path(recipe: StudyRecipe) -> Path:
    identity = hash_of([platform.node(), cores(), recipe.model, recipe.model_args, recipe.device])
    return cache_dir() / "calibration" / f"{identity}.json"
