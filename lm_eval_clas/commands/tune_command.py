"""`clas tune`: the strength by task and language, in one load."""

from __future__ import annotations

import json
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.folded_table import FoldedTable
from lm_eval_clas.base.screen import print_out
from lm_eval_clas.commands.application import (
    Json,
    app,
    console,
    messages,
    next_run,
    notes,
    parse_numbers,
    parse_words,
    path_option,
    progress_bars,
    tell_next,
)
from lm_eval_clas.commands.shared_options import (
    ClusterOption,
    DeviceOption,
    MetricOption,
    ModelOption,
    PairLanguage,
    PairOption,
)

if TYPE_CHECKING:
    from lm_eval_clas.masks.strengths import Tuned


class Engine(str, Enum):
    """What runs the model."""

    hf = "hf"
    vllm = "vllm"


class Objective(str, Enum):
    """What tuning makes as high as it can."""

    metric = "metric"
    loglikelihood = "loglikelihood"


def _finished_tasks(out: Path, **_: Any) -> str:
    finished = sorted(path.stem for path in (out / "scores").glob("*.json"))
    return f"Finished: {', '.join(finished) or 'none'}. The same command goes on from there."


@app.command(kept=_finished_tasks)
def tune(
    model: ModelOption,
    masks: Annotated[str, typer.Option(help="Mask folder, which gets the result; or a shipped name or Hub repository.")],
    tasks: Annotated[str, typer.Option(help="Tasks of the harness, e.g. clas_xquad_tune,clas_xnli_tune; on tuning splits.")],
    out: Annotated[Path, path_option("Folder of the run. The same command goes on where a run was stopped.")],
    method: Annotated[str, typer.Option(help="What is tuned: clas, or another method of hf-clas, e.g. diffmean.")] = "clas",
    alphas: Annotated[
        str | None,
        typer.Option(help="Strengths to try; 0 is always among them. Default: by method; of clas, -8,-5,-4,-2,-1,0,1,2,4."),
    ] = None,
    betas: Annotated[str, typer.Option(help="Amplifications to try, e.g. 0.2,0.4; default: the masks'.")] = "",
    gammas: Annotated[str, typer.Option(help="Dampings to try; default: the masks'.")] = "",
    layers: Annotated[str, typer.Option(help="Bridge layers to try, e.g. 13-15,14-15; default: the masks'.")] = "",
    objective: Annotated[
        Objective, typer.Option(help="metric: the task's; loglikelihood: of the gold answer, finer on small samples.")
    ] = Objective.metric,
    metric: MetricOption = None,
    shared: Annotated[bool, typer.Option("--shared", help="One strength for all languages and tasks.")] = False,
    guard: Annotated[
        bool, typer.Option("--guard", help="Keep alpha 0 where the gain cannot be told from 0 on the tuning items.")
    ] = False,
    pair: PairOption = PairLanguage.target,
    limit: Annotated[int | None, typer.Option(help="Items of each task.", min=1)] = None,
    num_fewshot: Annotated[int | None, typer.Option(help="Examples in the prompt; default: the task's.", min=0)] = None,
    apply_chat_template: Annotated[bool, typer.Option("--apply-chat-template", help="As in lm_eval.")] = False,
    include_path: Annotated[list[Path], typer.Option(help="More folders of tasks; ours are always there.")] = [],  # noqa: B006
    engine: Annotated[
        Engine, typer.Option(help="hf, or vllm: all strengths and languages in one batch, for tasks that generate.")
    ] = Engine.hf,
    batch_size: Annotated[str, typer.Option(help="Items in a batch, or auto; vllm makes its own batches.")] = "8",
    model_args: Annotated[
        str, typer.Option(help="More arguments of the harness's hf (or vllm) model, e.g. dtype=bfloat16,revision=main.")
    ] = "",
    device: DeviceOption = None,
    cluster: ClusterOption = None,
    seed: Annotated[int, typer.Option(help="Of the resampling behind intervals and the guard.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Find the best strength by task and language, in one load; lm_eval then uses it with alpha=tuned."""
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.base.near_names import require_known
    from lm_eval_clas.base.plain_numbers import require_batch_size
    from lm_eval_clas.base.processes import Processes
    from lm_eval_clas.disk.files import shipped
    from lm_eval_clas.disk.written import claimed
    from lm_eval_clas.drawing.figures import new_figure
    from lm_eval_clas.harness.task_loading import load_tasks, other_splits
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.masks.strengths import CLAS
    from lm_eval_clas.neurons.bridge import parse_layers
    from lm_eval_clas.steering.methods.method_table import METHODS, measured_hash
    from lm_eval_clas.tuning.chosen_engine import engine_in_use
    from lm_eval_clas.tuning.curves import by_unit, tuned_curves
    from lm_eval_clas.tuning.measuring import TuningPlan, grid, tunable
    from lm_eval_clas.tuning.tuning_run import dumped, run_tuning

    quiet_libraries()
    require_batch_size(batch_size, "--batch-size")
    new_figure(1, 1)  # a missing matplotlib is told now, and not after hours
    loaded = MaskSet.load(masks)
    size = loaded.config.model.fingerprint
    require_known("--method", method, METHODS)
    used = METHODS[method]
    if (betas or gammas) and not used.uses_strengths:
        raise ClasError(f"--{'betas' if betas else 'gammas'} plays no role with --method {method}; drop it.")
    settings = grid(
        loaded,
        used.alphas if alphas is None else parse_numbers("--alphas", alphas),
        parse_numbers("--betas", betas),
        parse_numbers("--gammas", gammas),
        [parse_layers(one, size.layers, size.empty_layers) for one in parse_words(layers)],
    )
    if len(settings) < 2:
        raise ClasError("--alphas has nothing to try beside 0; give strengths like -2,-1,1,2.")
    for layer_run in {setting.layers for setting in settings}:
        used.require(loaded, layer_run)
    found = load_tasks(parse_words(tasks), [str(shipped("tasks")), *map(str, include_path)], num_fewshot)
    names, skipped = tunable(found, loaded, pair.value)
    for name, why in skipped.items():
        messages.print(f"Skipping {name}: {why}.", highlight=False)
    if not names:
        raise ClasError("None of the tasks has anything to tune; choose tasks in languages that the masks have.")
    recipe = TuningPlan(
        model=model,
        model_args=model_args,
        masks=loaded.hash,
        tasks=tuple(names),
        settings=settings,
        objective=objective.value,
        metric=metric,
        limit=limit,
        num_fewshot=num_fewshot,
        apply_chat_template=apply_chat_template,
        engine=engine.value,
        pair=pair.value,
        method=method,
        measured=measured_hash(loaded, method),
    )
    way = engine_in_use(engine.value, model, model_args, loaded, settings, device, batch_size, method)
    processes = Processes.launched()
    target = Path(masks).expanduser() if Path(masks).expanduser().is_dir() else out / "masks"
    with claimed(out) if processes.main else nullcontext(), progress_bars() as progress:
        progress.say("loading the model")
        tuned = run_tuning(
            recipe,
            {name: found[name] for name in names},
            loaded,
            out,
            target,
            load=way.load,
            sweep_with=way.sweep,
            progress=progress,
            shared=shared,
            guard=guard,
            seed=seed,
            cluster=cluster,
            processes=processes,
        )
    if as_json and processes.main:
        print_out(json.dumps(dumped(tuned), indent=2, ensure_ascii=False))
    else:
        _show_tuned(tuned)
    shown = escape(str(target))
    pictures = ", ".join(f"{name}.png" for name in by_unit(tuned_curves(tuned)))
    notes.print(f"Wrote {escape(str(out))}: tuned.json, scores.csv, {pictures}; and the strengths into {shown}", soft_wrap=True)
    own = [str(path) for path in include_path]
    options = [
        "--include_path",
        own[0] if own else str(shipped("tasks")),
        "--batch_size",
        "auto" if engine is Engine.vllm else batch_size,
    ]
    options += ["--device", device] if device else []
    options += ["--num_fewshot", str(num_fewshot)] if num_fewshot is not None else []
    options += ["--apply_chat_template", "--fewshot_as_multiturn"] if apply_chat_template else []
    arguments = [f"pretrained={model}", model_args, f"masks={target}", "alpha=tuned"]
    arguments += [f"method={method}"] if method != CLAS else []
    arguments += [f"pair={pair.value}"] if pair is not PairLanguage.target else []
    others = ",".join(other_splits(parse_words(tasks), own))
    command = next_run(f"{engine.value}-clas", arguments, *options, tasks=others, command="clas eval" if own else "lm_eval")
    tell_next(*command, lead="Next, on other splits")
    if own[1:]:
        messages.print(f"lm_eval takes one --include_path; left out are {', '.join(map(escape, own[1:]))}.", highlight=False)


def _show_tuned(tuned: Tuned) -> None:
    from lm_eval_clas.evidence.clusters import FEWEST
    from lm_eval_clas.tuning.curves import unit_tuned_in

    table = FoldedTable(title="Strength by task and language; gain over alpha 0", keys=2)
    for column in ("task", "lang", "items", "at 0", "best", "gain", "95 % interval", "p", "chosen"):
        text = column in ("task", "lang")
        table.add_column(column, justify="left" if text else "right")
    for family, by_language in tuned.items():
        for language, one in by_language.items():
            unit = unit_tuned_in(one)
            scale, digits = unit.scale, unit.digits
            table.add_row(
                f"{family} ({one.metric})" if one.objective == "metric" else family,
                language,
                str(one.items),
                f"{scale * one.measured[0].score:.{digits - 1}f}",
                f"{one.best.alpha:g}",
                f"{scale * one.best.gain:+.{digits}f}",
                " ".join(f"{scale * end:+.{digits}f}" for end in (one.best.low, one.best.high) if end is not None),
                f"{one.p_value:.3f}",
                f"[bold]{one.chosen.alpha:g}[/bold]",
            )
    console.print(table)
    for family, by_language in tuned.items():
        if few := [language for language, one in by_language.items() if one.best.low is None]:
            told = f"{family}: no interval in {', '.join(few)}; fewer than {FEWEST} items or clusters are too few for one."
            console.print(escape(told), highlight=False)
        together = [one for one in by_language.values() if one.clusters is not None and one.clusters < one.items]
        if together:
            fields = ", ".join(dict.fromkeys(f"'{name}'" for one in together for name in one.cluster_fields))
            counts = sorted({one.clusters or 0 for one in together})
            span = "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
            told = f"{family}: items of one {fields} hang together; intervals and p draw and flip {span} clusters."
            console.print(escape(told), highlight=False)
