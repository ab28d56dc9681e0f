"""Tuning: every setting of steering on every task and language, in one load, and what is best.

A run folder holds:

run.json             what decides the scores; a run with other options is refused
scores/TASK.json     every item's score under every setting, written when a task is finished
partial/TASK.jsonl   the answers of a task that is not finished (`journal.py`); of other processes, TASK.jsonl.1 and so on
tuned.json           what was chosen, with the evidence, as it goes into the mask folder
scores.csv           scores, gains and intervals by task, language and setting
curves.png           gains over alpha, one panel per language
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain, product
from pathlib import Path
from typing import Any

from lm_eval_clas import __version__
from lm_eval_clas.choosing import Unit
from lm_eval_clas.errors import ClasError
from lm_eval_clas.files import write_text
from lm_eval_clas.macrolanguages import as_known
from lm_eval_clas.masks import MaskSet
from lm_eval_clas.processes import Processes
from lm_eval_clas.sweep import Sweep
from lm_eval_clas.task_names import from_task_name
from lm_eval_clas.tuned import PREFERRED_METRICS, Setting, task_family

FEWSHOT_SEED = 1234  # the harness's default


@dataclass(frozen=True)
class Recipe:
    """What decides the scores of a run.

    Attributes:
        objective: `metric`, or `loglikelihood` of the gold answer.
        metric: its name; None for f1_lang, f1 or acc, whichever the task has, or else its first.
        limit, num_fewshot, apply_chat_template: as `lm_eval` has them.
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

    def claim(self, folder: Path) -> None:
        """Takes a run folder for this recipe.

        Raises:
            ClasError: it holds the run of another.
        """
        path = folder / "run.json"
        mine = json.loads(json.dumps({"version": __version__, **asdict(self)}))
        if path.is_file():
            try:
                other = json.loads(path.read_bytes())
            except ValueError as error:
                raise ClasError(f"'{path}' cannot be read as the record of a tuning run; give another --out.") from error
            changed = [name for name in mine if other.get(name) != mine[name]]
            if changed:
                raise ClasError(f"'{folder}' holds a run with other {', '.join(changed)}; give another --out, or delete it.")
            return
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


def load_tasks(names: Sequence[str], include_path: Sequence[str], num_fewshot: int | None = None) -> dict[str, Any]:
    """The harness's task objects by name; groups and tags are taken apart.

    Examples in the prompt are as many and the same as in `lm_eval`: a task that is zero-shot by its own word stays so.

    Raises:
        ClasError: there is no such task.
    """
    manager = _manager(tuple(include_path))
    if missing := [name for name in names if name not in manager.all_tasks]:
        raise ClasError(f"There is no task {', '.join(missing)}; 'lm_eval ls tasks' lists them, --include-path adds folders.")
    tasks = tasks_of(manager, names)
    for task in tasks.values():
        own = task.get_config("num_fewshot")
        if own is None or (num_fewshot is not None and own != 0):
            task.set_config(key="num_fewshot", value=num_fewshot or 0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return tasks


def tasks_of(manager: Any, names: Sequence[str]) -> dict[str, Any]:
    """The task objects that names of tasks, groups and tags stand for, in their order."""
    if hasattr(manager, "load"):
        return dict(manager.load(list(names))["tasks"])
    from lm_eval.tasks import get_task_dict

    # Before lm-eval 0.4.12: groups within groups, and several names back to front.
    return dict(leaf for name in names for leaf in _leaves(get_task_dict([name], manager)))


@cache
def _manager(include_path: tuple[str, ...]) -> Any:
    """The harness's index of tasks, which takes seconds to make."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=list(include_path))


def _leaves(tasks: Mapping[Any, Any]) -> Iterable[tuple[str, Any]]:
    for name, task in tasks.items():
        if isinstance(task, Mapping):
            yield from _leaves(task)
        else:
            yield str(name), task


def tunable(names: Iterable[str], masks: MaskSet) -> tuple[list[str], dict[str, str]]:
    """The tasks that there is something to tune in, and of the others, why not, as far as their names tell."""
    kept, skipped = [], {}
    for name in names:
        language = from_task_name(name)
        known = None if language is None else as_known(language, masks.languages)
        if known == masks.anchor:
            skipped[name] = "its language is the anchor, which is never steered"
        elif known is not None and known not in masks.languages:
            skipped[name] = f"the masks do not have its language '{language}'"
        else:
            kept.append(name)
    return kept, skipped


def measure(
    sweep: Sweep | None,
    name: str,
    task: Any,
    recipe: Recipe,
    folder: Path,
    report: Callable[[int, int], None],
    processes: Processes | None = None,
) -> dict[str, Any]:
    """Scores a task under all settings, and writes them to the run folder.

    A finished task is read from there, and needs no `sweep`. Several processes call this together; the main one reads and
    writes.

    Returns:
        the contents of `scores/TASK.json`: `metric`, and by language `documents`, and `values` [settings][items].

    Raises:
        ClasError: the task has no such metric, or no gold answer to score.
    """
    processes = processes or Processes()
    path, journal = folder / "scores" / f"{name}.json", folder / "partial" / f"{name}.jsonl"
    if (finished := processes.from_main(lambda: _read(path) if path.is_file() else None)) is not None:
        return finished
    assert sweep is not None, f"{name} is not finished"
    metric = "log-likelihood of the gold answer" if recipe.objective == "loglikelihood" else _metric(name, task, recipe.metric)
    generates = recipe.objective == "loglikelihood" and task.OUTPUT_TYPE == "generate_until"
    sweep.start(journal, report, gold=(lambda doc: _gold_text(name, task, doc)) if generates else None)
    languages: dict[str, dict[str, Any]] = {}
    for setting in range(len(recipe.settings)):
        sweep.setting = setting
        samples = _samples(sweep, name, task, recipe)
        for sample in samples:
            number = int(sample["doc_id"])
            language = sweep.language_of.get(number)
            if language is None:
                continue
            entry = languages.setdefault(language, {"documents": [], "values": [[] for _ in recipe.settings]})
            if setting == 0:
                entry["documents"].append([name, number, sample["doc_hash"]])
            if generates:
                value = sweep.gold[setting][number]
            elif recipe.objective == "loglikelihood":
                value = float(sample["resps"][_gold_choice(name, task, sample["doc"])][0][0])
            else:
                value = sample[metric]
            entry["values"][setting].append(value)
    scores = {"task": name, "objective": recipe.objective, "metric": metric, "languages": languages}

    def written() -> dict[str, Any]:
        write_text(path, json.dumps(scores, ensure_ascii=False) + "\n")
        return _read(path)  # what a run that goes on would read

    kept = processes.from_main(written)
    sweep.finish()
    return kept


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except ValueError as error:
        raise ClasError(f"'{path}' is damaged ({error}); delete it, and the same command measures it again.") from error


def _samples(sweep: Sweep, name: str, task: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """The harness's own record of each document, under the sweep's setting, in the order of documents."""
    from lm_eval.evaluator import evaluate

    results = evaluate(
        lm=sweep,
        task_dict={name: task},
        limit=recipe.limit,
        apply_chat_template=recipe.apply_chat_template,
        fewshot_as_multiturn=recipe.apply_chat_template,
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = results["samples"][name]
    first = samples[0]["filter"]  # of several filters of an answer, the first is the task's main one
    return sorted((sample for sample in samples if sample["filter"] == first), key=lambda sample: int(sample["doc_id"]))


def units(scores: Iterable[Mapping[str, Any]], tasks: Mapping[str, Any], masks: MaskSet) -> list[Unit]:
    """What strengths are chosen for: items by task family and language.

    Raises:
        ClasError: tasks of one family have different metrics.
    """
    gathered: dict[tuple[str, str], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for score in scores:
        family = task_family(score["task"], masks.languages)
        for language, entry in score["languages"].items():
            gathered.setdefault((family, language), []).append((score, entry))
    made = []
    for (family, language), parts in gathered.items():
        score = parts[0][0]
        if len({part["metric"] for part, _ in parts}) > 1:
            raise ClasError(f"The tasks of {family} in {language} have different metrics; tune them one by one.")
        of_metric = score["objective"] == "metric"
        task = tasks[score["task"]]
        aggregate = task.aggregation()[score["metric"]] if of_metric else None
        documents = [document for _, entry in parts for document in entry["documents"]]
        made.append(
            Unit(
                family=family,
                language=language,
                tasks=tuple(part["task"] for part, _ in parts),
                objective=score["objective"],
                metric=score["metric"],
                items_sha256=hashlib.sha256(json.dumps(documents).encode()).hexdigest(),
                values=[list(chain(*columns)) for columns in zip(*(entry["values"] for _, entry in parts), strict=True)],
                aggregate=None if getattr(aggregate, "__name__", "") in ("mean", "NoneType") else aggregate,
                higher_is_better=bool(task.higher_is_better().get(score["metric"], True)) if of_metric else True,
            )
        )
    return made


def _metric(name: str, task: Any, wanted: str | None) -> str:
    known = list(task.aggregation())
    if wanted is not None and wanted not in known:
        raise ClasError(f"The task {name} has no metric '{wanted}', only {', '.join(known)}; choose with --metric.")
    if wanted is None and not known:
        raise ClasError(f"The task {name} has no metric; use --objective loglikelihood.")
    return wanted or next((metric for metric in PREFERRED_METRICS if metric in known), known[0])


def _gold_choice(name: str, task: Any, doc: Any) -> int:
    """The position of a document's gold answer among its requests."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return 0  # a log-likelihood task asks for nothing else
    gold = task.doc_to_target(doc)
    gold = gold[0] if isinstance(gold, list) else gold
    return int(gold) if isinstance(gold, int) or str(gold).isdigit() else list(task.doc_to_choice(doc)).index(gold)


def _gold_text(name: str, task: Any, doc: Any) -> str:
    """A document's first gold answer as the continuation of its prompt."""
    gold = task.doc_to_target(doc)
    gold = gold[0] if isinstance(gold, list) and gold else gold
    if not isinstance(gold, str) or not gold.strip():
        raise ClasError(f"The task {name} has a document without a gold answer to score; use --objective metric.")
    return f"{task.config.target_delimiter}{gold}"
