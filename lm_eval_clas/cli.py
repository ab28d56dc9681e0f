"""The `clas` command. Heavy libraries are imported by the command that needs them, so that `--help` is quick."""

from __future__ import annotations

import json
import math
import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lm_eval_clas.errors import ClasError

if TYPE_CHECKING:
    from lm_eval_clas.masks import MaskSet
    from lm_eval_clas.tuned import Tuned

app = typer.Typer(
    help="Cross-Lingual Activation Steering for the LM evaluation harness: profile, masks, inspect, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console()
messages = Console(stderr=True)


class Level(str, Enum):
    """Whether categories are counted over the data set only, or also for each input."""

    dataset = "dataset"
    instance = "instance"


class Objective(str, Enum):
    """What tuning makes as high as it can."""

    metric = "metric"
    loglikelihood = "loglikelihood"


class Data(str, Enum):
    """What the demo runs on."""

    mini = "mini"
    hub = "hub"


@app.command(name="profile")
def profile_command(
    model: Annotated[str, typer.Option(help="Hugging Face model: Hub id or local path.")],
    corpus: Annotated[
        str, typer.Option(help="xquad, xnli, mini, a .jsonl file, or a folder of LANGUAGE.txt or LANGUAGE.jsonl files.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the profile; finished languages in it are kept.")],
    languages: Annotated[str | None, typer.Option(help="BCP-47 codes, e.g. en,ar,hi; default: all of the corpus.")] = None,
    samples: Annotated[int | None, typer.Option(help="Items to profile on; default: all of the corpus.", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Texts in a batch.", min=1)] = 8,
    max_tokens: Annotated[int, typer.Option(help="Longer texts are cut at the end.", min=1)] = 2048,
    level: Annotated[
        Level, typer.Option(help="instance: also count categories input by input (Wang et al. 2024).")
    ] = Level.dataset,
    model_args: Annotated[
        str, typer.Option(help="More arguments of the harness's hf model, e.g. dtype=bfloat16,gguf_file=model.gguf.")
    ] = "",
    model_name: Annotated[str | None, typer.Option(help="What to call the model in the profile; default: --model.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda, cuda:0, cpu, mps; default: the first accelerator.")] = None,
    projection: Annotated[
        str | None, typer.Option(help="Pattern of the down-projections' names, where they are not found by structure.")
    ] = None,
) -> None:
    """Profile what every MLP neuron does in each language, on the same texts in all of them."""
    from lm_eval_clas.corpora import ParallelInputBuilder
    from lm_eval_clas.instances import profile_instances
    from lm_eval_clas.logs import quiet_libraries
    from lm_eval_clas.profiling import profile

    quiet_libraries()
    chosen = [one.strip() for one in languages.split(",") if one.strip()] if languages else None
    texts = ParallelInputBuilder(corpus, chosen, samples).build()
    lm = _load(model, model_args, device)
    options: dict[str, Any] = {"batch_size": batch_size, "max_tokens": max_tokens, "projection": projection}
    with _progress() as progress:
        tasks = {language: progress.add_task(language, total=len(texts.ids)) for language in texts.languages}
        try:
            result = profile(
                lm.model,
                lm.tokenizer,
                texts,
                name=model_name,
                out=out,
                report=lambda language, done, _: progress.update(tasks[language], completed=done),
                **options,
            )
            if level is Level.instance:
                task = progress.add_task("input by input", total=len(texts.ids))
                profile_instances(
                    lm.model, lm.tokenizer, texts, out, report=lambda done: progress.update(task, completed=done), **options
                )
        except KeyboardInterrupt:
            finished = [one for one in texts.languages if (out / f"{one}.safetensors").is_file()]
            progress.stop()
            messages.print(f"Interrupted. Finished: {', '.join(finished) or 'none'}. The same command goes on from there.")
            raise typer.Exit(130) from None
    tokens = sum(sums.counts["all"] for sums in result.by_language.values())
    console.print(
        f"Profiled {len(texts.ids)} items in {len(result.languages)} languages, {tokens:,} tokens: {escape(str(out))}"
    )
    console.print(f"Next: clas masks {escape(str(out))} --out masks/NAME", highlight=False, soft_wrap=True)


@app.command()
def masks(
    profile: Annotated[Path, typer.Argument(help="Folder that clas profile wrote.")],
    out: Annotated[Path, typer.Option(help="Mask folder to write.")],
    statistic: Annotated[str, typer.Option(help="signed-mean, mean-abs or share-positive.")] = "signed-mean",
    tokens: Annotated[str, typer.Option(help="all, or last: the last token of each text only.")] = "all",
    threshold: Annotated[float, typer.Option(help="A neuron is active where its statistic is above this.")] = 0.0,
    anchor: Annotated[str, typer.Option(help="The language that is never steered.")] = "en",
    bridge: Annotated[str, typer.Option(help="auto, or layers like 24-29.")] = "auto",
    exclude_last: Annotated[int, typer.Option(help="Last layers that auto leaves out.", min=0)] = 2,
    level: Annotated[Level, typer.Option(help="instance: also report categories input by input.")] = Level.dataset,
    keep_means: Annotated[bool, typer.Option(help="Store the means in the folder too (profile.safetensors).")] = False,
) -> None:
    """Turn a profile into a mask folder: categories of neurons and bridge layers."""
    from lm_eval_clas.categories import NeuronCategorizer
    from lm_eval_clas.instances import load_instance_shares
    from lm_eval_clas.masks import MaskSet
    from lm_eval_clas.profiles import Profile

    loaded = Profile.load(profile)
    if missing := [one for one in loaded.config.languages if one not in loaded.languages]:
        raise ClasError(f"The profile '{profile}' is not finished ({', '.join(missing)} missing); run 'clas profile' again.")
    made = MaskSet.from_profile(
        loaded,
        categorizer=NeuronCategorizer(statistic, tokens, threshold),  # type: ignore[arg-type]
        anchor=anchor,
        bridge=bridge,
        exclude_last=exclude_last,
        keep_means=keep_means,
    )
    if level is Level.instance:
        made = made.with_instance_shares(load_instance_shares(profile, statistic, tokens, threshold))
    made.save(out)
    _show(made)
    shown = escape(str(out))
    next_step = f"lm_eval --model hf-clas --model_args pretrained=...,masks={shown}"
    console.print(f"Wrote {shown}. Next: {next_step}", highlight=False, soft_wrap=True)


@app.command()
def inspect(
    masks: Annotated[str, typer.Argument(help="Mask folder, name of a shipped one, or Hub repository.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw categories by layer to FILE.png (or .pdf, .svg).")] = None,
) -> None:
    """Show what is in a mask folder: model, corpus, languages, categories by layer, bridge layers and why."""
    from lm_eval_clas.inspection import summary
    from lm_eval_clas.masks import MaskSet

    loaded = MaskSet.load(masks)
    if plot is not None:
        from lm_eval_clas.plots import plot_categories

        plot_categories(loaded, plot)
        messages.print(f"Wrote {escape(str(plot))}", highlight=False, soft_wrap=True)
    if as_json:
        sys.stdout.write(json.dumps(summary(loaded), indent=2, ensure_ascii=False) + "\n")
    else:
        _show(loaded)


@app.command()
def tune(
    model: Annotated[str, typer.Option(help="Hugging Face model: Hub id or local path.")],
    masks: Annotated[str, typer.Option(help="Mask folder, which gets the result; or a shipped name or Hub repository.")],
    tasks: Annotated[str, typer.Option(help="Tasks of the harness, e.g. clas_xquad_tune,clas_xnli_tune; on tuning splits.")],
    out: Annotated[Path, typer.Option(help="Folder of the run. The same command goes on where a run was stopped.")],
    alphas: Annotated[str, typer.Option(help="Strengths to try; 0 is always among them.")] = "-8,-5,-4,-2,-1,0,1,2,4",
    betas: Annotated[str, typer.Option(help="Amplifications to try, e.g. 0.2,0.4; default: the masks'.")] = "",
    gammas: Annotated[str, typer.Option(help="Dampings to try; default: the masks'.")] = "",
    layers: Annotated[str, typer.Option(help="Bridge layers to try, e.g. 13-15,14-15; default: the masks'.")] = "",
    objective: Annotated[
        Objective, typer.Option(help="metric: the task's; loglikelihood: of the gold answer, finer on small samples.")
    ] = Objective.metric,
    metric: Annotated[str | None, typer.Option(help="Which metric; default: f1_lang, f1, acc, or the task's first.")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="One strength for all languages and tasks.")] = False,
    guard: Annotated[
        bool, typer.Option("--guard", help="Keep alpha 0 where the gain cannot be told from 0 on the tuning items.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Items of each task.", min=1)] = None,
    num_fewshot: Annotated[int | None, typer.Option(help="Examples in the prompt; default: the task's.", min=0)] = None,
    apply_chat_template: Annotated[bool, typer.Option("--apply-chat-template", help="As in lm_eval.")] = False,
    include_path: Annotated[list[Path], typer.Option(help="More folders of tasks; ours are always there.")] = [],  # noqa: B006
    batch_size: Annotated[str, typer.Option(help="Items in a batch, or auto.")] = "8",
    model_args: Annotated[
        str, typer.Option(help="More arguments of the harness's hf model, e.g. dtype=bfloat16,revision=main.")
    ] = "",
    device: Annotated[str | None, typer.Option(help="cuda, cuda:0, cpu, mps; default: the first accelerator.")] = None,
    seed: Annotated[int, typer.Option(help="Of the resampling behind intervals and the guard.", min=0)] = 0,
) -> None:
    """Find the best strength by task and language, in one load; lm_eval then uses it with alpha=tuned."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # the harness's bars, one for each setting, would drown ours
    from lm_eval_clas.bridge import parse_layers
    from lm_eval_clas.files import shipped
    from lm_eval_clas.logs import quiet_libraries
    from lm_eval_clas.masks import MaskSet
    from lm_eval_clas.plots import new_figure
    from lm_eval_clas.tuning import Recipe, grid, load_tasks, tunable
    from lm_eval_clas.tuning_run import run_tuning

    quiet_libraries()
    new_figure(1, 1)  # a missing matplotlib is told now, and not after hours
    loaded = MaskSet.load(masks)
    total = loaded.config.model.fingerprint.layers
    settings = grid(
        loaded,
        _numbers("--alphas", alphas),
        _numbers("--betas", betas),
        _numbers("--gammas", gammas),
        [parse_layers(one, total) for one in layers.split(",") if one.strip()],
    )
    if len(settings) < 2:
        raise ClasError("--alphas has nothing to try beside 0; give strengths like -2,-1,1,2.")
    found = load_tasks(
        [one.strip() for one in tasks.split(",") if one.strip()], [str(shipped("tasks")), *map(str, include_path)]
    )
    names, skipped = tunable(found, loaded)
    for name, why in skipped.items():
        messages.print(f"Skipping {name}: {why}.", highlight=False)
    if not names:
        raise ClasError("None of the tasks has anything to tune; choose tasks in languages that the masks have.")
    recipe = Recipe(
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
    )
    target = Path(masks).expanduser() if Path(masks).expanduser().is_dir() else out / "masks"
    with _progress() as progress:
        try:
            tuned = run_tuning(
                recipe,
                {name: found[name] for name in names},
                loaded,
                out,
                target,
                load=lambda: _load(model, f"batch_size={batch_size},{model_args}".rstrip(","), device, fast=True),
                progress=progress,
                shared=shared,
                guard=guard,
                seed=seed,
            )
        except KeyboardInterrupt:
            progress.stop()
            finished = sorted(path.stem for path in (out / "scores").glob("*.json"))
            messages.print(f"Interrupted. Finished: {', '.join(finished) or 'none'}. The same command goes on from there.")
            raise typer.Exit(130) from None
    _show_tuned(tuned)
    shown = escape(str(target))
    console.print(
        f"Wrote {escape(str(out))}: tuned.json, scores.csv, curves.png; and the strengths into {shown}", soft_wrap=True
    )
    next_step = f"lm_eval --model hf-clas --model_args pretrained={escape(model)},masks={shown},alpha=tuned"
    console.print(f"Next, on other splits: {next_step}", highlight=False, soft_wrap=True)


@app.command(name="eval", add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def evaluate(context: typer.Context) -> None:
    """Run lm_eval with the tasks of this package already on --include_path; all options are those of lm_eval run."""
    from lm_eval._cli import HarnessCLI
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import setup_logging

    from lm_eval_clas.files import shipped

    setup_logging()
    sys.argv = ["lm_eval", "run", *context.args]
    harness = HarnessCLI()
    arguments = harness.parse_args()
    own = getattr(arguments, "include_path", None)
    if own is None and getattr(arguments, "config", None):
        own = EvaluatorConfig.load_yaml_config(arguments.config).get("include_path")
    arguments.include_path = [str(shipped("tasks")), *([own] if own else [])]
    harness.execute(arguments)


@app.command()
def tasks() -> None:
    """Print the folder of the tasks, for lm_eval's --include_path."""
    from lm_eval_clas.files import shipped

    print(shipped("tasks"))


@app.command(name="demo-model")
def demo_model() -> None:
    """Print the path of the demo model, Gemma 3 270M; it is converted from its PyPI package on the first call."""
    from lm_eval_clas.demo_model import gemma
    from lm_eval_clas.logs import quiet_libraries

    quiet_libraries()
    with messages.status("Converting Gemma 3 270M to safetensors (once, about a minute) ..."):
        path = gemma()
    print(path)


@app.command()
def demo(
    data: Annotated[Data, typer.Option(help="mini: texts that ship with the package; hub: XQuAD from the Hub.")] = Data.mini,
    out: Annotated[Path, typer.Option(help="Folder for masks, results and the picture.")] = Path("clas-demo"),
    alpha: Annotated[float, typer.Option(help="Strength of the steering.")] = 1.0,
    limit: Annotated[int | None, typer.Option(help="Fewer items per task than 16 and 12 (mini), 20 (hub).", min=1)] = None,
) -> None:
    """Run the whole main job on Gemma 3 270M: profile, masks, then hf against hf-clas. No network with mini."""
    from lm_eval_clas.demo import run_demo

    run_demo(data.value, out, alpha, limit, console)


def _numbers(option: str, text: str) -> list[float]:
    try:
        numbers = [float(one) for one in text.split(",") if one.strip()]
    except ValueError as error:
        raise ClasError(f"{option} takes numbers with commas between them, like -2,-1,1,2; not '{text}'.") from error
    if not all(map(math.isfinite, numbers)):
        raise ClasError(f"{option} takes finite numbers, not '{text}'.")
    return numbers


def _load(model: str, model_args: str, device: str | None, fast: bool = False) -> Any:
    """The harness's own Hugging Face model, which knows every way to load one; or ours, which scores fast.

    Raises:
        ClasError: it cannot be loaded.
    """
    from lm_eval.models.huggingface import HFLM
    from lm_eval.utils import simple_parse_args_string

    from lm_eval_clas.fast import FastLM, default_device

    try:
        arguments = {"device": device or default_device(), **simple_parse_args_string(model_args)}
        return (FastLM if fast else HFLM)(model, **arguments)
    except Exception as error:  # transformers, the harness and the Hub raise every kind for a wrong name or argument
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ClasError(f"Cannot load the model '{model}': {reason}") from error


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=messages,
    )


def _show(masks: MaskSet) -> None:
    from lm_eval_clas.inspection import summary

    info = summary(masks)
    corpus = info["corpus"]
    size = info["model"]["fingerprint"]
    for label, text in [
        ("model", f"{info['model']['name']} ({size['model_type']}, {size['layers']} layers x {size['neurons']:,} neurons)"),
        ("corpus", f"{corpus['name']}, {corpus['samples']} samples, {sum(corpus['tokens'].values()):,} tokens"),
        ("active", f"{info['statistic']} over {info['tokens']} tokens above {info['threshold']:g}"),
        ("languages", f"{', '.join(info['languages'])}; anchor {info['anchor']}"),
        ("bridge", f"{', '.join(map(str, info['bridge_layers']))} ({info['bridge_rule']})"),
        ("steering", f"beta {info['beta']:g}, gamma {info['gamma']:g}; hash {info['hash']}"),
    ]:
        console.print(f"[bold]{label:10}[/bold]{escape(text)}", highlight=False)
    names = ("dead", "specific", "partial", "all")
    table = Table("layer", *names, title="Neurons by layer and category (* bridge layer)", title_justify="left")
    for row in info["layers"]:
        mark = "*" if row["bridge"] else " "
        table.add_row(f"{row['layer']:3} {mark}", *(f"{row[name]:6,} {row[f'{name}_share']:6.1%}" for name in names))
    console.print(table)
    if len(info["languages"]) <= 20:
        table = Table(title="Overlap of active neurons in the bridge layers (Jaccard)", title_justify="left")
        for column in ("", *info["languages"]):
            table.add_column(column, justify="right", no_wrap=True)
        for language, overlaps in zip(info["languages"], info["overlap"], strict=True):
            table.add_row(language, *(f".{round(value * 100):02d}" if value < 0.995 else "1" for value in overlaps))
        console.print(table)
    if info["instance_shares"]:
        table = Table("layer", *names, title="Share of categories input by input (Wang et al. 2024)", title_justify="left")
        for layer, row in enumerate(info["instance_shares"]):
            table.add_row(f"{layer:3}", *(f"{value:6.1%}" for value in row))
        console.print(table)


def _show_tuned(tuned: Tuned) -> None:
    points = {"metric": 100.0, "loglikelihood": 1.0}
    table = Table(
        title="Strength by task and language; gain over alpha 0", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    for column in ("task", "lang", "items", "at 0", "best", "gain", "95 % interval", "p", "chosen"):
        text = column in ("task", "lang")
        table.add_column(column, justify="left" if text else "right", no_wrap=column != "task", overflow="fold", min_width=4)
    for family, by_language in tuned.items():
        for language, one in by_language.items():
            scale = points[one.objective]
            table.add_row(
                f"{family} ({one.metric})" if one.objective == "metric" else family,
                language,
                str(one.items),
                f"{scale * one.measured[0].score:.1f}",
                f"{one.best.alpha:g}",
                f"{scale * one.best.gain:+.2f}",
                f"{scale * one.best.low:+.2f} {scale * one.best.high:+.2f}",
                f"{one.p_value:.3f}",
                f"[bold]{one.chosen.alpha:g}[/bold]",
            )
    console.print(table)


def main() -> None:
    """The entry point: a user's mistake is one sentence and exit code 2."""
    try:
        app()
    except ClasError as error:
        messages.print(f"[bold red]Error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        messages.print("Interrupted.")
        sys.exit(130)
