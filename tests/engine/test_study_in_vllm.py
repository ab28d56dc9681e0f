"""A study whose recipe says `engine: vllm`: what generates runs there, what scores stays with `hf`. Slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_engines import MISSING, STARTING

from lm_eval_clas.disk.files import PACKAGE

pytest.importorskip("vllm", reason=MISSING)


@pytest.mark.slow
def test_parts_that_generate_run_in_vllm(small_study: dict[str, Any], engine_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ",".join(f"{name}={value}" for name, value in STARTING.items() if name != "dtype")
    recipe = {
        **small_study, "model": str(engine_checkpoint), "model_args": "dtype=float32",
        "engine": "vllm", "engine_args": arguments,
        "tune": {"alphas": [-2, 2], "objective": "metric", "limit": 2}, "analyse": {"geometry_samples": None},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "lm_eval_clas", "paper", tmp_path / "recipe.yaml", "--out", tmp_path / "study"]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    plans = {part: json.loads((tmp_path / "study" / "tune" / part / "run.json").read_text()) for part in ("nli", "qa")}
    assert {part: plan["engine"] for part, plan in plans.items()} == {"nli": "hf", "qa": "vllm"}
    models = {}
    for path in (tmp_path / "study" / "results").rglob("results_*.json"):
        config = json.loads(path.read_text())["config"]
        (task,) = json.loads(path.read_text())["results"]
        models.setdefault(task.rpartition("_")[0], set()).add(config["model"])
    assert models == {"clas_mini_nli": {"hf-clas"}, "clas_mini_qa": {"vllm-clas"}}
    assert (tmp_path / "study" / "report.html").is_file()
