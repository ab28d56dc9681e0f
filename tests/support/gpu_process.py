"""What one engine on a GPU answers, in a process of its own; answers as JSON in a file.

python tests/support/gpu_process.py plain|steered eager|compiled CHECKPOINT MASKS OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Three of these fit onto one GPU.
ENGINE: dict[str, Any] = {
    "dtype": "bfloat16",
    "max_model_len": 4096,
    "max_num_seqs": 64,
    "gpu_memory_utilization": 0.25,
    "kv_cache_memory_bytes": 2 << 30,
    "distributed_executor_backend": "uni",
}
REPEAT, TOKENS = 6, 24
EXCHANGED = 4.0  # the alpha that is given to the engine that runs


def asked() -> dict[str, list[Any]]:
    """Requests in four languages, in turn, whose prompts have some hundreds of tokens; each asked in 8 lengths."""
    from small_engines import choices, questions

    lengths = range(REPEAT, REPEAT + 8)
    return {
        "loglikelihood": [one for repeat in lengths for one in choices(repeat)],
        "generate_until": [one for repeat in lengths for one in questions(repeat, TOKENS)],
    }


def fresh(lm: Any, kind: str, requests: list[Any], cls: type | None = None) -> list[Any]:
    """Answers with nothing in the cache of prefixes, which decides how many tokens run at once, and so the bits."""
    assert lm.model.reset_prefix_cache()
    return list(getattr(cls or type(lm), kind)(lm, requests))


def all_answers(lm: Any, cls: type | None = None) -> dict[str, Any]:
    """Of all requests, by the class of the model or by another one."""
    return {kind: fresh(lm, kind, requests, cls) for kind, requests in asked().items()}


def some_alone(lm: Any) -> dict[str, Any]:
    """The first requests, each by itself."""
    return {kind: [fresh(lm, kind, [one])[0] for one in requests[:8]] for kind, requests in asked().items()}


def main() -> None:
    from small_engines import STEERING

    from lm_eval_clas.engine.rowed_vllm import RowedVLLM
    from lm_eval_clas.engine.vllm_clas import VLLMCLAS

    kind, mode, checkpoint, masks, out = sys.argv[1:]
    engine = {**ENGINE, "enforce_eager": mode == "eager"}
    found: dict[str, Any] = {}
    if kind == "plain":
        lm = RowedVLLM(checkpoint, tables=None, **engine)
        found |= {"plain": all_answers(lm), "plain alone": some_alone(lm)}
    else:
        lm = VLLMCLAS(checkpoint, masks, **STEERING, **engine)
        found["no row named"] = all_answers(lm, RowedVLLM)
        found["steered"] = all_answers(lm)
        found["witness"] = lm.get_model_info()["clas"]["witness"]
        lm.steer(alpha=EXCHANGED)
        found["exchanged"] = all_answers(lm)
        lm.steer(alpha=STEERING["alpha"])
        found["exchanged back"] = all_answers(lm)
        found["alone"] = some_alone(lm)
    runner = lm.model.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    found["runner"] = type(runner).__module__
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
