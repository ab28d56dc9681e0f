"""Every setting of steering on every task and language, measured in one load.

A run folder holds:

run.json             what decides the scores; once there are any, a run that differs in it is refused
scores/TASK.json     every item's score under every setting, written when a task is finished
partial/TASK.jsonl   the answers of a task that is not finished (`journal.py`); of other processes, TASK.jsonl.1 and so on
tuned.json           what was chosen, with the evidence, as it goes into the mask folder
scores.csv           scores, gains and intervals by task, language and setting
curves.png           gains over alpha, one panel per language; of metrics in further units, curves-UNIT.png
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.escaping import visible
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.base.version import __version__
from lm_eval_clas.disk.checked_json import read_json
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.disk.weight_files import weights_hash
from lm_eval_clas.evidence.cluster_fields import Clustered, clustered_alike, clusters_over_tasks
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.harness.task_loading import FEWSHOT_SEED
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.languages.task_names import Pair, from_task_name, read_task_name, task_family
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import CLAS, Conditions, Setting
from lm_eval_clas.texts.metrics import preferred_metric
from lm_eval_clas.tuning.choosing import Unit
from lm_eval_clas.tuning.gold_answers import GoldAnswers
from lm_eval_clas.tuning.item_scores import ABSENT, Document, ItemScores, LanguageItems, holds, items_of

_GOLD = "log-likelihood of the gold answer"
_GOLD_BY_BYTE = "nats_per_byte"  # the same as a metric, which tables have, too


@dataclass(frozen=True)
class TuningPlan:
    """What decides the scores of a run.

    Attributes:
        objective: `metric`, or `loglikelihood` of the gold answer; where that is what the task's own metric tells, by the byte,
            it is taken as the task has it.
        metric: its name; None for the first of `PREFERRED_METRICS` that the task has, or else its first.
        limit, num_fewshot, apply_chat_template: as `lm_eval` has them.
        engine: what runs the model.
        pair: which language counts where a task's name has two, as `hf-clas` has it.
        method: of steering.
        measured: the hash of what the method needs beside masks; None where it needs nothing.
    """

    model: str
    model_args: str
    masks: str
    tasks: tuple[str, ...]
    settings: tuple[Setting, ...]
    objective: str = "metric"
    metric: str | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    apply_chat_template: bool = False
    engine: str = "hf"
    pair: Pair = "target"
    method: str = CLAS
    measured: str | None = None

    def claim(self, folder: Path) -> None:
        """Takes a run folder for this recipe. A run that ended before it measured anything is replaced.

        Raises:
            ClasError: it holds scores of another, or of other weights in the same place.
        """
        path = folder / "run.json"
        weights = weights_hash(self.model, self.model_args)
        mine = json.loads(json.dumps({"version": __version__, **asdict(self), "weights": weights}))
        if path.is_file():
            try:
                other = read_json(path)
                if not isinstance(other, dict):
                    raise ValueError("it is no JSON object")
            except ValueError as error:
                raise ClasError(
                    f"'{path}' cannot be read as the record of a tuning run ({error}); give another --out."
                ) from error
            other = {
                "pair": "target",
                "engine": "hf",
                "method": CLAS,
                "measured": None,
                "weights": weights,
                **other,
            }  # as it was before there was a choice, or a look at weights
            changed = [name for name in mine if other.get(name) != mine[name]]
            if not changed:
                return
            if any(_measured(folder)):
                raise ClasError(f"'{folder}' holds a run with other {', '.join(changed)}; give another --out, or delete it.")
        write_text(path, json.dumps(mine, indent=2, ensure_ascii=False) + "\n")


def grid(
    masks: MaskSet,
    alphas: Iterable[float],
    betas: Iterable[float] = (),
    gammas: Iterable[float] = (),
    layers: Iterable[Sequence[int]] = (),
) -> tuple[Setting, ...]:
    """Every combination, ascending by alpha, with alpha 0 once and in front; nothing given takes what the masks say."""
    choices = product(
        sorted({float(alpha) for alpha in alphas} - {0.0}),
        list(dict.fromkeys(betas)) or [masks.config.beta],
        list(dict.fromkeys(gammas)) or [masks.config.gamma],
        list(dict.fromkeys(map(tuple, layers))) or [masks.bridge_layers],
    )
    unsteered = Setting(0.0, masks.config.beta, masks.config.gamma, masks.bridge_layers)
    return (unsteered, *(Setting(*choice) for choice in choices))


def tunable(names: Iterable[str], masks: MaskSet, pair: Pair = "target") -> tuple[list[str], dict[str, str]]:
    """The tasks that there is something to tune in, and of the others, why not, as far as their names tell."""
    kept, skipped = [], {}
    for name in names:
        if pair == "off" and (named := read_task_name(name)) is not None and named.pair is not None:
            skipped[name] = f"its name has two languages, '{named.pair[0]}' and '{named.pair[1]}', and neither counts"
            continue
        language = from_task_name(name, pair=pair)
        known = None if language is None else as_known(language, masks.languages)
        if known == masks.anchor:
            skipped[name] = "its language is the anchor, which is never steered"
        elif known is not None and known not in masks.languages:
            skipped[name] = f"the masks do not have its language '{language}'"
        else:
            kept.append(name)
    return kept, skipped


def kept_scores(name: str, task: Any, recipe: TuningPlan, folder: Path) -> ItemScores | None:
    """The scores of a task that the run folder has; None if the task is not finished.

    Raises:
        ClasError: the file is damaged, or of other documents than the task has now, or of another metric.
    """
    path = _scores_file(folder, name)
    if not path.is_file():
        return None
    scores = ItemScores.read(path, name, len(recipe.settings))
    if scores.metric != (metric := metric_measured(name, task, recipe)):
        raise ClasError(
            f"'{path}' has scores by {visible(scores.metric)}, and {name} is scored by {metric} now; delete the file, and the "
            "same command measures the task again, or give another --out."
        )
    scores.require_documents(task.eval_docs, path)
    return scores


def _scores_file(folder: Path, name: str) -> Path:
    return folder / "scores" / f"{name}.json"


def _measured(folder: Path) -> Iterator[Path]:
    """The files with scores in a run folder, of finished tasks and unfinished ones."""
    return chain(folder.glob("scores/*.json"), folder.glob("partial/*"))


def measure_settings(
    sweep: Sweep | None,
    name: str,
    task: Any,
    recipe: TuningPlan,
    folder: Path,
    report: Callable[[int, int], None],
    processes: Processes | None = None,
) -> ItemScores:
    """Scores a task under all settings, and writes them to the run folder.

    A finished task is read from there, and needs no `sweep`. Several processes call this together; the main one reads and
    writes.

    Returns:
        the contents of `scores/TASK.json`.

    Raises:
        ClasError: the task has no such metric, or no gold answer to score; or `kept_scores` refuses what is there.
    """
    processes = processes or Processes()
    path, journal = _scores_file(folder, name), folder / "partial" / f"{name}.jsonl"
    if (finished := processes.from_main(lambda: kept_scores(name, task, recipe, folder))) is not None:
        return finished
    assert sweep is not None, f"{name} is not finished"
    metric = metric_measured(name, task, recipe)
    gold = GoldAnswers(name, task, recipe.limit, recipe.apply_chat_template) if recipe.objective == "loglikelihood" else None
    generates = gold is not None and gold.generated
    sweep.start(journal, report, gold=gold.text if gold and generates else None)
    documents: dict[str, list[Document]] = {}
    values: dict[str, list[list[Any]]] = {}
    for setting in range(len(recipe.settings)):
        sweep.setting = setting
        for sample in _samples(sweep, name, task, recipe):
            number = int(sample["doc_id"])
            language = sweep.language_of.get(number)
            if language is None:
                continue
            if setting == 0:
                documents.setdefault(language, []).append((name, number, sample["doc_hash"]))
            if generates:
                value = sweep.gold[setting][number]
            elif gold is not None and metric == _GOLD:
                value = gold.log_likelihood(number, sample["resps"])
            elif holds(sample["resps"], math.isnan):  # the best of answers whose scores are no numbers is none
                value = math.nan
            else:
                value = sample.get(metric, ABSENT)
            values.setdefault(language, [[] for _ in recipe.settings])[setting].append(value)
    conditions = Conditions(
        num_fewshot=task.get_config("num_fewshot") or 0,
        apply_chat_template=recipe.apply_chat_template,
        dtype=sweep.computes_in,
        scoring=None if task.OUTPUT_TYPE == "generate_until" and not generates else sweep.scoring,  # type: ignore[arg-type]
        **sweep.loaded,
    )
    scores = ItemScores(
        task=name,
        objective=recipe.objective,
        metric=metric,
        conditions=conditions,
        languages={language: items_of(documents[language], values[language]) for language in documents},
    )

    def written() -> ItemScores:
        scores.write(path)
        return ItemScores.read(path, name, len(recipe.settings))  # what a run that goes on would read

    kept = processes.from_main(written)
    sweep.finish()
    return kept


def _samples(sweep: Sweep, name: str, task: Any, recipe: TuningPlan) -> list[dict[str, Any]]:
    """The harness's own record of each document, under the sweep's setting, in the order of documents."""
    from lm_eval.evaluator import evaluate

    # What the harness would make of all items is not looked at, and must not fail where a strength ruins the model.
    task.aggregation = lambda: defaultdict(lambda: len)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)  # the examples in prompts are drawn anew each time
    try:
        results = evaluate(
            lm=sweep,
            task_dict={name: task},
            limit=recipe.limit,
            apply_chat_template=recipe.apply_chat_template,
            fewshot_as_multiturn=recipe.apply_chat_template,
            bootstrap_iters=0,
            log_samples=True,
        )
    finally:
        del task.aggregation
    samples = results["samples"][name]
    first = samples[0]["filter"]  # of several filters of an answer, the first is the task's main one
    return sorted((sample for sample in samples if sample["filter"] == first), key=lambda sample: int(sample["doc_id"]))


_Gathered = Mapping[tuple[str, str], list[tuple[ItemScores, LanguageItems]]]  # items by task family and language


def units(
    scores: Iterable[ItemScores],
    tasks: Mapping[str, Any],
    masks: MaskSet,
    report: Callable[[str], None] = lambda _: None,
    cluster: str | None = None,
) -> list[Unit]:
    """What strengths are chosen for: items by task family and language.

    Args:
        report: told of documents that are no items, a sentence for each task and language.
        cluster: the field by which documents hang together, as `clustered_alike` takes it.

    Raises:
        ClasError: tasks of one family have different metrics, or documents lack the field.
    """
    gathered: dict[tuple[str, str], list[tuple[ItemScores, LanguageItems]]] = {}
    for score in scores:
        for language, items in score.languages.items():
            if items.without:
                report(
                    f"{score.task} in {language}: {items.without} of {items.without + len(items.documents)} documents are no "
                    f"items, as the task gives no {score.metric} for them."
                )
            if items.documents:
                gathered.setdefault((task_family(score.task, masks.languages), language), []).append((score, items))
    together = _together(gathered, tasks, cluster)
    made = []
    for (family, language), parts in gathered.items():
        score = parts[0][0]
        if len({part.metric for part, _ in parts}) > 1:
            raise ClasError(f"The tasks of {family} in {language} have different metrics; tune them one by one.")
        of_metric = score.objective == "metric"
        task = tasks[score.task]
        aggregate = task.aggregation()[score.metric] if of_metric else None
        documents = [document for _, items in parts for document in items.documents]
        groups = together[family, language]
        made.append(
            Unit(
                family=family,
                language=language,
                tasks=tuple(part.task for part, _ in parts),
                objective=score.objective,
                metric=score.metric,
                items_sha256=hashlib.sha256(json.dumps(documents).encode()).hexdigest(),
                values=[list(chain(*rows)) for rows in zip(*(items.values for _, items in parts), strict=True)],
                aggregate=None if getattr(aggregate, "__name__", "") in ("mean", "NoneType") else aggregate,
                higher_is_better=bool(task.higher_is_better().get(score.metric, True)) if of_metric else True,
                documents=documents,
                conditions=Conditions.common(part.conditions for part, _ in parts),
                clusters=clusters_over_tasks(groups),
                cluster_fields=tuple(dict.fromkeys(group.field for group in groups if group.field is not None)),
            )
        )
    return made


def _together(gathered: _Gathered, tasks: Mapping[str, Any], cluster: str | None) -> dict[tuple[str, str], list[Clustered]]:
    """Which items hang together, part by part of what was gathered: by the same field in all of a family."""
    found: dict[tuple[str, str], list[Clustered]] = {where: [] for where in gathered}
    for family in dict.fromkeys(family for family, _ in gathered):
        places = [(where, part, items) for where, parts in gathered.items() if where[0] == family for part, items in parts]
        every = ((part.task, tasks[part.task].eval_docs, items.documents) for _, part, items in places)
        documents = ((name, [own[number] for _, number, _ in asked]) for name, own, asked in every)
        for (where, _, _), one in zip(places, clustered_alike(documents, cluster), strict=True):
            found[where].append(one)
    return found


def metric_measured(name: str, task: Any, recipe: TuningPlan) -> str:
    """What a task is scored by.

    Raises:
        ClasError: the task has no such metric.
    """
    known, wanted = list(task.aggregation()), recipe.metric
    if recipe.objective == "loglikelihood":
        return _GOLD_BY_BYTE if _GOLD_BY_BYTE in known and task.OUTPUT_TYPE == "multiple_choice" else _GOLD
    if wanted is not None and wanted not in known:
        raise ClasError(f"The task {name} has no metric '{wanted}', only {', '.join(known)}; choose with --metric.")
    if wanted is None and not known:
        raise ClasError(f"The task {name} has no metric; use --objective loglikelihood.")
    return wanted or preferred_metric(known)
