"""How often tests find what is not there, and what is, where items hang together: by correlation and number of clusters.
Target: at p < 0.05, at most 6 % false positives whatever the correlation.

Gains of 871 items are drawn, in clusters of unequal size. An item's gain is its cluster's with a probability of the root of the
correlation, and its own else, so that the gains of two items of a cluster correlate so much whatever their distribution:

- answers: right or wrong under both runs; one answer in ten changes;
- graded: normal, as log-likelihoods nearly are.

Without an effect, every test that finds one is wrong. With one, of the size that a test of independent items finds in 80 % of
cases, the share that finds it is the power that is left. Also the choice of the best of 8 strengths, as `clas tune --guard`
makes it, on 200 items in 40 clusters.

    python benchmarks/clusters.py [--only PART] [--data-sets N] [--resamples N] [--seed N]

Needs no model and no data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import numpy as np
from measuring import environment
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lm_eval_clas.evidence.best_of_many import gains_of
from lm_eval_clas.evidence.clusters import Clusters, within_correlation
from lm_eval_clas.evidence.paired_tests import SIGNIFICANT, average_interval, mcnemar, sign_flips

ITEMS, CLUSTERS, CORRELATIONS = 871, 170, (0.0, 0.1, 0.2, 0.4)
CHANGED = 0.1  # share of answers that change
KINDS = ("answers", "graded")
SPREAD = {"answers": CHANGED**0.5, "graded": 1.0}  # the standard deviation of a gain
FINDABLE = 1.96 + 0.8416  # standard errors, that a two-sided test at 5 % finds in 80 % of cases


def clusters_of(items: int, count: int, rng: np.random.Generator) -> Clusters:
    """Every cluster has an item, and the others fall anywhere."""
    return Clusters.of([*range(count), *rng.integers(count, size=items - count).tolist()])


def gains(kind: str, clusters: Clusters, correlation: float, effect: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """float64 [items] with this mean and this correlation within clusters."""
    own, common = (_drawn(kind, size, effect, rng) for size in (clusters.items, clusters.count))
    return np.where(rng.random(clusters.items) < correlation**0.5, common[clusters.numbers], own)


def _drawn(kind: str, size: int, effect: float, rng: np.random.Generator) -> NDArray[np.float64]:
    if kind == "graded":
        return rng.normal(effect, size=size)
    won, lost = (CHANGED + effect) / 2, (CHANGED - effect) / 2
    return rng.choice([1.0, -1.0, 0.0], size=size, p=[won, lost, 1 - won - lost])


def answers(differences: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right and wrong answers with these differences."""
    return (differences > 0).astype(float), (differences < 0).astype(float)


def false_positives(kind: str, correlation: float, options: argparse.Namespace) -> list[float]:
    """Shares of data sets without an effect in which one is found: by clusters, as a test and as an interval, and by items.

    The last number is the correlation within clusters that was measured, on average.
    """
    rng = np.random.default_rng([options.seed, KINDS.index(kind), int(100 * correlation)])
    found = np.zeros((options.data_sets, 4))
    for number in range(options.data_sets):
        clusters = clusters_of(ITEMS, CLUSTERS, rng)
        drawn = gains(kind, clusters, correlation, 0.0, rng)
        nothing = np.zeros(ITEMS)
        resampling = {"resamples": options.resamples, "seed": number}
        single = mcnemar(*answers(drawn)) if kind == "answers" else sign_flips(drawn, nothing, **resampling)
        low, high = average_interval([drawn], [clusters], **resampling)
        found[number] = (
            sign_flips(drawn, nothing, clusters, **resampling) < SIGNIFICANT,
            not low <= 0 <= high,
            single < SIGNIFICANT,
            within_correlation(drawn, clusters) or 0.0,
        )
    return [float(share) for share in found.mean(axis=0)]


def guarded(correlation: float, options: argparse.Namespace) -> list[float]:
    """Shares of data sets without an effect in which the best of 8 strengths is kept: by clusters, and by items."""
    rng = np.random.default_rng([options.seed, 9, int(100 * correlation)])
    found = np.zeros((options.data_sets, 2))
    for number in range(options.data_sets):
        clusters = clusters_of(200, 40, rng)
        near = gains("graded", clusters, correlation, 0.0, rng)
        rows = [np.zeros(200)]
        for _ in range(8):  # neighbouring strengths gain on much the same items
            near = 0.8 * near + 0.6 * gains("graded", clusters, correlation, 0.0, rng)
            rows.append(near)
        for side, of in enumerate((clusters, None)):
            measured = gains_of(np.stack(rows), clusters=of, resamples=options.resamples, seed=number)
            found[number, side] = measured.p_value(int(measured.gains.argmax())) < SIGNIFICANT
    return [float(share) for share in found.mean(axis=0)]


def power(kind: str, count: int, correlation: float, options: argparse.Namespace) -> float:
    """The share of data sets with an effect in which the test of clusters finds one."""
    rng = np.random.default_rng([options.seed, 20 + KINDS.index(kind), count, int(100 * correlation)])
    effect = FINDABLE * SPREAD[kind] / ITEMS**0.5
    found = 0
    for number in range(options.data_sets):
        clusters = clusters_of(ITEMS, count, rng)
        drawn = gains(kind, clusters, correlation, effect, rng)
        p = sign_flips(drawn, np.zeros(ITEMS), clusters, resamples=options.resamples, seed=number)
        found += p < SIGNIFICANT and drawn.sum() > 0
    return found / options.data_sets


def show(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Prints a table with a column for each correlation."""
    table = Table("", *(f"correlation {one:g}" for one in CORRELATIONS), title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    Console(width=120, highlight=False).print(table)


def show_false_positives(kind: str, options: argparse.Namespace) -> None:
    shares = [false_positives(kind, one, options) for one in CORRELATIONS]
    item = "McNemar's test of items" if kind == "answers" else "flips of items"
    names = ("flips of clusters", "interval by clusters", item)
    rows = [[name, *(f"{100 * one[at]:.1f} %" for one in shares)] for at, name in enumerate(names)]
    rows.append(["correlation measured, mean", *(f"{one[3]:.3f}" for one in shares)])
    show(f"{kind}: false positives, {options.data_sets:,} data sets of {ITEMS} items in {CLUSTERS} clusters", rows)


def show_guarded(options: argparse.Namespace) -> None:
    chosen = [guarded(one, options) for one in CORRELATIONS]
    rows = [[f"by {name}", *(f"{100 * one[at]:.1f} %" for one in chosen)] for at, name in enumerate(("clusters", "items"))]
    show("best of 8 strengths: false positives, 200 items in 40 clusters", rows)


def show_power(options: argparse.Namespace) -> None:
    for kind in KINDS:
        effect = FINDABLE * SPREAD[kind] / ITEMS**0.5
        rows = [
            [f"{count} clusters", *(f"{100 * power(kind, count, one, options):.0f} %" for one in CORRELATIONS)]
            for count in (40, 80, CLUSTERS)
        ]
        show(f"{kind}: power of flips of clusters, {ITEMS} items, gain {effect:.3f}", rows)


def main() -> None:
    parts = {
        **{kind: partial(show_false_positives, kind) for kind in KINDS},
        "best": show_guarded,
        "power": show_power,
    }
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--only", choices=parts, action="append", help="this part; may come several times")
    parser.add_argument("--data-sets", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=399)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.only or parts:
        parts[name](options)
    deviation = 100 * (0.05 * 0.95 / options.data_sets) ** 0.5
    console = Console(width=120, highlight=False)
    console.print(f"One standard error of a share of 5 %: {deviation:.1f} points. {options.resamples} resamples each.")
    console.print(environment(), style="dim")


if __name__ == "__main__":
    main()
