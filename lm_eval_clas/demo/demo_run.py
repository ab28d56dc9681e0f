"""The main job from end to end on Gemma 3 270M: profile, masks, then `hf` against `hf-clas` through the harness."""

from __future__ import annotations

import gc
import json
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.demo.demo_model import DEMO_NAME, gemma
from lm_eval_clas.disk.files import shipped, write_text
from lm_eval_clas.masks.category_picture import plot_categories
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.profiling import profile
from lm_eval_clas.texts.corpora import MINI_LANGUAGES, XQUAD_LANGUAGES, ParallelInputBuilder


@dataclass(frozen=True)
class _Column:
    """One column of the closing table: its title, the task of a language, the metric, and how many items to run."""

    title: str
    task: str
    metric: str
    items: int


_COLUMNS = {
    "mini": [
        _Column("question answering, F1", "clas_mini_qa_{}", "f1_lang,none", 16),
        _Column("NLI, accuracy", "clas_mini_nli_{}", "acc,none", 48),
    ],
    "hub": [_Column("XQuAD, F1", "clas_xquad_{}", "f1_lang,none", 20)],
}


def run_demo(data: str, out: Path, alpha: float, limit: int | None, console: Console) -> None:
    """Runs the demo and prints as it goes.

    Args:
        data: `mini` (texts of the package) or `hub` (XQuAD).
        out: folder for `masks/`, `hf.json`, `hf-clas.json` and `categories.png`.
        alpha: strength of the steering.
        limit: items per task, where that is fewer.
        console: where to print.

    Raises:
        ClasError: the extra `demo` is missing, or the data cannot be loaded.
    """
    started = time.monotonic()
    quiet_libraries()
    console.print("[bold]1/4 Model[/bold]  Gemma 3 270M, from its PyPI package; converted on the first run only")
    with console.status("Reading and converting ..."):
        model_path = gemma()
    console.print(f"    {model_path}", highlight=False)

    console.print("[bold]2/4 Profile[/bold]  what every MLP neuron does in each language, on the same texts")
    languages = MINI_LANGUAGES if data == "mini" else XQUAD_LANGUAGES
    masks = _profile(model_path, data, console)
    masks.save(out / "masks")
    plot_categories(masks, out / "categories.png")
    console.print(f"    bridge layers {', '.join(map(str, masks.bridge_layers))} ({masks.config.bridge_rule})", highlight=False)

    results = {}
    samples = {
        column.task.format(language): list(range(min(limit or column.items, column.items)))
        for column in _COLUMNS[data]
        for language in languages
    }
    common: dict[str, Any] = {"pretrained": str(model_path), "dtype": "float32"}
    steered = {**common, "masks": str(out / "masks"), "alpha": alpha}
    for number, (model, arguments) in enumerate([("hf", common), ("hf-clas", steered)], start=3):
        console.print(f"[bold]{number}/4 Evaluate[/bold]  {model}" + (f", alpha {alpha:g}" if model == "hf-clas" else ""))
        results[model] = _evaluate(model, arguments, samples)
        write_text(out / f"{model}.json", json.dumps(results[model], indent=2, default=str, ensure_ascii=False))
    console.print(_table(results, languages, data))
    if data == "mini":
        console.print("A smoke test and not a benchmark: 16 items a language, and the masks come from the same texts.")
    minutes = (time.monotonic() - started) / 60
    console.print(
        f"Done in {minutes:.1f} minutes. Written to {out}: masks/, hf.json, hf-clas.json, categories.png.\n"
        f"Next: clas inspect {shlex.quote(str(out / 'masks'))}; another strength: clas demo --alpha -2; "
        f"{'real data: clas demo --data hub; ' if data == 'mini' else ''}your own model: clas profile --help.",
        highlight=False,
    )


def _profile(model_path: Path, data: str, console: Console) -> MaskSet:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lm_eval_clas.harness.fast_lm import default_device

    texts = ParallelInputBuilder("mini" if data == "mini" else "xquad", None, 16).build()
    model = AutoModelForCausalLM.from_pretrained(model_path).to(default_device()).eval()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("profiling", total=len(texts.languages) * len(texts.ids))
        done: dict[str, int] = {}

        def report(language: str, count: int, _total: int) -> None:
            done[language] = count
            progress.update(task, completed=sum(done.values()), description=f"profiling {language}")

        return MaskSet.from_profile(
            profile(model, AutoTokenizer.from_pretrained(model_path), texts, name=DEMO_NAME, report=report)
        )


def _evaluate(model: str, arguments: dict[str, Any], samples: dict[str, list[int]]) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from lm_eval_clas.harness.fast_lm import default_device
    from lm_eval_clas.harness.plugin import register

    register()  # the hook is not there in every kind of installation
    results = simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=list(samples),
        batch_size=16,
        device=default_device(),
        samples=samples,
        log_samples=False,
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(shipped("tasks"))),
    )
    gc.collect()  # the model is held in cycles, and the next one needs the memory
    if results is None:
        raise ClasError("The demo runs in one process; start it without a launcher.")
    return dict(results)


def _table(results: dict[str, dict[str, Any]], languages: tuple[str, ...], data: str) -> Table:
    table = Table(title="hf against hf-clas, by language", title_justify="left")
    table.add_column("language")
    for column in _COLUMNS[data]:
        for model in results:
            table.add_column(f"{column.title}\n{model}", justify="right")
    scores = {(model, task): result["results"][task] for model, result in results.items() for task in result["results"]}
    rows = {
        language: [
            100 * scores[model, column.task.format(language)][column.metric] for column in _COLUMNS[data] for model in results
        ]
        for language in languages
    }
    for language, row in rows.items():
        table.add_row(language, *(f"{value:.1f}" for value in row))
    table.add_section()
    table.add_row("mean", *(f"{sum(values) / len(rows):.1f}" for values in zip(*rows.values(), strict=True)))
    return table
