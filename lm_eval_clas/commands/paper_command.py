"""`clas paper`: a whole study from one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.folded_table import FoldedTable
from lm_eval_clas.base.near_names import require_known
from lm_eval_clas.base.screen import print_out
from lm_eval_clas.commands.application import app, console, messages, path_option, progress_bars

if TYPE_CHECKING:
    from lm_eval_clas.study.plan.making import StudyPlan
    from lm_eval_clas.study.recipe import StudyRecipe


def _finished_stages(**_: Any) -> str:
    return "Finished stages are kept, and what was finished of the one that ran; the same command goes on from there."


@app.command(kept=_finished_stages)
def paper(
    recipe: Annotated[
        str,
        typer.Argument(help="A YAML file, or a shipped recipe: [duel-]gemma-3-270m, llama-3.1-8b[-wide], qwen-2.5-7b[-wide]."),
    ],
    out: Annotated[Path | None, path_option("Folder of the study; default: studies/NAME.")] = None,
    only: Annotated[
        str | None, typer.Option(help="One stage: profile, masks, tune, evaluate, analyse, tables or report.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan, and run nothing: no network, no model.")] = False,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="For the plan, time the model on this machine, which loads it."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --plan: print it as JSON.")] = False,
) -> None:
    """Run a whole study: profile, masks, tune, evaluate, analyse, tables, report; what has not changed is skipped."""
    from lm_eval_clas.study.recipe import STAGES, StudyRecipe

    if json and not plan:
        raise ClasError("--json prints the plan as data; give it together with --plan.")
    loaded = StudyRecipe.load(recipe)
    if only is not None:
        require_known("--only", only, STAGES)
    folder = out or Path("studies") / loaded.name
    if plan:
        _require_tasks(loaded)
        _show_plan(_plan(loaded, folder, calibrate), json)
    else:
        _run(loaded, folder, only, calibrate)


def _run(recipe: StudyRecipe, folder: Path, only: str | None, calibrate: bool) -> None:
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.disk.files import write_text
    from lm_eval_clas.disk.written import claimed, recorded
    from lm_eval_clas.drawing.figures import new_figure
    from lm_eval_clas.engine.refusals import require_installed
    from lm_eval_clas.study.plan.told_plan import duration
    from lm_eval_clas.study.record import PLACES, Study
    from lm_eval_clas.study.stages import StudyStages

    quiet_libraries()
    new_figure(1, 1)  # a missing matplotlib is told now, and not after hours
    if recipe.engine == "vllm":
        require_installed()  # as above
    study = Study(folder)
    plan = _plan(recipe, folder, calibrate)
    with claimed(folder, PLACES if recorded(folder) else None), progress_bars() as progress:
        stages = StudyStages(recipe, folder, progress)
        stages.require_arguments()
        todo = [stage for stage in stages.all() if only in (None, stage.name)]
        if any(stage.name in ("tune", "evaluate") and not study.finished(stage) for stage in todo):
            _require_tasks(recipe)
        if only is not None and not todo:
            raise ClasError(f"The recipe has no stage '{only}'.")
        _show_plan(plan, json=False)
        write_text(folder / "recipe.yaml", recipe.dump())
        for number, stage in enumerate(todo, start=1):
            progress.stage(stage.name, number, len(todo))
            if study.finished(stage):
                console.print(f"[bold]{stage.name:9}[/bold]unchanged, skipped", highlight=False)
                continue
            if stage.inputs() is None:
                raise ClasError(
                    f"The stage {stage.name} needs what earlier stages give; run 'clas paper' without --only first."
                )
            study.run(stage)
            record = study.record(stage.name)
            console.print(f"[bold]{stage.name:9}[/bold]{duration(record.seconds if record else 0)}", highlight=False)
    if (folder / "report.html").is_file():
        console.print(f"Report: {escape(str(folder / 'report.html'))}", highlight=False, soft_wrap=True)


def _require_tasks(recipe: StudyRecipe) -> None:
    """Refuses mistyped tasks, which are needed hours later; of those on file, the harness is not asked, which takes seconds.

    Raises:
        ClasError: there is one.
    """
    from lm_eval_clas.harness.task_loading import require_tasks
    from lm_eval_clas.study.plan.known_sizes import known_sizes

    require_tasks(known_sizes().find(name for part in recipe.parts.values() for name in (*part.tune, *part.evaluate))[1])


def _plan(recipe: StudyRecipe, folder: Path, calibrate: bool) -> StudyPlan:
    """The plan; without a study in the folder and without `calibrate`, nothing is imported for it that takes seconds."""
    from lm_eval_clas.base.job_progress import JobProgress
    from lm_eval_clas.base.screen import Screen
    from lm_eval_clas.study.plan import calibration
    from lm_eval_clas.study.plan.making import plan_study
    from lm_eval_clas.study.plan.model_shapes import planned_model

    done: dict[str, bool] = {}
    unseen = JobProgress(Screen(quiet=True))
    if (folder / "stages").is_dir():
        from lm_eval_clas.study.record import Study
        from lm_eval_clas.study.stages import StudyStages

        study = Study(folder)
        done = {stage.name: study.finished(stage) for stage in StudyStages(recipe, folder, unseen).all()}
    measured = calibration.kept_calibration(recipe)
    if calibrate:
        from lm_eval_clas.base.logs import quiet_libraries
        from lm_eval_clas.study.stages import StudyStages

        shape, _, why = planned_model(recipe)
        if shape is None:
            raise ClasError(f"--calibrate needs to know what it times, and {why}; give 'shape' in the recipe.")
        quiet_libraries()
        with messages.status("Loading and timing the model ..."):
            measured = calibration.calibrate(recipe, shape, StudyStages(recipe, folder, unseen).load)
    return plan_study(recipe, done, measured)


def _show_plan(plan: StudyPlan, json: bool) -> None:
    from lm_eval_clas.study.plan.told_plan import gpu_rows, stage_cells, total_sentence

    if json:
        print_out(plan.model_dump_json(indent=1))
        return
    table = FoldedTable("stage", "what", title=f"{escape(plan.name)}: {escape(plan.model)}")
    for column in ("prompts, texts", "tokens", "time here"):
        table.add_column(column, justify="right")
    for stage in plan.stages:
        table.add_row(stage.stage, escape(stage.what), *stage_cells(stage))
    console.print(table)
    _say(total_sentence(plan))
    table = FoldedTable("GPU", title="All of it on one GPU: estimates that nobody has measured")
    for column in ("with hf", "generating in vLLM"):
        table.add_column(column, justify="right")
    table.add_column("memory with hf")
    for row in gpu_rows(plan.gpus):
        table.add_row(*row)
    console.print(table)
    for line in plan.assumes:
        _say(line, "Assumed")
    for line in [f"{why} ({stage.stage})." for stage in plan.stages for why in stage.unknown]:
        _say(line, "Not counted")
    for line in plan.can_show:
        _say(line, "Can show")


def _say(line: str, lead: str = "") -> None:
    console.print(f"[bold]{lead}:[/bold] {escape(line)}" if lead else escape(line), highlight=False, soft_wrap=True)
