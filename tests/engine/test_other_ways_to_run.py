"""Several processes and compiled code: the same answers, from rows that are sliced or spread. In processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_engines import MISSING, STEERING, SUPPORT, choices, environment, questions

from lm_eval_clas import CLASLM, MaskSet

pytest.importorskip("vllm", reason=MISSING)

OWN_CORE, REPLICAS = "an engine core of its own", "replicas"  # with vLLM's default, and each with it
WAYS: dict[str, dict[str, Any]] = {
    OWN_CORE: {},
    REPLICAS: {"data_parallel_size": 2},
    "tensor parallel": {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"},
    # On CPUs, vLLM makes room for what goes between the stages while it warms up, and in eager mode it does not.
    "pipeline parallel": {"pipeline_parallel_size": 2, "distributed_executor_backend": "mp", "enforce_eager": False},
    "compiled": {"enforce_eager": False},
    # Activations have an axis more there. vLLM changes what transformers is, in the whole process.
    "code of transformers": {"model_impl": "transformers"},
}


# What an engine starts with, and what is exchanged for it: factors; factors and shifts; what is added to hidden states.
STEERINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "clas": (STEERING, {"alpha": 2.0}),
    "int-mu": ({"method": "int-mu", "alpha": 0.6}, {"method": "arithmetic", "alpha": -0.5}),
    "diffmean": ({"method": "diffmean", "alpha": -0.3}, {"alpha": 0.2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("steering", STEERINGS)
@pytest.mark.parametrize("way", WAYS)
def test_other_ways_to_run_answer_as_hf_clas_does(
    way: str, steering: str, engine_checkpoint: Path, engine_masks: MaskSet, tmp_path: Path
) -> None:
    engine_masks.save(tmp_path / "masks")
    out = tmp_path / "out.json"
    first, then = STEERINGS[steering]
    command = [sys.executable, SUPPORT / "engine_process.py", engine_checkpoint, tmp_path / "masks", out]
    command += map(json.dumps, (WAYS[way], first, then))
    own = {
        "VLLM_CACHE_ROOT": str(tmp_path / "cache"),
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(way in (OWN_CORE, REPLICAS))),
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment(**own))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text(encoding="utf-8"))
    answers = found["answers"]
    hf, other = (
        CLASLM(str(engine_checkpoint), engine_masks, dtype="float32", device="cpu", **options)
        for options in (first, {**first, **then})
    )
    assert answers["generate_until"] == hf.generate_until(questions(2))
    for name, lm in (("loglikelihood", hf), ("exchanged", other)):
        expected = lm.loglikelihood(choices(3))
        assert [one for one, _ in answers[name]] == pytest.approx([one for one, _ in expected], rel=2e-4)
        assert [greedy for _, greedy in answers[name]] == [greedy for _, greedy in expected]
    layers = {language: one["layers"] for language, one in found["witness"].items()}
    assert layers == {language: [2, 3, 4] for language in ("hi", "de", "zh")}
