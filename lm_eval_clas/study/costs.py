"""What a study will cost, before it costs it: sequences, tokens, and time from a short calibration or from the model's shape.

A forward pass is counted once for each sequence that runs through the model; generation adds one decoding step for each token,
for a batch at once, up to the task's limit. Tokens of tasks are estimated from the first documents of each.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.plain_numbers import real_number
from lm_eval_clas.disk.checked_json import read_json
from lm_eval_clas.disk.files import cache_dir, write_text
from lm_eval_clas.languages.language_names import parse_language
from lm_eval_clas.languages.task_names import from_task_name
from lm_eval_clas.study.planned_gains import planned_gains
from lm_eval_clas.study.recipe import DEMO_MODEL, StudyRecipe
from lm_eval_clas.study.record import hash_of
from lm_eval_clas.study.stages import StudyStages

_DOCUMENTS = 8  # that stand for all of a task
_CHARACTERS_PER_TOKEN = 3  # where there is no tokenizer


@dataclass
class Work:
    """What one stage runs.

    Attributes:
        tokens: of all prompts and continuations together.
        scored: those of them that are only scored or profiled; `prompted`: those that are followed by generation.
        steps: decoding steps, a batch at a time, if every answer were as long as it may be.
        unknown: what could not be counted, and why.
        gains: the smallest ones that its items can show, a sentence for each family of tasks.
    """

    stage: str
    what: str
    passes: int = 0
    scored: float = 0
    prompted: float = 0
    steps: int = 0
    unknown: list[str] = field(default_factory=list)
    gains: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> float:
        """All of them."""
        return self.scored + self.prompted


@dataclass(frozen=True)
class Speed:
    """How fast this machine is: seconds for each token that is scored, for each that is prompted, generation included."""

    scored: float
    prompted: float

    def seconds(self, work: Work) -> float:
        """For one stage."""
        return work.scored * self.scored + work.prompted * self.prompted


def work_of(stages: StudyStages, tokenizer: Any | None) -> list[Work]:
    """The work of each stage that runs the model.

    Args:
        tokenizer: of the model; None estimates three characters to a token.
    """
    recipe = stages.recipe
    runs = len(recipe.evaluate.runs)
    evaluate = Work("evaluate", f"{runs} runs")
    for part in recipe.parts.values():
        tasks = _tasks(stages, part.evaluate, recipe.evaluate.num_fewshot, evaluate)
        evaluate.gains += planned_gains(tasks, part.limit, recipe.cluster, parse_language(recipe.masks.anchor))
        for task in tasks.values():
            _add(evaluate, task, part.limit, tokenizer, _number(recipe.evaluate.batch_size), times=runs)
    tuned = any(part.tune for part in recipe.parts.values())
    works = [_profile(stages, tokenizer), *([_tune(stages, tokenizer)] if tuned else []), evaluate]
    if (samples := recipe.analyse.geometry_samples) is not None:
        analyse = Work("analyse", "geometry, with and without steering")
        for name in recipe.parts:
            _add_texts(analyse, stages, name, tokenizer, items=samples, times=2)
        works.append(analyse)
    return works


def _profile(stages: StudyStages, tokenizer: Any | None) -> Work:
    work = Work("profile", ", ".join([*stages.recipe.parts, *stages.halves]))
    for part in stages.recipe.parts:
        _add_texts(work, stages, part, tokenizer)
    for part, half in stages.halves.values():
        _add_texts(work, stages, part, tokenizer, half)
    for part in stages.recipe.parts if stages.recipe.needs_residual else ():
        _add_texts(work, stages, part, tokenizer)
    return work


def _add_texts(
    work: Work,
    stages: StudyStages,
    part: str,
    tokenizer: Any | None,
    half: Literal["first", "second"] | None = None,
    items: int | None = None,
    times: int = 1,
) -> None:
    try:
        texts = stages.texts(part, half)
    except ClasError as error:
        work.unknown.append(f"{part}: {error}")
        return
    longest = stages.recipe.profile.max_tokens
    for lines in texts.texts.values():
        work.passes += times * len(lines[:items])
        work.scored += times * sum(min(_length(tokenizer, line), longest) for line in lines[:items])


def _tune(stages: StudyStages, tokenizer: Any | None) -> Work:
    step = stages.recipe.tune_step
    each = [len({*stages.recipe.alphas_of(method), 0}) for method in stages.recipe.tuned_methods]
    settings, methods = sum(each), f" of {len(each)} methods" if len(each) > 1 else ""
    work = Work("tune", f"{settings} strengths{methods}")
    # The layers below the bridge run once for all strengths; from half depth on is where a bridge may begin.
    share = 0.5 * len(each) + 0.5 * settings
    for part in stages.recipe.parts.values():
        for task in _tasks(stages, part.tune, step.num_fewshot, work).values():
            if from_task_name(task.config.task, ()) == parse_language(stages.recipe.masks.anchor):
                continue
            before = work.steps
            _add(work, task, step.limit, tokenizer, _number(step.batch_size), times=settings, cost=share / settings)
            if step.objective == "loglikelihood":
                work.scored, work.prompted, work.steps = work.scored + work.prompted, 0, before
    return work


def _tasks(stages: StudyStages, names: Iterable[str], num_fewshot: int | None, work: Work) -> dict[str, Any]:
    """The tasks whose data can be had; of the others, why not goes into the work."""
    found: dict[str, Any] = {}
    for name in names:
        try:
            found |= stages.tasks([name], num_fewshot)
        except Exception as error:  # data sets and the Hub raise every kind
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            work.unknown.append(f"{name}: {type(error).__name__}, {reason[:120]}")
    return found


def _add(work: Work, task: Any, limit: int | None, tokenizer: Any | None, batch: int, *, times: int, cost: float = 1.0) -> None:
    documents = min(limit or math.inf, len(task.eval_docs))
    sample = int(min(_DOCUMENTS, documents))
    task.build_all_requests(limit=sample, rank=0, world_size=1)
    requests = [request.args for request in task.instances]
    each = len(requests) / sample
    generates = task.OUTPUT_TYPE == "generate_until"
    # The choices of an item share their context, which runs once.
    texts = {str(arguments[0]) for arguments in requests} if generates or requests[0][0] else {str(a[1]) for a in requests}
    tokens = documents / sample * sum(_length(tokenizer, text) for text in texts) * times * cost
    work.passes += int(documents * each * times)
    if generates:
        work.prompted += tokens
        longest = int((requests[0][1] or {}).get("max_gen_toks", 256))
        work.steps += math.ceil(documents / batch) * longest * times
    else:
        work.scored += tokens


def _length(tokenizer: Any | None, text: str) -> int:
    return len(tokenizer(text)["input_ids"]) if tokenizer is not None else math.ceil(len(text) / _CHARACTERS_PER_TOKEN)


def _number(batch: int | str) -> int:
    return int(batch) if str(batch).isdigit() else 8


def calibrate(stages: StudyStages) -> Speed:
    """Times a few documents of each kind of task, unsteered; what was found for this machine is kept in the cache folder.

    Raises:
        ClasError: the model or the data cannot be loaded.
    """
    recipe = stages.recipe
    names = [name for part in recipe.parts.values() for name in part.evaluate]
    batch, shots = recipe.evaluate.batch_size, recipe.evaluate.num_fewshot
    identity = hash_of([platform.node(), stages.model, recipe.model_args, recipe.device, names, batch, shots])
    path = cache_dir() / "calibration" / f"{identity}.json"
    if path.is_file():
        try:
            kept = read_json(path)
            return Speed(real_number(kept["scored"]), real_number(kept["prompted"]))
        except (ValueError, KeyError, TypeError):
            pass  # damaged: measured again
    from lm_eval.evaluator import evaluate
    from lm_eval.utils import simple_parse_args_string

    from lm_eval_clas.harness.fast_lm import FastLM, default_device

    arguments = {"device": recipe.device or default_device(), **simple_parse_args_string(recipe.model_args)}
    lm = FastLM(stages.model, batch_size=batch, **arguments)
    by_kind: dict[bool, Any] = {}
    for task in stages.tasks(names, shots).values():
        by_kind.setdefault(task.OUTPUT_TYPE == "generate_until", task)
    measured: dict[bool, float] = {}
    for generates, task in by_kind.items():
        for documents in (1, _number(batch)):  # the first one pays for what is done once
            work = Work("", "")
            _add(work, task, documents, lm.tokenizer, _number(batch), times=1)
            start = time.perf_counter()
            evaluate(lm, {task.config.task: task}, limit=documents, bootstrap_iters=0)
            measured[generates] = (time.perf_counter() - start) / max(work.tokens, 1)
    either = next(iter(measured.values()))
    speed = Speed(measured.get(False, either), measured.get(True, either))
    with suppress(ClasError):  # without it, the next plan is measured again
        write_text(path, json.dumps({"scored": speed.scored, "prompted": speed.prompted}) + "\n")
    return speed


def computed(recipe: StudyRecipe, work: Work) -> float | None:
    """Seconds on one A100, computed from the shape; None if the recipe gives none."""
    return recipe.shape.seconds(work.tokens, work.steps) if recipe.shape else None


def tokenizer_of(stages: StudyStages) -> Any | None:
    """The model's tokenizer, or None where it cannot be had."""
    from transformers import AutoTokenizer

    if stages.recipe.model == DEMO_MODEL:
        return AutoTokenizer.from_pretrained(stages.model)
    try:
        return AutoTokenizer.from_pretrained(stages.recipe.model)
    except Exception:  # the Hub's client raises every kind; the plan is then made without it, and says so
        return None
