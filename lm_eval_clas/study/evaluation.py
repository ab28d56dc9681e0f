"""Evaluating runs task by task, each kept as `lm_eval` writes it, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from lm_eval_clas.base.clock import fixed, now
from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.disk.checked_json import read_json
from lm_eval_clas.disk.files import put_text, writing
from lm_eval_clas.disk.written import delete_ours, files_in
from lm_eval_clas.harness.task_loading import FEWSHOT_SEED
from lm_eval_clas.study.record import hash_of

_INPUTS = "inputs.json"


def evaluate_run(
    folder: Path,
    model_args: Mapping[str, Any],
    decides: Any,
    tasks: Mapping[str, Any],
    *,
    model: str = "hf-clas",
    limits: Mapping[str, int | None],
    batch_size: int | str,
    apply_chat_template: bool = False,
    unsteered: Path | None = None,
    report: Callable[[str], None],
) -> None:
    """Evaluates a steered model on tasks; results and samples of each go into `folder/TASK/`.

    Args:
        folder: of the run. A task that is there already, with the same inputs, is not evaluated again.
        model_args: of the model class.
        decides: all that decides the results besides task and options: the arguments with masks as a hash, for example.
        tasks: the harness's task objects by name.
        model: `hf-clas` or `vllm-clas`.
        limits: items of each task, None for all.
        batch_size, apply_chat_template: as `lm_eval` has them.
        unsteered: the folder of a run without steering that is evaluated; requests that this one does not steer either get its
            answers, and the results file tells how many. None asks the model.
        report: called with each task's name as it is finished, or was before.

    Raises:
        ClasError: the model cannot be loaded, or the results cannot be written.
    """
    options = {
        task: {"limit": limits[task], "batch_size": batch_size, "apply_chat_template": apply_chat_template} for task in tasks
    }
    inputs = {task: hash_of([decides, options[task], task]) for task in tasks}
    left = [task for task in tasks if not _finished(folder / task, inputs[task])]
    for task in tasks:
        if task not in left:
            report(task)
    if not left:
        return

    from lm_eval.api.registry import get_model
    from lm_eval.loggers import EvaluationTracker

    from lm_eval_clas.harness.plugin import register
    from lm_eval_clas.verifying.logged_run import unsteered_answers

    register()
    try:
        lm = get_model(model)(**model_args, batch_size=batch_size)
    except ClasError:
        raise
    except Exception as error:  # transformers, vLLM and the harness raise every kind for a wrong argument or too little memory
        raise ClasError(f"Cannot load the model '{model_args['pretrained']}' with {model}: {first_line(error)}") from error
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):  # the study has bars of its own
        setattr(lm, kind, partial(getattr(lm, kind), disable_tqdm=True))
    try:
        for task in left:
            if unsteered is not None:
                lm.know(unsteered_answers(unsteered / task, task))
            tracker = EvaluationTracker()  # its clock starts here
            results = _results(model, lm, task, tasks[task], model_args, options[task])
            samples = results.pop("samples")
            delete_ours(folder / task)
            with writing(folder / task) as temporary:
                tracker.output_path = str(temporary)
                named = ",".join(f"{name}={value}" for name, value in model_args.items())
                tracker.general_config_tracker.log_experiment_args(model, named, None, None, apply_chat_template)
                tracker.save_results_aggregated(results=results, samples=samples)
                tracker.save_results_samples(task_name=task, samples=samples[task])
                # The tracker only warns where it could not write.
                if len(list(temporary.rglob("*.json*"))) != 2:
                    raise ClasError(f"The results of {task} could not be written under '{folder}'; free it or choose another.")
                if moment := fixed():
                    _date_to(moment, temporary)
                files = [path.relative_to(temporary).as_posix() for path in files_in(temporary)]
                put_text(temporary / _INPUTS, json.dumps({"inputs": inputs[task], "files": files}) + "\n")
            report(task)
    finally:
        del lm
        gc.collect()  # the next run's model must not wait for the collector: two of them may not fit


def _date_to(moment: datetime, folder: Path) -> None:
    """Gives the date of a fixed clock to what the harness wrote, in names and contents."""
    for path in list(folder.rglob("*_*.json*")):
        path.rename(path.with_name(re.sub(r"_[^_]+(\.jsonl?)$", moment.strftime(r"_%Y-%m-%dT%H-%M-%S.%f\1"), path.name)))
    (path,) = folder.rglob("results_*.json")
    no_time = {"start_time": 0.0, "end_time": 0.0, "total_evaluation_time_seconds": "0.0"}
    put_text(path, json.dumps({**read_json(path), **no_time}, indent=2, ensure_ascii=False))


def _finished(folder: Path, inputs: str) -> bool:
    with suppress(OSError, ValueError, KeyError, TypeError):
        there = read_json(folder / _INPUTS)
        return bool(there["inputs"] == inputs) and all((folder / name).is_file() for name in there["files"])
    return False


def _results(
    model: str, lm: Any, name: str, task: Any, model_args: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """What `lm_eval.simple_evaluate` returns; that lists the environment with pip for every task, which takes seconds."""
    from lm_eval.evaluator import evaluate
    from lm_eval.loggers.utils import add_tokenizer_info, get_git_commit_hash

    started = now().timestamp()
    chat = options["apply_chat_template"]
    task.set_fewshot_seed(seed=FEWSHOT_SEED)  # each run draws anew, and all must get the same examples
    results: dict[str, Any] = evaluate(
        lm, {name: task}, limit=options["limit"], log_samples=True, apply_chat_template=chat, fewshot_as_multiturn=chat
    )
    results["config"] = {
        "model": model,
        "model_args": dict(model_args),
        **lm.get_model_info(),
        "batch_size": options["batch_size"],
        "device": str(lm.device) if hasattr(lm, "device") else None,
        "limit": options["limit"],
        "fewshot_seed": FEWSHOT_SEED,
    }
    here = Path.cwd()
    # Outside a checkout, git says so on the screen, once for every task.
    results["git_hash"] = get_git_commit_hash() if any((one / ".git").exists() for one in (here, *here.parents)) else None
    results["date"] = started
    results |= _environment()
    add_tokenizer_info(results, lm)
    return results


@cache
def _environment() -> dict[str, Any]:
    from lm_eval.loggers.utils import add_env_info

    found: dict[str, Any] = {}
    add_env_info(found)
    return found
