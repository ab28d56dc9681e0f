"""Where a model runner of vLLM begins a step, and says which requests it has and with how many tokens: two runners, two seams.

Every executor hands a step to its runner's `execute_model`, one of Ray's past the worker's own (`execute_model_ray`).
The older runner (`vllm.v1.worker.gpu_model_runner`, and the CPU's, which is made from it) fills its arrays in
`_prepare_inputs`; the newer one (`vllm.v1.worker.gpu.model_runner`) returns an `InputBatch` from `prepare_inputs`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lm_eval_clas.engine.refusals import refuse_signature

_OLDER = ("scheduler_output", "num_scheduled_tokens")
_NEWER = ("scheduler_output", "batch_req_state", "batch_desc", "num_active_loras")

Begun = Callable[[Any], AbstractContextManager[None]]
Filled = Callable[[Sequence[str], Any], None]


def follow_steps(runner: Any, step: Begun, fill: Filled) -> None:
    """From now on, each step runs inside `step(scheduler output)`, and calls `fill(request ids, tokens of each)` after its
    inputs are prepared and before the model runs.

    Raises:
        ClasError: the runner is neither of the two.
    """
    name, known = ("_prepare_inputs", _OLDER) if hasattr(runner, "_prepare_inputs") else ("prepare_inputs", _NEWER)
    original = getattr(runner, name, None)
    refuse_signature(name, list(inspect.signature(original).parameters) if original else [], known)
    assert original is not None
    execute = runner.execute_model

    def execute_model(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        with step(scheduler_output):
            return execute(scheduler_output, *args, **kwargs)

    def older(scheduler_output: Any, num_scheduled_tokens: Any) -> Any:
        prepared = original(scheduler_output, num_scheduled_tokens)
        fill(runner.input_batch.req_ids, num_scheduled_tokens)
        return prepared

    def newer(*args: Any, **kwargs: Any) -> Any:
        batch = original(*args, **kwargs)
        fill(batch.req_ids, batch.num_scheduled_tokens[: len(batch.req_ids)])
        return batch

    runner.execute_model = execute_model
    setattr(runner, name, older if name == "_prepare_inputs" else newer)
