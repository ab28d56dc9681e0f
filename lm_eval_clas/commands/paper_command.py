"""`clas paper`: a whole study from one recipe."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.commands.application import app, console, messages, path_option, progress_bars

if TYPE_CHECKING:
    from lm_eval_clas.study.costs import Speed, Work
    from lm_eval_clas.study.recipe import StudyRecipe
    from lm_eval_clas.study.record import Study
    from lm_eval_clas.study.stages import StudyStages


def _finished_stages(**_: Any) -> str:
    return "Finished stages are kept, and what was finished of the one that ran; the same command goes on from there."


@app.command(kept=_finished_stages)
def paper(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or a shipped recipe: gemma-3-270m, llama-3.1-8b, qwen-2.5-7b.")],
    out: Annotated[Path | None, path_option("Folder of the study; default: studies/NAME.")] = None,
    only: Annotated[
        str | None, typer.Option(help="One stage: profile, masks, tune, evaluate, analyse, tables or report.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan, and run nothing.")] = False,
) -> None:
    """Run a whole study: profile, masks, tune, evaluate, analyse, tables, report; what has not changed is skipped."""
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.disk.files import write_text
    from lm_eval_clas.disk.written import claimed, recorded
    from lm_eval_clas.drawing.figures import new_figure
    from lm_eval_clas.engine.refusals import require_installed
    from lm_eval_clas.study.recipe import StudyRecipe
    from lm_eval_clas.study.record import PLACES, Study
    from lm_eval_clas.study.stages import STAGES, StudyStages

    loaded = StudyRecipe.load(recipe)
    if only is not None and only not in STAGES:
        raise ClasError(f"--only takes one of {', '.join(STAGES)}, not '{only}'.")
    folder = out or Path("studies") / loaded.name
    quiet_libraries()
    new_figure(1, 1)  # a missing matplotlib is told now, and not after hours
    if loaded.engine == "vllm" and not plan:
        require_installed()  # as above
    study = Study(folder)
    with nullcontext() if plan else claimed(folder, PLACES if recorded(folder) else None), progress_bars() as progress:
        stages = StudyStages(loaded, folder, progress)
        if not plan:
            stages.require_arguments()
        todo = [stage for stage in stages.all() if only in (None, stage.name)]
        if only is not None and not todo:
            raise ClasError(f"The recipe has no stage '{only}'.")
        messages.print(f"Planning {loaded.name} in {escape(str(folder))} ...", highlight=False, soft_wrap=True)
        _show_plan(stages, study, [] if plan else [stage.name for stage in todo])
        if plan:
            return
        write_text(folder / "recipe.yaml", loaded.dump())
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
            console.print(f"[bold]{stage.name:9}[/bold]{_time(record.seconds if record else 0)}", highlight=False)
    if (folder / "report.html").is_file():
        console.print(f"Report: {escape(str(folder / 'report.html'))}", highlight=False, soft_wrap=True)


def _show_plan(stages: StudyStages, study: Study, todo: Sequence[str]) -> None:
    """Prints the plan; times are measured if any of the stages to do runs the model, else computed."""
    from lm_eval_clas.study.costs import calibrate, computed, tokenizer_of, work_of

    recipe = stages.recipe
    tokenizer = tokenizer_of(stages)
    works = {work.stage: work for work in work_of(stages, tokenizer)}
    done = {stage.name: study.finished(stage) for stage in stages.all()}
    speed = calibrate(stages) if any(name in todo and not done[name] for name in works) else None
    table = Table(title=f"{recipe.name}: {escape(recipe.model)}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage")
    table.add_column("what", overflow="fold")
    for column in ("forward passes", "tokens", "time"):
        table.add_column(column, justify="right")
    total = 0.0
    for stage in stages.all():
        work = works.get(stage.name)
        seconds = None if work is None else speed.seconds(work) if speed else computed(recipe, work)
        state = "done" if done[stage.name] else "" if seconds is None else _time(seconds)
        total += 0 if seconds is None or done[stage.name] else seconds
        at_least = "at least " if work and work.unknown else ""
        table.add_row(
            stage.name,
            work.what if work else "",
            f"{at_least}{work.passes:,}" if work else "",
            f"{at_least}{work.tokens:,.0f}" if work else "",
            state,
        )
    console.print(table)
    for line in _notes(recipe, works, speed, total, tokenizer is None):
        console.print(line, highlight=False, soft_wrap=True)


def _notes(recipe: StudyRecipe, works: dict[str, Work], speed: Speed | None, total: float, no_tokenizer: bool) -> list[str]:
    notes = [f"[bold]Can show:[/bold] {escape(gain)}" for work in works.values() for gain in work.gains]
    notes += [f"[bold]Not counted:[/bold] {escape(why)}" for work in works.values() for why in work.unknown]
    if no_tokenizer:
        notes.append("The model's tokenizer is not here: tokens are taken to be 3 characters.")
    if speed is not None:
        notes.append(f"About {_time(total)} in all, from a short calibration on this machine.")
    elif recipe.shape is not None:
        batch = recipe.evaluate.batch_size if isinstance(recipe.evaluate.batch_size, int) else 8
        memory = recipe.shape.memory(batch, 2048) / 2**30
        notes.append(
            f"Computed from the model's shape, not measured: about {memory:.0f} GiB of GPU memory (batch {batch}, 2,048 "
            f"tokens), {_time(total)} on one A100, if every answer is as long as it may be."
        )
    return notes


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
