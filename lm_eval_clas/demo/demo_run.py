"""The main job from end to end on Gemma 3 270M: profile, masks, then `hf` against `hf-clas` through the harness."""

from __future__ import annotations

import gc
import json
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from lm_eval_clas.base.clock import now
from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.folded_table import FoldedTable
from lm_eval_clas.base.job_progress import JobProgress
from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.base.version import __version__
from lm_eval_clas.demo.demo_model import DEMO_NAME, gemma
from lm_eval_clas.disk.checked_json import read_json
from lm_eval_clas.disk.files import shipped, write_text
from lm_eval_clas.masks.category_picture import plot_categories
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.profiling import finished_profile, profile
from lm_eval_clas.texts.corpora import MINI_LANGUAGES, XQUAD_LANGUAGES, ParallelInputBuilder


@dataclass(frozen=True)
class _Column:
    """One column of the closing table: its title, the task of a language, the metric, how many items to run, their requests."""

    title: str
    task: str
    metric: str
    items: int
    requests: str


_COLUMNS = {
    "mini": [
        _Column("question answering, F1", "clas_mini_qa_{}", "f1_lang,none", 16, "generate_until"),
        _Column("NLI, accuracy", "clas_mini_nli_{}", "acc,none", 16, "loglikelihood"),
    ],
    "hub": [_Column("XQuAD, F1", "clas_xquad_{}", "f1_lang,none", 20, "generate_until")],
}
_LANGUAGES = {"mini": MINI_LANGUAGES, "hub": XQUAD_LANGUAGES}
Results = dict[str, dict[str, Any]]


def run_demo(data: str, out: Path, alpha: float, limit: int | None, console: Console, progress: JobProgress) -> Results:
    """Runs the demo and tells how it goes.

    Args:
        data: `mini` (texts of the package) or `hub` (XQuAD).
        out: folder for `profile/`, `masks/`, `hf.json`, `hf-clas.json` and `categories.png`; what is finished there is kept.
        alpha: strength of the steering.
        limit: items per task, where that is fewer.
        console: where to print.
        progress: gets the stages.

    Returns:
        What the harness gives for each of the two models, by the name of its class.

    Raises:
        ClasError: the extra `demo` is missing, or the data cannot be loaded.
    """
    quiet_libraries()
    console.print("[bold]1/4 Model[/bold]  Gemma 3 270M, from its PyPI package; converted on the first run only")
    progress.stage("reading and converting the model", 1, 4)
    model_path = gemma()
    console.print(f"    {model_path}", highlight=False)

    console.print("[bold]2/4 Profile[/bold]  what every MLP neuron does in each language, on the same texts")
    progress.stage("looking for a profile", 2, 4)
    masks = _profile(model_path, data, out / "profile", progress)
    masks.save(out / "masks")
    plot_categories(masks, out / "categories.png")
    console.print(f"    bridge layers {', '.join(map(str, masks.bridge_layers))} ({masks.config.bridge_rule})", highlight=False)

    results = {}
    samples = {
        column.task.format(language): list(range(min(limit or column.items, column.items)))
        for column in _COLUMNS[data]
        for language in _LANGUAGES[data]
    }
    kinds = sorted({column.requests for column in _COLUMNS[data]})
    common: dict[str, Any] = {"pretrained": str(model_path), "dtype": "float32"}
    steered = {**common, "masks": str(out / "masks"), "alpha": alpha}
    for number, (model, arguments) in enumerate([("hf", common), ("hf-clas", steered)], start=3):
        console.print(f"[bold]{number}/4 Evaluate[/bold]  {model}" + (f", alpha {alpha:g}" if model == "hf-clas" else ""))
        progress.stage(f"loading {model}", number, 4)
        path = out / f"{model}.json"
        inputs = {"version": __version__, "model": model, "masks": masks.hash, "alpha": alpha, "samples": samples}
        if (before := _finished(path, inputs)) is not None:
            results[model] = before
            console.print("    finished before", highlight=False)
            continue
        results[model] = {**_evaluate(model, arguments, samples, kinds, progress), "clas_demo": inputs}
        write_text(path, json.dumps(results[model], indent=2, default=str, ensure_ascii=False))
    return results


def _finished(path: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier demo found with the same inputs, if it came so far."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        there: dict[str, Any] = read_json(path)
        return there if there["clas_demo"] == inputs else None
    return None


def tell_end(data: str, out: Path, seconds: float, console: Console) -> None:
    """Prints what the numbers are worth, where they are, and what comes next."""
    if data == "mini":
        console.print("A smoke test and not a benchmark: 16 items a language, and the masks come from the same texts.")
    console.print(
        f"Done in {seconds / 60:.1f} minutes. Written to {out}: masks/, hf.json, hf-clas.json, categories.png.\n"
        f"Next: clas inspect {shlex.quote(str(out / 'masks'))}; another strength: clas demo --alpha -2; "
        f"{'real data: clas demo --data hub; ' if data == 'mini' else ''}your own model: clas profile --help.",
        highlight=False,
    )


def _profile(model_path: Path, data: str, out: Path, progress: JobProgress) -> MaskSet:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lm_eval_clas.harness.fast_lm import default_device
    from lm_eval_clas.harness.model_loading import model_without_weights

    texts = ParallelInputBuilder("mini" if data == "mini" else "xquad", None, 16).build()
    _, outline = model_without_weights(str(model_path))
    if (there := finished_profile(outline, texts, out, name=DEMO_NAME)) is not None:
        return MaskSet.from_profile(there)
    progress.say("loading the model")
    model = AutoModelForCausalLM.from_pretrained(model_path).to(default_device()).eval()
    bars = {language: progress.add_task(f"profiling {language}", total=len(texts.ids)) for language in texts.languages}

    def report(language: str, count: int, _total: int) -> None:
        progress.update(bars[language], completed=count)

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    return MaskSet.from_profile(profile(model, tokenizer, texts, name=DEMO_NAME, out=out, report=report))


def _evaluate(
    model: str, arguments: dict[str, Any], samples: dict[str, list[int]], kinds: Sequence[str], progress: JobProgress
) -> dict[str, Any]:
    from lm_eval import evaluate
    from lm_eval.api.registry import get_model

    from lm_eval_clas.harness.fast_lm import default_device
    from lm_eval_clas.harness.plugin import register
    from lm_eval_clas.harness.task_loading import load_tasks

    register()  # the hook is not there in every kind of installation
    lm = get_model(model).create_from_arg_obj(arguments, {"batch_size": 16, "device": default_device()})
    bars = {kind: progress.add_task(f"evaluating {model}, {kind}", total=None) for kind in kinds}
    for kind, bar in bars.items():
        setattr(lm, kind, _counted(lm, getattr(lm, kind), partial(progress.update, bar)))
    # Not `simple_evaluate`, which lets git say that no checkout is here, and asks pip for a list of all that is installed.
    tasks = load_tasks(list(samples), [str(shipped("tasks"))])
    results = evaluate(lm, tasks, samples=samples, bootstrap_iters=0, log_samples=False)
    if results is None:
        raise ClasError("The demo runs in one process; start it without a launcher.")
    results["config"] = {"model": model, "model_args": arguments, **lm.get_model_info()}
    results["date"] = now().timestamp()
    del lm
    gc.collect()  # the model is held in cycles, and the next one needs the memory
    return dict(results)


def _counted(lm: Any, answer: Callable[..., Any], report: Callable[..., None]) -> Callable[..., Any]:
    """One of the model's methods, which tells how many of its requests are answered and shows no bar of its own."""

    def counting(requests: list[Any], disable_tqdm: bool = False) -> Any:
        hook, done = lm.cache_hook, 0

        class Counting:
            """The cache hook, which the model calls once for each answered request."""

            def add_partial(self, *answered: Any) -> None:
                nonlocal done
                done += 1
                report(completed=done, total=len(requests))
                hook.add_partial(*answered)

        lm.cache_hook = Counting()
        try:
            return answer(requests, disable_tqdm=True)
        finally:
            lm.cache_hook = hook
            report(completed=len(requests), total=len(requests))

    return counting


def score_rows(results: Results, data: str) -> list[dict[str, Any]]:
    """The scores, times 100, of each language and model."""
    scores = {(model, task): result["results"][task] for model, result in results.items() for task in result["results"]}
    return [
        {
            "language": language,
            "task": column.task.format(language),
            "metric": column.metric.partition(",")[0],
            **{model: 100 * scores[model, column.task.format(language)][column.metric] for model in results},
        }
        for language in _LANGUAGES[data]
        for column in _COLUMNS[data]
    ]


def score_table(results: Results, data: str) -> FoldedTable:
    """The same as a table, with the mean over languages."""
    table = FoldedTable(title="hf against hf-clas, by language")
    table.add_column("language")
    for column in _COLUMNS[data]:
        for model in results:
            table.add_column(f"{column.title}\n{model}", justify="right")
    rows: dict[str, list[float]] = {}
    for row in score_rows(results, data):
        rows.setdefault(row["language"], []).extend(row[model] for model in results)
    for language, values in rows.items():
        table.add_row(language, *(f"{value:.1f}" for value in values))
    table.add_section()
    table.add_row("mean", *(f"{sum(values) / len(rows):.1f}" for values in zip(*rows.values(), strict=True)))
    return table
