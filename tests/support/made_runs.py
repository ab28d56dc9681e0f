"""Results files made to order, as the harness writes them: for tests where the scores of items matter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_clas.comparing.compare_runs import compare
from lm_eval_clas.comparing.results_files import read_runs
from lm_eval_clas.comparing.rows import Comparison


def write_run(
    folder: Path,
    tasks: Mapping[str, Sequence[float] | float],
    clas: Mapping[str, Any] | None = None,
    *,
    metric: str = "acc",
    date: str = "2026-01-01T00-00-00.000001",
    offset: int = 0,
    samples: bool = True,
    reported: float | None = None,
    documents: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    beside: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    **more: Any,
) -> Path:
    """A results file and its samples as the harness writes them, with these items' scores (and documents, if given).

    `beside` has the scores of further metrics, by their names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {task: [one] if isinstance(one, float) else list(one) for task, one in tasks.items()}
    scores = {task: float(np.mean(one)) if reported is None else reported for task, one in values.items()}
    config = {"model": "hf", "model_args": {"pretrained": "some/model"}, **({"clas": dict(clas)} if clas else {})}
    data = {
        "results": {task: {"alias": task, f"{metric},none": scores[task], f"{metric}_stderr,none": "N/A"} for task in tasks},
        "group_subtasks": {task: [] for task in tasks},
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {task: {metric: True} for task in tasks},
        "n-samples": {task: {"original": 999, "effective": len(one)} for task, one in values.items()},
        "config": config,
        "model_source": "hf-clas" if clas else "hf",
        "model_name": "some/model",
        **more,
    }
    for name, by_task in (beside or {}).items():
        for task, one in by_task.items():
            data["results"][task][f"{name},none"] = float(np.mean(one))
    path = folder / f"results_{date}.json"
    path.write_text(json.dumps(data))
    for task, one in values.items() if samples else ():
        lines = [
            {"doc_id": i + offset, "doc_hash": f"{task}{i + offset}", "prompt_hash": "p", "filter": "none", metric: value}
            for i, value in enumerate(one)
        ]
        for line, document in zip(lines, (documents or {}).get(task, ()), strict=False):
            line["doc"] = document
        for name, by_task in (beside or {}).items():
            for line, score in zip(lines, by_task[task], strict=True):
                line[name] = score
        (folder / f"samples_{task}_{date}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    return path


STEERED = {"method": "clas", "alpha": 1.0, "anchor": "en", "masks_hash": "0123456789abcdef", "languages": {"hi": {}}}


def draw(seed: int, items: int = 60, graded: bool = False, tasks: Sequence[str] = ("en", "hi", "sw")) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    if graded:
        return {f"xquad_{one}": rng.choice([0, 0.4, 0.5, 1], size=items).tolist() for one in tasks}
    return {f"xnli_{one}": rng.integers(2, size=items).astype(float).tolist() for one in tasks}


def compare_made(
    folder: Path, theirs: Mapping[str, Sequence[float]], ours: Mapping[str, Sequence[float]], **options: Any
) -> Comparison:
    """Compares an unsteered run with a steered one, both made of these items' scores."""
    family = next(iter(theirs)).rpartition("_")[0]
    told = {key: options.pop(key) for key in ("samples", "reported", "higher_is_better") if key in options}
    told["metric"] = options.pop("measured", "acc")
    write_run(folder / "hf", theirs, **told)
    write_run(folder / "clas", ours, STEERED, **told)
    return compare(read_runs([folder]), family, **options)
