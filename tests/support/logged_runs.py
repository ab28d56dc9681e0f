"""Runs of `hf-clas` as `lm_eval --output_path --log_samples` leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from lm_eval_clas import MaskSet
from lm_eval_clas.disk.files import shipped


def logged_run(
    place: Path, checkpoint: Path, masks: MaskSet, tasks: list[str], include: Sequence[Path] = (), **options: Any
) -> Path:
    """Evaluates three items of each task, and gives the results file; masks are saved beside it.

    `include` are folders of more tasks.
    """
    given = {"pretrained": checkpoint, "masks": masks.save(place / "masks"), "dtype": "float32", **options}
    manager = TaskManager(include_path=[*map(str, (shipped("tasks"), *include))], include_defaults=False)
    tracker = EvaluationTracker(output_path=str(place / "results"))
    found = simple_evaluate(
        model="hf-clas", model_args=",".join(f"{name}={value}" for name, value in given.items()), tasks=tasks, limit=3,
        device="cpu", bootstrap_iters=0, log_samples=True,
        task_manager=manager, evaluation_tracker=tracker,
    )  # fmt: skip
    samples = found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)
    return next((place / "results").rglob("results_*.json"))
