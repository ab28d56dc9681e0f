"""The real model: `vllm-clas` against `hf-clas` on real items."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from small_engines import MISSING, STARTING

from lm_eval_clas.demo.demo_model import gemma
from lm_eval_clas.disk.files import shipped

pytest.importorskip("vllm", reason=MISSING)

TASKS = [f"clas_{task}_{language}" for language in ("en", "es", "hi") for task in ("xquad", "xnli_dev")]
TASKS += [f"clas_xnli_dev_{language}" for language in ("ar", "zh", "th")]
EACH = 12


def evaluated(model: str, path: Path, **arguments: Any) -> Any:
    return simple_evaluate(
        model=model,
        model_args={"pretrained": str(path), "masks": "gemma-3-270m", "alpha": -2.0, "dtype": "float32", **arguments},
        tasks=TASKS,
        task_manager=TaskManager(include_path=str(shipped("tasks")), include_defaults=False),
        limit=EACH,
        log_samples=True,
        bootstrap_iters=0,
    )


@pytest.mark.slow
@pytest.mark.hub_data("facebook/xnli")
@pytest.mark.hub_data("google/xquad")
def test_100_items_in_six_languages_are_answered_as_by_hf_clas() -> None:
    path = gemma()
    engine = {**STARTING, "max_model_len": 2048, "max_num_batched_tokens": 512, "kv_cache_memory_bytes": 600 << 20}
    ours = evaluated("vllm-clas", path, **engine)
    theirs = evaluated("hf-clas", path, device="cpu", batch_size=8)
    items: Counter[str] = Counter()
    for task in TASKS:
        for one, other in zip(ours["samples"][task], theirs["samples"][task], strict=True):
            assert one["doc_hash"] == other["doc_hash"]
            items[task.rpartition("_")[2]] += 1
            for answers, others in zip(one["resps"], other["resps"], strict=True):
                if isinstance(answers[0], str):
                    assert answers == others, (task, one["doc_id"])
                else:
                    assert answers[0][0] == pytest.approx(others[0][0], rel=2e-4)
                    assert answers[0][1] == others[0][1]
    assert (len(items), items.total()) == (6, len(TASKS) * EACH)
    assert items.total() >= 100
    witness = ours["config"]["clas"]["witness"]
    assert set(witness) == {"es", "hi", "ar", "zh", "th"}
    hashes = {language: one["factors_hash"] for language, one in witness.items()}
    assert hashes == {language: one["factors_hash"] for language, one in theirs["config"]["clas"]["witness"].items()}
