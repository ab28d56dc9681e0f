"""Comparing the cost of two or three ways to do one thing, on a machine that is never quite at rest.

The sides run in turn and each round gives one ratio for each pair of sides. What slows the machine down for a while slows
neighbours alike, so the median of these ratios says more than the ratio of two medians. On a machine that others use at the
same time, OMP_NUM_THREADS=1 helps too: threads that wait for a thread without a core add most of the noise.
"""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table


def alternate(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    before: Callable[[Callable[[], object]], None] = lambda side: None,
) -> dict[str, list[float]]:
    """Runs the sides in turn, every round in another order, and returns the seconds of every round by side.

    Args:
        sides: what is timed, by name.
        rounds: that are timed.
        warmup: rounds before them that are not.
        before: called with a side before each of its rounds, outside of the time.
    """
    for _ in range(warmup):
        for run in sides.values():
            before(run)
            run()
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    orders = itertools.cycle(itertools.permutations(sides))
    for order in itertools.islice(orders, rounds):
        for side in order:
            before(sides[side])
            start = time.perf_counter()
            sides[side]()
            seconds[side].append(time.perf_counter() - start)
    return seconds


def ratios(measured: Mapping[str, Sequence[float]], side: str, base: str) -> list[float]:
    """What `side` took relative to `base`, round by round."""
    return [one / other for one, other in zip(measured[side], measured[base], strict=True)]


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median: a few rounds cannot tell a difference that is smaller."""
    random = Random(0)
    medians = [statistics.median(random.choices(values, k=len(values))) for _ in range(2000)]
    cuts = statistics.quantiles(medians, n=40)
    return cuts[0], cuts[-1]


def print_table(title: str, measured: Mapping[str, Sequence[float]], pairs: Sequence[tuple[str, str]], unit: str = "s") -> None:
    """Prints what every side took, then the ratio of each pair (side, base) over the rounds, then the environment."""
    console = Console(width=120, highlight=False)
    table = Table("", f"median, {unit}", "min", "max")
    for column in table.columns[1:]:
        column.justify = "right"
    for side, values in measured.items():
        table.add_row(side, *(f"{value:.4g}" for value in (statistics.median(values), min(values), max(values))))
    console.print(title, style="bold")
    console.print(table)
    for side, base in pairs:
        each = ratios(measured, side, base)
        low, high = median_interval(each)
        console.print(
            f"{side} / {base}: median ratio {statistics.median(each):.3f}, 95 % interval {low:.3f} to {high:.3f} "
            f"({len(each)} rounds of {min(each):.2f} to {max(each):.2f})"
        )
    console.print(f"{environment()}\n", style="dim")


def environment() -> str:
    """Versions and machine, in one line."""
    # Here, so that a benchmark which runs nothing but other processes does not need half a gigabyte for this.
    import torch

    graphics = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("transformers", "lm_eval"))
    return (
        f"Python {platform.python_version()}, torch {torch.__version__} with {torch.get_num_threads()} threads, {packages}; "
        f"{_processor()}, {os.cpu_count()} cores, {_memory_gb():.0f} GB{graphics}"
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
