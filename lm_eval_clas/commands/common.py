"""What the commands share: the application, its consoles, and how options become objects.

Heavy libraries are imported by the command that needs them, so that `--help` is quick.
"""

from __future__ import annotations

import math
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lm_eval_clas.errors import ClasError

app = typer.Typer(
    help="Cross-Lingual Activation Steering for the LM evaluation harness: profile, masks, tune, evaluate, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console()
messages = Console(stderr=True)


def words(text: str | None) -> list[str]:
    """The parts of an option that takes several words with commas between them."""
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def numbers(option: str, text: str) -> list[float]:
    """The numbers of an option that takes several with commas between them.

    Raises:
        ClasError: one of them is not a finite number.
    """
    try:
        found = [float(one) for one in words(text)]
    except ValueError as error:
        raise ClasError(f"{option} takes numbers with commas between them, like -2,-1,1,2; not '{text}'.") from error
    if not all(map(math.isfinite, found)):
        raise ClasError(f"{option} takes finite numbers, not '{text}'.")
    return found


def load_model(model: str, model_args: str, device: str | None, fast: bool = False) -> Any:
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


def progress_bars() -> Progress:
    """Bars on the standard error stream."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=messages,
    )
