"""A plan in words: durations, the cells of its tables, and the sentences below them."""

from __future__ import annotations

from lm_eval_clas.study.plan.making import PlannedGpu, PlannedStage, StudyPlan

UNKNOWN = "unknown"


def duration(seconds: float) -> str:
    """One duration, such as 40 s, 12 min or 1.5 h."""
    unit, size = _unit(seconds)
    return f"{seconds / size:.1f} {unit}" if unit == "h" else f"{seconds / size:.0f} {unit}"


def duration_between(span: tuple[float, float] | None) -> str:
    """From one to another, in one unit; `unknown` for None."""
    if span is None:
        return UNKNOWN
    unit, size = _unit(span[1])
    low, high = (_number(one / size) for one in span)
    return f"{high} {unit}" if low == high else f"{low} to {high} {unit}"


def _unit(seconds: float) -> tuple[str, int]:
    return ("s", 1) if seconds < 90 else ("min", 60) if seconds < 5400 else ("h", 3600)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def stage_cells(stage: PlannedStage) -> tuple[str, str, str]:
    """Items, tokens and time of a stage; what leaves something out says `at least`."""
    if stage.items is None or stage.tokens is None:
        return (UNKNOWN, UNKNOWN, "done" if stage.done else UNKNOWN)
    at_least = "at least " if stage.unknown else ""
    time = duration_between(stage.seconds)
    return (
        f"{at_least}{stage.items:,}",
        f"{at_least}{_millions(stage.tokens)}",
        "done" if stage.done else f"{at_least}{time}" if stage.seconds else time,
    )


def _millions(span: tuple[float, float]) -> str:
    low, high = (f"{one / 1e6:,.1f}" if one < 1e8 else f"{one / 1e6:,.0f}" for one in span)
    return f"{high} M" if low == high else f"{low} to {high} M"


def gpu_rows(gpus: list[PlannedGpu]) -> list[tuple[str, str, str, str]]:
    """A row for each GPU: its name, the time with `hf` and with vLLM, and memory."""
    rows = []
    for name in dict.fromkeys(one.gpu for one in gpus):
        times = {one.engine: one for one in gpus if one.gpu == name}
        plain = times["hf"]
        needed = UNKNOWN if plain.memory is None else f"{plain.memory / 2**30:.0f} GiB"
        room = ""
        if plain.batch == 0:
            room = ", more than it has"
        elif plain.batch is not None and plain.batch < plain.asked:
            room = f", more than it has; batch {plain.batch} fits"
        rows.append((name, duration_between(plain.seconds), duration_between(times["vllm"].seconds), needed + room))
    return rows


def total_sentence(plan: StudyPlan) -> str:
    """What all stages take that are not done, and in the same sentence what that leaves out."""
    left_out = "; ".join(plan.left_out)
    if all(stage.done for stage in plan.stages):
        return f"Every stage that runs the model is done; left are {left_out}." if left_out else "Every stage is done."
    if plan.total is None:
        return f"How long it takes here is unknown; not counted are {left_out}."
    return f"In all {duration_between(plan.total)} on {plan.machine}{f', without {left_out}' if left_out else ''}."
