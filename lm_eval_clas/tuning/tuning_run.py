"""A whole tuning run: measure task by task, choose, and write what was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.markup import escape

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.disk.written import claimed
from lm_eval_clas.evidence.cluster_fields import clustered
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.masks.mask_config import MASKS_CONFIG_FILE
from lm_eval_clas.masks.mask_place import MASKS_FILES
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import Tuned
from lm_eval_clas.steering.methods.method_table import measured_hash
from lm_eval_clas.texts.metric_units import unit_of_objective
from lm_eval_clas.tuning.choosing import choose, require_one_unit, table_rows
from lm_eval_clas.tuning.curves import by_unit, plot_curves, tuned_curves
from lm_eval_clas.tuning.gold_answers import GoldAnswers
from lm_eval_clas.tuning.measuring import TuningPlan, kept_scores, measure_settings, metric_measured, units

if TYPE_CHECKING:
    from rich.progress import Progress


def _save_strengths(masks: MaskSet, tuned: Tuned, method: str, folder: Path, target: Path) -> None:
    """Adds strengths to the masks in a folder as they are by now, with whatever was put beside them meanwhile.

    Raises:
        ClasError: they are no longer the masks that were tuned.
    """
    with claimed(target, MASKS_FILES, force=True):
        if (target / MASKS_CONFIG_FILE).is_file():
            there = MaskSet.load(target)
            if (there.hash, measured_hash(there, method)) != (masks.hash, measured_hash(masks, method)):
                raise ClasError(
                    f"The strengths are in '{folder / 'tuned.json'}' and not in '{target}', where other masks are by now than "
                    "those that were tuned; put these back and give the same command, which measures nothing again, or tune "
                    "the others with another --out."
                )
            masks = there
        masks.with_tuned(tuned, method).save(target)


def dumped(tuned: Tuned) -> dict[str, dict[str, Any]]:
    """Chosen strengths by task family and language as plain JSON, as `tuned.json` has them."""
    return {family: {language: one.model_dump() for language, one in by.items()} for family, by in tuned.items()}


def run_tuning(
    recipe: TuningPlan,
    tasks: Mapping[str, Any],
    masks: MaskSet,
    folder: Path,
    target: Path,
    *,
    load: Callable[[], Any],
    sweep_with: type[Sweep] = Sweep,
    progress: Progress,
    shared: bool = False,
    guard: bool = False,
    seed: int = 0,
    cluster: str | None = None,
    processes: Processes | None = None,
) -> Tuned:
    """Tunes strengths and writes them to the run folder and into a mask folder.

    Args:
        recipe: what decides the scores.
        tasks: the harness's task objects by name.
        masks: the masks to tune.
        folder: of the run; what is finished in it is kept.
        target: the mask folder to write; strengths are added to masks that are there.
        load: loads the model; not called if every task is finished.
        sweep_with: what asks the model under all settings.
        progress: gets a task for each of them.
        shared, guard, seed: as in `choose`.
        cluster: the field by which documents hang together, as in `units`.
        processes: those that call this together, each with a model of its own; the main one writes. Default: this one alone.

    Raises:
        ClasError: the folder holds another run, or scores of other documents, a task cannot be tuned, other masks than these
            are in the mask folder, or a file cannot be written.
    """
    processes = processes or Processes()

    def unfinished() -> list[str]:
        recipe.claim(folder)
        return [name for name, task in tasks.items() if kept_scores(name, task, recipe, folder) is None]

    missing = processes.from_main(unfinished)
    if skipped := [name for name in tasks if name not in missing]:
        progress.console.print(f"Already finished, skipped: {', '.join(skipped)}", highlight=False)
    if recipe.objective == "loglikelihood":
        for name in missing:
            GoldAnswers(name, tasks[name], recipe.limit)  # refused now, and not after the model has run
    if shared:  # as above
        measured = [(name, metric_measured(name, task, recipe)) for name, task in tasks.items()]
        require_one_unit((name, unit_of_objective(recipe.objective, metric, ())) for name, metric in measured)
    if cluster is not None:
        for name, task in tasks.items():  # as above
            clustered(list(islice(task.eval_docs, recipe.limit)), cluster, name)
    sweep = (
        sweep_with(load(), masks, recipe.settings, processes=processes, pair=recipe.pair, method=recipe.method)
        if missing
        else None
    )
    scores = []
    bars = {
        name: progress.add_task(f"tuning on {name}", total=None if name in missing else 1, completed=int(name not in missing))
        for name in tasks
    }
    for name, task in tasks.items():

        def report(done: int, total: int, bar: Any = bars[name]) -> None:
            progress.update(bar, completed=done, total=total)

        scores.append(measure_settings(sweep, name, task, recipe, folder, report, processes))
        if sweep is not None and name in missing and sweep.skipped:
            progress.console.print(f"{name}: {sweep.skipped} requests were answered before, skipped", highlight=False)

    def told(sentence: str) -> None:
        progress.console.print(f"[bold]Warning:[/bold] {escape(sentence)}", highlight=False, soft_wrap=True)

    found = units(scores, tasks, masks, told, cluster)
    if not found:
        raise ClasError("None of the items is in a language that the masks steer and has a score; nothing can be tuned.")
    tuned = choose(found, recipe.settings, shared=shared, guard=guard, seed=seed, report=told)
    if not tuned:
        raise ClasError(
            "Nothing is tuned: every task and language has items without a finite score at alpha 0; all scores are kept in "
            f"'{folder / 'scores'}', and another --metric, --objective or dtype may help."
        )
    if not processes.main:
        return tuned
    write_text(folder / "tuned.json", json.dumps(dumped(tuned), indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "scores.csv", pd.DataFrame(table_rows(tuned)).to_csv(index=False))
    for name, alike in by_unit(tuned_curves(tuned)).items():
        plot_curves(alike, folder / f"{name}.png")
    _save_strengths(masks, tuned, recipe.method, folder, target)
    return tuned
