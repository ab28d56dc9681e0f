"""Tuning inside vLLM: the answers of every setting are those of the other sweep, from one batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from small_engines import MISSING, STARTING, choices, questions

from lm_eval_clas import MaskSet
from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.tuning.measuring import grid

pytest.importorskip("vllm", reason=MISSING)

from lm_eval_clas.engine.row_sweep import RowSweep, load_rows


@pytest.fixture(scope="module")
def both(start: Any, engine_checkpoint: Path, engine_masks: MaskSet) -> tuple[Sweep, Sweep]:
    settings = grid(engine_masks, [-4, 0, 2], layers=[[2, 3, 4], [3, 4]])
    rowed = load_rows(str(engine_checkpoint), STARTING, engine_masks, settings)
    start.kept.append(rowed)
    plain = FastLM(str(engine_checkpoint), dtype="float32", device="cpu", batch_size=2)
    return RowSweep(rowed, engine_masks, settings), Sweep(plain, engine_masks, settings)


def answers(sweep: Sweep, folder: Path, kind: str, requests: list[Instance], gold: Any = None) -> list[Any]:
    sweep.start(folder / "journal", lambda done, total: None, gold)
    found = []
    for sweep.setting in range(5):
        found.append(getattr(sweep, kind)(requests))
    found = sweep.gold if gold else found
    sweep.finish()
    return found


def test_texts_of_every_setting(both: tuple[Sweep, Sweep], tmp_path: Path) -> None:
    ours, theirs = (answers(sweep, tmp_path, "generate_until", questions(2)) for sweep in both)
    assert ours == theirs
    assert len({json.dumps(one) for one in ours}) == 5
    assert len({one[0] for one in ours}) == 1  # the anchor's


def test_scores_of_every_setting(both: tuple[Sweep, Sweep], tmp_path: Path) -> None:
    ours, theirs = (answers(sweep, tmp_path, "loglikelihood", choices()) for sweep in both)
    for one, other in zip(ours, theirs, strict=True):
        assert [answer[0] for answer in one] == pytest.approx([answer[0] for answer in other], rel=2e-4)
        assert [answer[1] for answer in one] == [answer[1] for answer in other]


def test_gold_answers_of_every_setting(both: tuple[Sweep, Sweep], tmp_path: Path) -> None:
    ours, theirs = (answers(one, tmp_path, "generate_until", questions(), lambda doc: " forty days") for one in both)
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=2e-4)


def test_what_no_setting_steers_runs_once(both: tuple[Sweep, Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    lm = both[0]._lm
    original = lm.generate_until
    monkeypatch.setattr(lm, "generate_until", lambda requests, **kw: (asked.append(len(requests)), original(requests, **kw))[1])
    answers(both[0], tmp_path, "generate_until", questions())
    assert asked == [4 + 4 * 3]  # one batch: each text as it is, and three of them under four settings


def test_settings_that_steer_nothing_are_refused(engine_checkpoint: Path, engine_masks: MaskSet) -> None:
    with pytest.raises(ClasError, match="None of the settings steers anything in any language; give other --alphas"):
        load_rows(str(engine_checkpoint), STARTING, engine_masks, grid(engine_masks, [0]))


def test_an_engine_that_does_not_start_is_one_sentence(engine_checkpoint: Path, engine_masks: MaskSet) -> None:
    with pytest.raises(ClasError, match=r"^Cannot load the model '.*' in vLLM: "):
        load_rows(str(engine_checkpoint), {**STARTING, "max_model_len": -5}, engine_masks, grid(engine_masks, [0, 1]))


def test_strengths_that_change_nothing_are_refused_before_anything_runs(
    start: Any, engine_checkpoint: Path, engine_masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = grid(engine_masks, [0, 1, 1e-4])
    rowed = load_rows(str(engine_checkpoint), {**STARTING, "dtype": "bfloat16"}, engine_masks, settings)
    start.kept.append(rowed)
    asked: list[Any] = []
    monkeypatch.setattr(rowed.model, "generate", lambda *args, **kwargs: asked.append(args))
    with pytest.raises(ClasError, match=r"Alpha 0\.0001 steers 'de' so weakly that nothing changes in bfloat16; leave it out"):
        answers(RowSweep(rowed, engine_masks, settings), tmp_path, "generate_until", questions())
    assert not asked


@pytest.mark.slow
def test_the_command_chooses_what_it_chooses_with_hf(engine_checkpoint: Path, engine_masks: MaskSet, tmp_path: Path) -> None:
    chosen = []
    arguments = ",".join(f"{name}={value}" for name, value in STARTING.items())
    for engine, more in (("vllm", ["--model-args", arguments]), ("hf", ["--model-args", "dtype=float32", "--device", "cpu"])):
        out = tmp_path / engine
        engine_masks.save(out / "masks")
        command = [
            *(sys.executable, "-m", "lm_eval_clas", "tune", "--model", str(engine_checkpoint), "--masks", str(out / "masks")),
            *("--tasks", "clas_mini_qa_hi,clas_mini_qa_de", "--alphas", "-4,0,4", "--limit", "3", "--out", str(out / "run")),
            *("--engine", engine, *more),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=550, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        assert f"--model {engine}-clas" in done.stdout
        chosen.append({path.name: json.loads(path.read_text())["languages"] for path in (out / "run" / "scores").iterdir()})
    assert chosen[0] == chosen[1]
