"""`plan_study`: the plan of a study, as data and in words. It reads files of the package, and opens no connection."""

from __future__ import annotations

from collections.abc import Mapping

from lm_eval_clas.decoder.shapes import ModelShape
from lm_eval_clas.disk.checked_json import Strict
from lm_eval_clas.languages.language_names import parse_language
from lm_eval_clas.study.plan.known_sizes import MEASURED_TOKENIZER, known_sizes
from lm_eval_clas.study.plan.machines import ENGINES, GPUS, NO_SPAN, Machine, Span, Workload, gpu_machine, this_machine
from lm_eval_clas.study.plan.model_shapes import PlannedModel, planned_model
from lm_eval_clas.study.plan.planned_gains import planned_gains
from lm_eval_clas.study.plan.stage_work import StageWork, stage_works
from lm_eval_clas.study.recipe import StudyRecipe

_TOKENS = 2048  # of a sequence, for which memory is computed
_ROOM = 0.95  # share of a GPU's memory that a program can have
_WITHOUT_MODEL = ("masks", "tables", "report")


class PlannedStage(Strict):
    """One stage that runs the model; None is unknown.

    Attributes:
        items: prompts and texts, each as often as it is run.
        tokens: that go through all layers, of prompts and answers together, at least and at most.
        seconds: on this machine, at least and at most.
        done: whether it was, with the inputs of now; it then counts for nothing in the total.
        unknown: what is not counted in these numbers, and why.
    """

    stage: str
    what: str
    items: int | None
    tokens: tuple[float, float] | None
    seconds: tuple[float, float] | None
    done: bool
    unknown: list[str]


class PlannedGpu(Strict):
    """A study on one GPU: seconds of all stages, at least and at most; None is unknown. Nobody has measured it.

    Attributes:
        memory: bytes that `hf` needs with `asked`, the recipe's batch; vLLM fills with its cache what the weights leave.
        batch: the largest that fits: the recipe's, or half of it as often as it must be; 0 if the weights do not fit.
    """

    gpu: str
    engine: str
    seconds: tuple[float, float] | None
    memory: float | None
    asked: int
    batch: int | None


class StudyPlan(Strict):
    """A plan.

    Attributes:
        machine: what `seconds` of stages are of; None where this machine's speed is unknown.
        total: seconds of the stages that are not done, on this machine; `left_out`: what is not in it.
        assumes: what the numbers rest on.
        can_show: the smallest gains that the items can show.
    """

    name: str
    model: str
    machine: str | None
    stages: list[PlannedStage]
    total: tuple[float, float] | None
    left_out: list[str]
    gpus: list[PlannedGpu]
    assumes: list[str]
    can_show: list[str]


def plan_study(recipe: StudyRecipe, done: Mapping[str, bool], measured: Machine | None = None) -> StudyPlan:
    """The plan of a recipe.

    Args:
        done: by stage, whether it is finished.
        measured: this machine as a calibration found it; None assumes what `machines.py` says.

    Raises:
        ClasError: documents of its tasks lack the field of `cluster`.
    """
    model = planned_model(recipe)
    shape = model.shape
    works = stage_works(recipe, model.tokenizer, shape.layers if shape else None)
    machine = measured or this_machine(recipe.device)
    stages = [_stage(work, recipe, shape, machine, done.get(work.stage, False)) for work in works]
    left = [one for one in stages if not one.done]
    timed = [Span(*one.seconds) for one in left if one.seconds]
    untimed = [one.stage for one in left if one.seconds is None]
    left_out = [f"{_listed(untimed)}, whose time is unknown"] if untimed else []
    left_out += [f"{why} ({one.stage})" for one in left if one.seconds for why in one.unknown]
    if without := [name for name in _WITHOUT_MODEL if not done.get(name, False)]:
        left_out.append(f"{_listed(without)}, which take minutes and run no model")
    return StudyPlan(
        name=recipe.name,
        model=recipe.model,
        machine=machine.name if machine else None,
        stages=stages,
        total=_sum(timed) if timed else None,
        left_out=left_out,
        gpus=[_on_gpu(gpu.name, engine, works, recipe, shape) for gpu in GPUS for engine in ENGINES],
        assumes=_assumptions(recipe, model, machine, measured is not None),
        can_show=planned_gains(recipe, parse_language(recipe.masks.anchor)),
    )


def _stage(work: StageWork, recipe: StudyRecipe, shape: ModelShape | None, machine: Machine | None, done: bool) -> PlannedStage:
    seconds = tokens = None
    if work.counted:
        mine = work.plain if recipe.engine == "hf" else work.beside.plus(work.inside)
        tokens = mine.tokens.plus(mine.written)
    if work.counted and shape and machine:
        inside = NO_SPAN
        if recipe.engine == "vllm" and work.inside != Workload():
            in_vllm = next((gpu_machine(gpu, "vllm") for gpu in GPUS if gpu.name == machine.name), machine)
            inside = in_vllm.seconds(work.inside, shape)
        seconds = machine.seconds(work.plain if recipe.engine == "hf" else work.beside, shape).plus(inside)
    return PlannedStage(
        stage=work.stage,
        what=work.what,
        items=work.items if work.counted else None,
        tokens=tokens,
        seconds=seconds,
        done=done,
        unknown=work.unknown,
    )


def _on_gpu(name: str, engine: str, works: list[StageWork], recipe: StudyRecipe, shape: ModelShape | None) -> PlannedGpu:
    gpu = next(one for one in GPUS if one.name == name)
    if shape is None:
        return PlannedGpu(gpu=name, engine=engine, seconds=None, memory=None, asked=_batch(recipe), batch=None)
    plain, vllm = gpu_machine(gpu, "hf"), gpu_machine(gpu, "vllm")
    counted = [work for work in works if work.counted]
    if engine == "hf":
        seconds = _sum([plain.seconds(work.plain, shape) for work in counted])
    else:
        inside = [vllm.seconds(work.inside, shape) for work in counted if work.inside != Workload()]
        seconds = _sum([*(plain.seconds(work.beside, shape) for work in counted), *inside])
    asked = batch = _batch(recipe)
    memory = shape.memory(asked, _TOKENS)
    while batch and shape.memory(batch, _TOKENS) > _ROOM * gpu.memory:
        batch //= 2
    return PlannedGpu(gpu=name, engine=engine, seconds=seconds if counted else None, memory=memory, asked=asked, batch=batch)


def _batch(recipe: StudyRecipe) -> int:
    batch = recipe.evaluate.batch_size
    return int(batch) if str(batch).isdigit() else 8


def _assumptions(recipe: StudyRecipe, model: PlannedModel, machine: Machine | None, timed: bool) -> list[str]:
    sizes = known_sizes()
    found, _ = sizes.find(name for part in recipe.parts.values() for name in (*part.tune, *part.evaluate))
    written = {family.written for family, _, _ in found if family.written}
    lines = [f"{model.about[0].upper()}{model.about[1:]}."]
    if model.tokenizer == MEASURED_TOKENIZER and recipe.model not in sizes.models and recipe.model != "demo-model":
        lines.append("Tokens are those of Gemma 3's tokenizer, as the model's own was not counted.")
    if written:
        low, high = min(one[0] for one in written), max(one[1] for one in written)
        lines.append(
            f"An answer is taken to be {low} to {high} tokens long on average; nobody knows before what a model writes."
        )
    there = [family for family, _, _ in found if family.fields is None]
    if assumed := [name for name, family in sizes.families.items() if family in there]:
        lines.append(f"Of {', '.join(assumed)}, items are from their papers and cards, and lengths of prompts are assumed.")
    if machine:
        measure = "" if timed else "; --calibrate measures it"
        lines.append(f"{machine.name[0].upper()}{machine.name[1:]}: {machine.assumes}{measure}.")
    else:
        lines.append("How fast this machine's GPU is, is unknown; --calibrate measures it.")
    lines += [f"A GPU with {gpu_machine(GPUS[0], engine).assumes}." for engine in ENGINES]
    return lines


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _sum(spans: list[Span]) -> Span:
    total = NO_SPAN
    for one in spans:
        total = total.plus(one)
    return total
