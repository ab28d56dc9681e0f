"""`compare`: runs of one task family against a baseline, on the same items, as `rows.Comparison` holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.near_names import did_you_mean
from lm_eval_clas.comparing.cited import cited_rows
from lm_eval_clas.comparing.gains import LanguageScores, RowRules, average_of_seeds, baseline_row, compared_row
from lm_eval_clas.comparing.pairing import require_same_items
from lm_eval_clas.comparing.row_notes import (
    about_averages,
    about_clusters,
    about_conditions,
    about_drawing,
    about_few_items,
    about_fixed,
    about_lacking,
    about_left_alone,
    about_seeds,
    about_single_items,
    about_smallest,
    about_tuning,
    about_untested,
)
from lm_eval_clas.comparing.rows import Comparison, Row, RowKind
from lm_eval_clas.comparing.run_labels import seeds_label
from lm_eval_clas.comparing.runs import Run, clusters_of
from lm_eval_clas.comparing.task_families import families, is_ours, language_of
from lm_eval_clas.evidence.clusters import Clusters
from lm_eval_clas.steering.results_entry import CONTROLS
from lm_eval_clas.texts.metric_units import unit_of
from lm_eval_clas.texts.metrics import preferred_metric


@dataclass(frozen=True)
class _Entry:
    """A row to be: one run, or the seeds of one control."""

    label: str
    kind: RowKind
    members: tuple[Run, ...]


def compare(
    runs: Sequence[Run],
    family: str,
    metric: str | None = None,
    baseline: str | None = None,
    *,
    without_anchor: bool = False,
    cited: bool = False,
    cluster: str | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compares runs on the tasks of one family. Averages are over the languages that all of them have; other cells are empty.

    Seeds of one random control are one row: each item counts with its mean score over the seeds.

    Args:
        runs: from `read_runs`; those without tasks of the family are left out.
        family: as `families` names it, such as `clas_xquad`.
        metric: its name, with a filter if there are several (`exact_match,strict-match`); None for the first
            of `PREFERRED_METRICS` that the tasks have, or else their first.
        baseline: a label; None for the run labelled `hf`, or the only one that steers nothing.
        without_anchor: leave the anchor, which is never steered, out of the averages. The paper has it in.
        cited: add the paper's figures, marked as cited.
        cluster: the field of the documents by which items hang together; None finds it, `none` takes each item by itself.
        resamples: of the permutation test and of the bootstrap; `seed` is theirs.

    Raises:
        ClasError: no such family, metric or baseline, no language that all runs have, runs with different items, or documents
            without the field.
    """
    known = families(runs)
    if family not in known:
        raise ClasError(f"None of the runs has tasks of '{family}' (there are {', '.join(known) or 'none'}).")
    tasks = known[family]
    runs = [run for run in runs if run.tasks.keys() & set(tasks.values())]
    entries = _entries(runs)
    base = _baseline(entries, baseline)
    others = [one for one in entries if one.members != base.members]
    entries = [base, *(one for kind in ("unsteered", "control", "method") for one in others if one.kind == kind)]

    anchor = next((str(run.steering["anchor"]) for run in runs if not run.unsteered and run.steering.get("anchor")), None)
    languages = sorted(tasks, key=lambda one: (language_of(one) != anchor, one))
    shared = [one for one in languages if all(tasks[one] in run.tasks for run in runs)]
    if not shared:
        raise ClasError(
            f"No language is in all of {', '.join(repr(run.label) for run in runs)}; compare runs of the same tasks."
        )
    averaged = [one for one in shared if not (without_anchor and language_of(one) == anchor)]
    if not averaged:
        raise ClasError(f"Only the anchor '{anchor}' is in all runs of {family}; drop --without-anchor.")
    key = _metric([run.tasks[task].metrics for run in runs for task in tasks.values() if task in run.tasks], metric, family)
    name, _, filter_name = key.partition(",")
    higher = base.members[0].tasks[tasks[shared[0]]].higher_is_better.get(name, True)

    notes: list[str] = []
    for run in runs:
        for task in map(tasks.__getitem__, languages):
            if task in run.tasks and task in base.members[0].tasks:
                notes += require_same_items(run, base.members[0], task, filter_name)
    measured = {
        one.label: {
            language: average_of_seeds([member.tasks[tasks[language]] for member in one.members], key)
            for language in languages
            if all(tasks[language] in member.tasks for member in one.members)
        }
        for one in entries
    }
    unit = unit_of(name, [one.score for by_language in measured.values() for one in by_language.values()])
    first_of_base = {one: base.members[0].tasks[tasks[one]] for one in measured[base.label]}
    groups = clusters_of(first_of_base, key, cluster)
    clusters = {language: found.clusters for language, found in groups.items()}
    settings = RowRules(averaged, unit.scale, higher, clusters, resamples, seed)
    rows: list[Row] = []
    for one in entries:
        row = baseline_row(one.label, measured[one.label], one.members[0].steering, settings).model_copy(
            update={"kind": one.kind}
        )
        if one is not base:
            in_question = _in_question(one.members[0], base.members[0], family, languages)
            row = compared_row(row, measured[one.label], measured[base.label], settings, in_question)
        rows.append(row)
    test = _test(entries, measured, rows, any(not one.alone for one in clusters.values()))

    notes += about_few_items(rows, unit.name)
    notes += about_lacking(runs, tasks, shared)
    notes += about_averages(shared, averaged, anchor)
    if len({run.model for run in runs}) > 1:
        notes.append(f"The rows are of {len({run.model for run in runs})} models; a gain is also one of the model.")
    notes += about_conditions([run for one in entries for run in one.members])
    if not higher:
        notes.append(f"Lower {name} is better: a gain below 0 is an improvement.")
    first = {one.label: one.members[0] for one in entries}
    notes += about_left_alone(first, languages, family, anchor)
    notes += about_fixed(first)
    notes += about_tuning(first, languages, family)
    notes += about_untested(*_untested(entries, measured, tasks), name)
    fields = {language: found.field for language, found in groups.items() if found.field is not None}
    notes += about_clusters(rows, clusters, fields)
    together = test == "cluster permutation"
    single = [one for one in languages if together and _by_mcnemar(one, measured, base.label, clusters)]
    notes += about_single_items(single)
    of_base = {one: measured[base.label][one].values for one in averaged}
    notes += about_drawing(rows, {one: tuple(its.index) for one, its in of_base.items() if its is not None}, clusters)
    notes += about_smallest(rows, unit.name)
    drawn = {one.label: [member.seed for member in one.members if member.seed is not None] for one in entries}
    notes += about_seeds(drawn, permuted=bool(single) or test == "exact McNemar")
    if cited:
        paper, about = cited_rows(family, name)
        rows, notes = [*rows, *paper], [*notes, *about]
    return Comparison(
        family=family,
        tasks={language: tasks[language] for language in languages},
        metric=key if filter_name != "none" else name,
        unit=unit.name,
        higher_is_better=higher,
        test=test,
        cluster_fields={language: fields[language] for language in languages if language in fields},
        baseline=base.label,
        languages=languages,
        anchor=anchor if anchor in languages else None,
        average_languages=averaged,
        rows=rows,
        notes=list(dict.fromkeys(notes)),
    )


def further_metrics(runs: Sequence[Run], family: str) -> list[str]:
    """What else `compare` can compare a family by, beside the metric that it takes if nobody says.

    All that tasks of ours score, each of which says something by itself; of other tasks nothing, as some have a dozen.
    """
    if not is_ours(family):
        return []
    names = families(runs)[family].values()
    measured = [run.tasks[task].metrics for run in runs for task in names if task in run.tasks]
    first = _metric(measured, None, family)
    shared = [key for key in measured[0] if key != first and all(key in other for other in measured)]
    return [key.removesuffix(",none") for key in shared]


def _metric(measured: Sequence[Mapping[str, float]], wanted: str | None, family: str) -> str:
    """A metric with its filter that all of these have: as wanted, or the preferred one; of filters, `none`, or the first."""
    keys = [key for key in measured[0] if all(key in other for other in measured)]
    names = list(dict.fromkeys(key.split(",")[0] for key in keys))
    if wanted in keys:
        return str(wanted)
    if not names or (wanted and wanted not in names):
        what = f"the metric '{wanted}'" if wanted else "a metric in common"
        raise ClasError(f"The runs of {family} do not all have {what}; they have {', '.join(keys) or 'none'} (--metric).")
    name = wanted or preferred_metric(names)
    filters = [key for key in keys if key.split(",")[0] == name]
    return f"{name},none" if f"{name},none" in filters else filters[0]


def _test(
    entries: Sequence[_Entry], measured: Mapping[str, Mapping[str, LanguageScores]], rows: Sequence[Row], together: bool
) -> str:
    """What the p-values are of; rows of several seeds, whose means are neither right nor wrong, have a note of their own.

    Args:
        together: whether items of any language hang together.
    """
    if not any(cell.p_value is not None for row in rows for cell in row.cells.values()):
        return "none"
    if together:
        return "cluster permutation"
    single = [one for entry in entries if len(entry.members) == 1 for one in measured[entry.label].values()]
    tested = [one for one in single if one.values is not None]
    return "exact McNemar" if tested and all(one.binary for one in tested) else "permutation"


def _by_mcnemar(
    language: str, measured: Mapping[str, Mapping[str, LanguageScores]], baseline: str, clusters: Mapping[str, Clusters]
) -> bool:
    """Whether a row is compared with the baseline by McNemar's test, as `compared_row` chooses it."""
    if language not in clusters or not clusters[language].alone or not measured[baseline][language].binary:
        return False
    return any(its[language].binary for label, its in measured.items() if label != baseline and language in its)


def _untested(
    entries: Sequence[_Entry], measured: Mapping[str, Mapping[str, LanguageScores]], tasks: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """The labels of rows that have no tests because samples were not logged, and because the metric is no mean of theirs."""
    unlogged: list[str] = []
    no_mean: list[str] = []
    for entry in entries:
        for language, one in measured[entry.label].items():
            if one.values is None:
                logged = all(member.tasks[tasks[language]].samples for member in entry.members)
                (no_mean if logged else unlogged).append(entry.label)
    return unlogged, no_mean


def _entries(runs: Sequence[Run]) -> list[_Entry]:
    """Rows to be, seeds of one random control together.

    Raises:
        ClasError: two runs have one label, or one seed.
    """
    seeds: dict[str, list[Run]] = {}
    for run in runs:
        if run.seed is not None:
            seeds.setdefault(run.setup, []).append(run)
    entries = []
    for run in runs:
        members = sorted(seeds.get(run.setup, [run]) if run.seed is not None else [run], key=lambda one: one.seed or 0)
        if len({one.seed for one in members}) < len(members):
            raise ClasError(f"Two runs of '{members[0].label}' have one seed; leave one of them out.")
        label = members[0].label if len(members) == 1 else seeds_label([one.label for one in members])
        if (entry := _Entry(label, _kind(run, runs), tuple(members))) not in entries:
            entries.append(entry)
    for entry in entries:
        if [one.label for one in entries].count(entry.label) > 1:
            raise ClasError(f"Several models or settings are called '{entry.label}'; give each its own label (LABEL=PATH).")
    return entries


def _kind(run: Run, runs: Sequence[Run]) -> RowKind:
    """What a run is beside the others; two models that nothing steers are compared as methods are."""
    if run.method in CONTROLS:
        return "control"
    steered = any(other.model == run.model and not other.unsteered for other in runs)
    return "unsteered" if run.unsteered and (run.steering or steered) else "method"


def _in_question(run: Run, other: Run, family: str, languages: Sequence[str]) -> list[str]:
    """The columns in which one of two runs steers, or may; all, if they are of two models, or if both steer nothing."""
    one_model = (run.model, run.adapter) == (other.model, other.adapter)
    if not one_model or run.method == other.method == "off":
        return list(languages)
    return [one for one in languages if not all(each.leaves_alone(language_of(one), family) for each in (run, other))]


def _baseline(entries: Sequence[_Entry], label: str | None) -> _Entry:
    labels = ", ".join(f"'{one.label}'" for one in entries)
    named = [one for one in entries if one.label == (label or "hf")]
    unsteered = [one for one in entries if all(member.unsteered for member in one.members)]
    found = named or ([] if label else unsteered)
    if len(found) != 1:
        named_so = f"no run is called '{label}'{did_you_mean(label or '', [one.label for one in entries])}"
        why = named_so if label else "no run is unsteered" if not found else "several runs are unsteered"
        raise ClasError(f"There is no baseline: {why}; name one with --baseline (there are {labels}).")
    return _Entry(found[0].label, "baseline", found[0].members)
