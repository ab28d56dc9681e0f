"""Evaluating runs task by task, each kept as `lm_eval` writes it, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lm_eval_clas.errors import ClasError
from lm_eval_clas.files import write_text, writing
from lm_eval_clas.study import hash_of

_INPUTS = "inputs.json"


def evaluate_run(
    folder: Path,
    model_args: Mapping[str, Any],
    decides: Any,
    tasks: Sequence[str],
    *,
    include_path: Sequence[str],
    options: Mapping[str, Any],
    report: Callable[[str], None],
) -> None:
    """Evaluates `hf-clas` on tasks; results and samples of each go into `folder/TASK/`.

    Args:
        folder: of the run. A task that is there already, with the same inputs, is not evaluated again.
        model_args: of `hf-clas`.
        decides: all that decides the results besides task and options: the arguments with masks as a hash, for example.
        tasks: names of single tasks.
        include_path: folders of tasks.
        options: of `lm_eval.simple_evaluate`: limit, batch_size, num_fewshot, apply_chat_template.
        report: called with each task's name as it is finished, or was before.

    Raises:
        ClasError: the results cannot be written.
    """
    inputs = {task: [decides, dict(options), task] for task in tasks}
    left = []
    for task in tasks:
        if _finished(folder / task, inputs[task]):
            report(task)
        else:
            left.append(task)
    if not left:
        return

    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    from lm_eval_clas.model import CLASLM

    manager = TaskManager(include_path=list(include_path))
    lm = CLASLM(**model_args, batch_size=options["batch_size"])
    try:
        for task in left:
            results = _results(lm, task, manager, model_args, options)
            samples = results.pop("samples")
            shutil.rmtree(folder / task, ignore_errors=True)
            with writing(folder / task) as temporary:
                tracker = EvaluationTracker(output_path=str(temporary))
                named = ",".join(f"{name}={value}" for name, value in model_args.items())
                tracker.general_config_tracker.log_experiment_args("hf-clas", named, None, None, False)
                tracker.save_results_aggregated(results=results, samples=samples)
                tracker.save_results_samples(task_name=task, samples=samples[task])
                # The tracker only warns where it could not write.
                if len(list(temporary.rglob("*.json*"))) != 2:
                    raise ClasError(f"The results of {task} could not be written under '{folder}'; free it or choose another.")
                write_text(temporary / _INPUTS, json.dumps({"inputs": hash_of(inputs[task])}) + "\n")
            report(task)
    finally:
        del lm
        gc.collect()  # the next run's model must not wait for the collector: two of them may not fit


def _finished(folder: Path, inputs: Any) -> bool:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return bool(json.loads((folder / _INPUTS).read_bytes())["inputs"] == hash_of(inputs))
    return False


def _results(lm: Any, task: str, manager: Any, model_args: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    from lm_eval import simple_evaluate

    results: dict[str, Any] = simple_evaluate(
        model=lm,
        model_args=dict(model_args),
        tasks=[task],
        task_manager=manager,
        log_samples=True,
        fewshot_as_multiturn=bool(options["apply_chat_template"]),
        **options,
    )
    results["config"]["model"] = "hf-clas"  # as `lm_eval --model` would have it, and not the name of the checkpoint
    return results
