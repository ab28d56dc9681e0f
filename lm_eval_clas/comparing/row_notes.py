"""What a reader of a comparison must know: languages that a row lacks or left alone, and what else a gain may come from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from lm_eval_clas.comparing.rows import Row
from lm_eval_clas.comparing.runs import Run
from lm_eval_clas.comparing.task_families import language_of
from lm_eval_clas.evidence.clusters import FEWEST, Clusters, agreeing
from lm_eval_clas.languages.task_names import task_family
from lm_eval_clas.steering.results_entry import left_alone
from lm_eval_clas.texts.metric_units import POINTS

_FEW = 50  # items of a language


def about_lacking(runs: Sequence[Run], tasks: Mapping[str, str], shared: Sequence[str]) -> list[str]:
    """Languages that not every run has: their cells are empty, and they are in no average."""
    by_run = {run.label: [language for language in sorted(tasks) if tasks[language] not in run.tasks] for run in runs}
    lacking = [f"'{label}' lacks {', '.join(missing)}" for label, missing in by_run.items() if missing]
    if not lacking:
        return []
    return [f"{'; '.join(lacking)}: averages are over what all rows have ({', '.join(sorted(shared))})."]


def about_averages(languages: Sequence[str], averaged: Sequence[str], anchor: str | None) -> list[str]:
    if anchor not in languages:
        return []
    if anchor in averaged:
        return [f"Averages are over {_count(averaged)}, the anchor {anchor}, which is never steered, among them."]
    return [f"Averages are over {_count(averaged)}, without the anchor {anchor}, which is never steered."]


def about_few_items(rows: Sequence[Row], unit: str) -> list[str]:
    """Languages with so few items that chance alone moves their scores much; how much, where scores are shares of 100."""
    items = {language: cell.items for row in reversed(rows) for language, cell in row.cells.items() if cell.items is not None}
    few = [language for language, count in items.items() if count < _FEW]
    if not few:
        return []
    counts = [items[language] for language in few]
    much = "by several points" if unit == POINTS.name else "much"
    return [f"Only {_span(counts)} items in {', '.join(few)}: below {_FEW}, chance alone moves a score {much}."]


def about_conditions(runs: Sequence[Run]) -> list[str]:
    """What should change no score, and does a little, where rows differ in it. What a file does not say is not compared."""
    notes = []
    for name in dict.fromkeys(name for run in runs for name in run.conditions):
        labels: dict[str, list[str]] = {}
        for run in runs:
            if name in run.conditions:
                labels.setdefault(" and ".join(run.conditions[name]), []).append(run.label)
        if len(labels) > 1:
            told = "; ".join(f"{value}: {_quoted(found)}" for value, found in labels.items())
            notes.append(f"Rows differ in {name} ({told}), which moves scores a little by itself.")
    return notes


def about_left_alone(runs: Mapping[str, Run], languages: Sequence[str], family: str, anchor: str | None) -> list[str]:
    """Languages that a method met and did not steer, other than the anchor: they pull its average gain towards 0.

    Args:
        runs: the first run of each row, by the row's label.
        languages: the columns.
        family: of the tasks.
        anchor: the language that is never steered.
    """
    rows: dict[tuple[str, str], list[str]] = {}
    for label, run in runs.items():
        for code in () if run.unsteered else dict.fromkeys(map(language_of, languages)):
            if code != anchor and (why := left_alone(run.steering, code, family)):
                rows.setdefault((code, why), []).append(label)
    by_rows: dict[str, dict[str, list[str]]] = {}
    for (code, why), labels in rows.items():
        by_rows.setdefault(_quoted(labels), {}).setdefault(why, []).append(code)
    told = {
        labels: "; ".join(f"{', '.join(codes)} ({why})" for why, codes in found.items()) for labels, found in by_rows.items()
    }
    return [f"Left alone by {labels}: {one}." for labels, one in told.items()]


def about_fixed(runs: Mapping[str, Run]) -> list[str]:
    """Strengths that were given and not tuned, of rows whose label does not tell them; arguments as above.

    With what else decides the factors, where a run has it: another beta, or another scope, is another method in effect.
    """
    labels: dict[str, list[str]] = {}
    for label, run in runs.items():
        alpha = run.steering.get("alpha")
        if not run.unsteered and isinstance(alpha, (int, float)) and f"alpha {alpha:g}" not in label:
            labels.setdefault(", ".join([f"alpha {alpha:g}", *_factors(run.steering)]), []).append(label)
    told = "; ".join(f"{strength} in {_quoted(found)}" for strength, found in labels.items())
    return [f"Strengths that were fixed and not tuned: {told}."] if told else []


def _factors(steering: Mapping[str, Any]) -> list[str]:
    """`beta 0`, `gamma 0.2`, `specific scope own`: what a record has of these."""
    told = [f"{name} {steering[name]:g}" for name in ("beta", "gamma") if isinstance(steering.get(name), (int, float))]
    scopes = ("specific_scope", "partial_scope")
    return told + [f"{name.replace('_', ' ')} {steering[name]}" for name in scopes if steering.get(name) not in (None, "all")]


def about_tuning(runs: Mapping[str, Run], languages: Sequence[str], family: str) -> list[str]:
    """Where a run with tuned strengths is unlike the run that tuned them, or has the same items; arguments as above."""
    columns = set(map(language_of, languages))
    found: dict[tuple[str, str], list[str]] = {}
    for label, run in runs.items():
        for where, why in run.steering.get("unlike_tuning", {}).items():
            code, _, of = where.partition(" in ")
            if code in columns and of == task_family(family, ()):
                found.setdefault((label, why), []).append(code)
    return [f"Strengths of '{label}' in {', '.join(codes)}: {why}." for (label, why), codes in found.items()]


def about_untested(unlogged: Sequence[str], no_mean: Sequence[str], metric: str) -> list[str]:
    """Which rows have no tests, and why: samples were not logged, or the metric is no mean of theirs."""
    notes = []
    if unlogged:
        notes.append(
            f"No tests of {_quoted(unlogged)}: samples were not logged (--log_samples); gains are those of the reported scores."
        )
    if no_mean:
        notes.append(
            f"No tests of {_quoted(no_mean)}: {metric} is not the mean of the logged items, so scores are as reported."
        )
    return notes


def about_clusters(rows: Sequence[Row], clusters: Mapping[str, Clusters], fields: Mapping[str, str]) -> list[str]:
    """How items hang together, how alike their gains are, and where there are too few clusters to tell anything.

    Args:
        rows: of the table.
        clusters: by language.
        fields: by which field of the documents, by language; those whose items are all by themselves are not there.
    """
    notes = []
    together = {language: one for language, one in clusters.items() if not one.alone}
    if together:
        counts, items = ([getattr(one, name) for one in together.values()] for name in ("count", "items"))
        names = ", ".join(dict.fromkeys(f"'{fields[language]}'" for language in together))
        kind = "cluster" if max(counts) == 1 else "clusters"
        notes.append(
            f"Items of one {names} hang together: {_span(items)} items are in {_span(counts)} {kind}, and tests and "
            "intervals flip and draw clusters."
        )
        told = []
        for row in rows:
            found = {language: cell.correlation for language, cell in row.cells.items() if cell.correlation is not None}
            if row.correlation is not None:
                low, high = (pick(found.items(), key=lambda pair: pair[1]) for pick in (min, max))
                spread = (
                    f" ({_correlation(low[1])} in {low[0]} to {_correlation(high[1])} in {high[0]})" if len(found) > 1 else ""
                )
                told.append(f"'{row.label}' {_correlation(row.correlation)}{spread}")
        if told:
            notes.append(f"Correlation of gains within clusters, mean over languages: {'; '.join(told)}.")
    if one := [language for language, found in together.items() if found.count == 1]:
        notes.append(f"All items of {', '.join(one)} are in one cluster, so nothing is tested there.")
    if few := [language for language, found in clusters.items() if 1 < found.count < FEWEST or found.items < FEWEST]:
        notes.append(f"Fewer than {FEWEST} clusters in {', '.join(few)}: no test of so few can reach p < 0.05.")
    if one or few:
        notes.append(f"No interval of an average with a language of fewer than {FEWEST} clusters.")
    return notes


def about_drawing(rows: Sequence[Row], numbered: Mapping[str, Hashable], clusters: Mapping[str, Clusters]) -> list[str]:
    """Languages whose items have the same numbers and clusters that do not agree: the interval takes them as unrelated.

    Args:
        rows: of the table.
        numbered: the numbers of the items of each language of the average.
        clusters: by language.
    """
    if all(row.low is None for row in rows):
        return []
    notes = []
    for numbers in dict.fromkeys(numbered.values()):
        languages = [language for language, its in numbered.items() if its == numbers and language in clusters]
        groups = agreeing([clusters[language] for language in languages])
        if len(groups) > 1:
            told = "; ".join(", ".join(languages[one] for one in group.languages) for group in groups)
            notes.append(
                f"Items of {', '.join(languages)} have the same numbers, but not the same clusters: the interval takes them as "
                f"items that have nothing to do with one another ({told}), and is too narrow if they are translations."
            )
    return notes


def about_seeds(seeds: Mapping[str, Sequence[int]], permuted: bool) -> list[str]:
    """Rows that were drawn by chance: another draw has other numbers, of which intervals and tests know nothing.

    Args:
        seeds: of the runs of each row, by its label; none where nothing is drawn.
        permuted: whether means over seeds have another test than the table's.
    """
    notes = []
    for label, drawn in seeds.items():
        if len(drawn) == 1:
            notes.append(f"{label}: one draw, seed {drawn[0]}; intervals and tests are over items, not over draws.")
        elif drawn:
            paired = "p by permutation of each item's mean over seeds; " if permuted else ""
            mean = f"{label}: mean over seeds {', '.join(map(str, drawn))}"
            notes.append(f"{mean}; {paired}intervals and tests are over items, not over draws.")
    return notes


def about_single_items(languages: Sequence[str]) -> list[str]:
    """Languages with another test than the table's, that of clusters.

    Args:
        languages: whose items are by themselves, and right or wrong.
    """
    return [f"No items hang together in {', '.join(languages)}: the test there is exact McNemar."] if languages else []


def _correlation(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # 0.00, not -0.00


def about_smallest(rows: Sequence[Row], unit: str) -> list[str]:
    """Which gains such items can show at all, as their spread was measured."""
    told = []
    for row in rows:
        single = [cell.smallest for cell in row.cells.values() if cell.smallest is not None]
        if row.smallest is not None:
            ends = [f"{end:.3g}" for end in dict.fromkeys((min(single), max(single)))] if single else []
            told.append(f"'{row.label}' {row.smallest:.3g}" + (f" (in one language {' to '.join(ends)})" if ends else ""))
    if not told:
        return []
    return [
        f"Smallest average gain, in {unit}, that so many items with this spread show in 80 % of cases (p < 0.05): "
        f"{'; '.join(told)}."
    ]


def _span(numbers: Sequence[int]) -> str:
    return f"{min(numbers):,}" if min(numbers) == max(numbers) else f"{min(numbers):,} to {max(numbers):,}"


def _quoted(labels: Sequence[str]) -> str:
    return ", ".join(f"'{label}'" for label in dict.fromkeys(labels))


def _count(languages: Sequence[str]) -> str:
    return f"{len(languages)} language{'s' if len(languages) != 1 else ''}"
