"""`clas eval`, `clas serve`, `clas tasks`, `clas demo`, `clas demo-model`: running what ships, or what stands beside it."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from lm_eval_clas.base.clock import stopwatch
from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.logs import no_bars, no_bars_of_libraries
from lm_eval_clas.base.screen import print_out
from lm_eval_clas.commands.application import Json, app, console, messages, notes, number_option, path_option, progress_bars
from lm_eval_clas.commands.shared_options import LayersOption, PartialScopeOption, SpecificScopeOption

EVAL = "clas eval"
_NO_TASKS = "Tasks not found: "  # the harness, before it loads a model


class Data(str, Enum):
    """What the demo runs on."""

    mini = "mini"
    hub = "hub"


def _answers_in_a_cache(**_: Any) -> str:
    return (
        "lm_eval keeps nothing of a run that did not end, but answers where --use_cache was given; the same command starts "
        "again, with those."
    )


_ANOTHER_LINE = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(name="eval", add_help_option=False, context_settings=_ANOTHER_LINE, kept=_answers_in_a_cache)
def evaluate(context: typer.Context) -> None:
    """Run lm_eval with the tasks of this package already on --include_path; all options are those of lm_eval run."""
    if messages.quiet:
        no_bars_of_libraries()
        os.environ["LMEVAL_LOG_LEVEL"] = "ERROR"
    from lm_eval._cli import HarnessCLI
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import setup_logging

    from lm_eval_clas.disk.files import shipped
    from lm_eval_clas.harness.plugin import register

    register()  # the hook is not there in every kind of installation
    setup_logging()
    sys.argv = ["lm_eval", "run", *context.args]
    harness = HarnessCLI()
    _call_it_clas(harness)
    arguments = harness.parse_args()
    own = getattr(arguments, "include_path", None)
    if own is None and getattr(arguments, "config", None):
        own = EvaluatorConfig.load_yaml_config(arguments.config).get("include_path")
    arguments.include_path = [str(shipped("tasks")), *([own] if own else [])]
    try:
        with no_bars() if messages.quiet else nullcontext():
            harness.execute(arguments)
    except ValueError as error:
        told = str(error)
        if not told.startswith(_NO_TASKS):
            raise
        raise _no_tasks(told.removeprefix(_NO_TASKS).split(", "), arguments.include_path) from error


def _no_tasks(names: list[str], include_path: list[Any]) -> ClasError:
    from lm_eval_clas.harness.task_loading import no_tasks
    from lm_eval_clas.languages.task_index import read_index

    folders = [Path(one) for given in include_path for one in ([given] if isinstance(given, str) else given)]
    return no_tasks(names, read_index(folders).members.keys(), ", --include_path adds folders")


def _call_it_clas(harness: Any) -> None:
    """Help and errors of the harness's parser speak of `clas eval`, and say what it adds."""
    command = harness._subparsers.choices["run"]
    for text in ("usage", "epilog"):
        given = getattr(command, text) or ""
        setattr(command, text, given.replace("lm-eval run", EVAL).replace("lm_eval run", EVAL) or None)
    command.description = (
        "Run lm_eval with the tasks of lm-eval-clas already on --include_path.\n"
        "All options are those of 'lm_eval run', but for --quiet: print results and errors only."
    )
    command.prog = harness._parser.prog = EVAL
    harness._parser.usage = command.usage


@app.command()
def tasks() -> None:
    """Print the folder of the tasks, for lm_eval's --include_path."""
    from lm_eval_clas.disk.files import shipped

    print_out(shipped("tasks"))


def _unconverted(**_: Any) -> str:
    return "A model that was not converted to its end is not kept; the same command converts it again."


@app.command(name="demo-model", kept=_unconverted)
def demo_model() -> None:
    """Print the path of the demo model, Gemma 3 270M; it is converted from its PyPI package on the first call."""
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.demo.demo_model import gemma

    quiet_libraries()
    with progress_bars() as progress:
        progress.say("reading Gemma 3 270M; it is converted on the first call, in about a minute")
        path = gemma()
    print_out(path)


def _converted(**_: Any) -> str:
    return "The converted model, finished languages and finished results are kept; the same command goes on from there."


@app.command(kept=_converted)
def demo(
    data: Annotated[Data, typer.Option(help="mini: texts that ship with the package; hub: XQuAD from the Hub.")] = Data.mini,
    out: Annotated[Path, path_option("Folder for all of it; what is finished is kept.")] = Path("clas-demo"),
    alpha: Annotated[float, number_option("Strength of the steering.")] = 1.0,
    limit: Annotated[int | None, typer.Option(help="Fewer items per task than 16 (mini), 20 (hub).", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Run the whole main job on Gemma 3 270M: profile, masks, then hf against hf-clas. No network with mini."""
    from lm_eval_clas.demo.demo_run import run_demo, score_rows, score_table, tell_end
    from lm_eval_clas.disk.written import claimed

    passed = stopwatch()
    with claimed(out), progress_bars() as progress:
        results = run_demo(data.value, out, alpha, limit, notes, progress)
    if as_json:
        print_out(json.dumps(score_rows(results, data.value), indent=1, ensure_ascii=False))
    else:
        console.print(score_table(results, data.value))
    tell_end(data.value, out, passed(), notes)


def _no_server(**_: Any) -> str:
    return "The server has ended; the same command starts it again."


@app.command(context_settings=_ANOTHER_LINE, kept=_no_server)
def serve(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Hugging Face model: Hub id or local path.")],
    masks: Annotated[str, typer.Option(help="Mask folder, shipped name or Hub repository.")],
    alpha: Annotated[str, typer.Option(help="Strength: a number, or a .json file with one by language.")] = "1.0",
    beta: Annotated[float | None, number_option("Amplification; default: the masks'.")] = None,
    gamma: Annotated[float | None, number_option("Damping; default: the masks'.")] = None,
    layers: LayersOption = None,
    specific_scope: SpecificScopeOption = "all",
    partial_scope: PartialScopeOption = "all",
    method: Annotated[
        str, typer.Option(help="clas, uniform, random, int-mu, arithmetic, diffmean or random-direction.")
    ] = "clas",
    language: Annotated[
        str | None, typer.Option(help="Of requests that name none: a code, or detect; default: they are not steered.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of --method random and random-direction, and vLLM's own.", min=0)] = None,
) -> None:
    """Serve a model with vLLM, steered by the language that each request names. Further options are those of vllm serve."""
    if messages.quiet:
        os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    from lm_eval_clas.engine.server.served_steering import ServedSteering
    from lm_eval_clas.engine.server.server_start import run_server

    options = {
        "alpha": alpha,
        "beta": beta,
        "gamma": gamma,
        "layers": layers,
        "specific_scope": specific_scope,
        "partial_scope": partial_scope,
        "method": method,
        "seed": seed or 0,
    }
    more = [*context.args, *(() if seed is None else ("--seed", str(seed)))]
    run_server(model, ServedSteering(masks, options, language), more)
