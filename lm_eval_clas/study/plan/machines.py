"""How fast machines are: what is assumed of GPUs and of this machine's CPU, and how long work takes there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from lm_eval_clas.decoder.shapes import ModelShape


class Span(NamedTuple):
    """From the least that is expected to the most."""

    low: float
    high: float

    def plus(self, other: Span) -> Span:
        """The sum of both."""
        return Span(self.low + other.low, self.high + other.high)

    def times(self, least: float, most: float | None = None) -> Span:
        """As many times, or between as many and as many."""
        return Span(self.low * least, self.high * (least if most is None else most))


NO_SPAN = Span(0.0, 0.0)


@dataclass(frozen=True)
class Workload:
    """What runs through a model.

    Attributes:
        count: forward passes of prompts, texts or choices.
        tokens: in them, as if each went through all layers.
        read: positions whose logits are computed.
        steps: passes of answers that are written, one token for each that is still going on; `written`: tokens in them.
        loads: how many times the model is loaded.
    """

    count: Span = NO_SPAN
    tokens: Span = NO_SPAN
    read: Span = NO_SPAN
    steps: Span = NO_SPAN
    written: Span = NO_SPAN
    loads: int = 0

    def plus(self, other: Workload) -> Workload:
        """Both, one after the other."""
        return Workload(
            self.count.plus(other.count),
            self.tokens.plus(other.tokens),
            self.read.plus(other.read),
            self.steps.plus(other.steps),
            self.written.plus(other.written),
            self.loads + other.loads,
        )

    def times(self, least: float, most: float | None = None) -> Workload:
        """As many times, or between as many and as many, in one load."""
        spans = (self.count, self.tokens, self.read, self.steps, self.written)
        count, tokens, read, steps, written = (one.times(least, most) for one in spans)
        return Workload(count, tokens, read, steps, written, self.loads)


@dataclass(frozen=True)
class Machine:
    """What a program gets of a machine.

    Attributes:
        operations: a second, in the products of a pass.
        bytes: of weights, read from memory a second.
        layer: seconds that each layer of each pass takes, however little it computes.
        start: seconds until a model is loaded, besides reading it; `disk`: bytes read of it a second.
        assumes: all that in words.
    """

    name: str
    operations: Span
    bytes: Span
    layer: Span
    start: Span
    disk: Span
    assumes: str

    def seconds(self, work: Workload, shape: ModelShape) -> Span:
        """How long work takes: operations, or the weights of every step, whichever takes longer; and the rest."""
        return Span(self._seconds(work, shape, 0, 1), self._seconds(work, shape, 1, 0))

    def _seconds(self, work: Workload, shape: ModelShape, end: int, fastest: int) -> float:
        """With the least work and the fastest machine (0, 1), or the other way round (1, 0)."""
        in_layers, in_output = 2 * shape.in_layers, 2 * shape.in_output
        prompts = (in_layers * work.tokens[end] + in_output * work.read[end]) / self.operations[fastest]
        computed = (in_layers + in_output) * work.written[end] / self.operations[fastest]
        each_step = (shape.in_layers + shape.in_output) * shape.bytes_per_weight / self.bytes[fastest]
        answers = max(computed, each_step * work.steps[end])
        layers = shape.layers * (work.count[end] + work.steps[end]) * self.layer[end]
        loads = work.loads * (self.start[end] + shape.weights / self.disk[fastest])
        return prompts + answers + layers + loads


class Gpu(NamedTuple):
    """One GPU, from its data sheet: dense bfloat16 operations and bytes of memory a second, and bytes of memory.

    Attributes:
        word: by which the driver's name of it is known.
    """

    name: str
    word: str
    operations: float
    bytes: float
    memory: float


GPUS = (
    Gpu("A100 80GB", "A100", 312e12, 2.0e12, 80e9),
    Gpu("H100", "H100", 989e12, 3.35e12, 80e9),
    Gpu("L4", "L4", 121e12, 0.3e12, 24e9),
    Gpu("RTX 4090", "4090", 165e12, 1.0e12, 24e9),
)
ENGINES = ("hf", "vllm")


def gpu_machine(gpu: Gpu, engine: str) -> Machine:
    """A GPU with one of `ENGINES`. The shares are guesses, which the plan says: nobody has measured them with this package."""
    operations, memory, layer = (
        (Span(0.25, 0.5), Span(0.3, 0.6), Span(3e-4, 9e-4))
        if engine == "hf"
        else (Span(0.35, 0.6), Span(0.5, 0.8), Span(2e-5, 1e-4))
    )
    shown = {"hf": "hf", "vllm": "vLLM"}[engine]
    return Machine(
        name=gpu.name,
        operations=Span(gpu.operations * operations.low, gpu.operations * operations.high),
        bytes=Span(gpu.bytes * memory.low, gpu.bytes * memory.high),
        layer=layer,
        start=Span(5, 15) if engine == "hf" else Span(40, 120),
        disk=Span(0.5e9, 2e9),
        assumes=(
            f"{shown}: {100 * operations.low:.0f} to {100 * operations.high:.0f} % of the peak operations of dense bfloat16, "
            f"{100 * memory.low:.0f} to {100 * memory.high:.0f} % of the memory bandwidth, "
            f"{1e3 * layer.low:g} to {1e3 * layer.high:g} ms for each layer of a pass"
        ),
    )


def this_machine(device: str | None) -> Machine | None:
    """This machine's GPU, or its CPU; None for a GPU of a kind that is not known, or a device that is neither.

    Args:
        device: as the recipe has it; None takes a GPU if there is one.
    """
    kind = (device or "").split(":")[0]
    if kind in ("", "cuda") and (name := _own_gpu()) is not None:
        known = [gpu for gpu in GPUS if re.search(rf"\b{gpu.word}\b", name)]
        return gpu_machine(known[0], "hf") if known else None
    return _cpu() if kind in ("", "cpu") else None


def cores() -> int:
    """Of the CPU, as many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> Machine:
    count = cores()
    each = Span(40e9, 120e9)
    return Machine(
        name=f"this machine's CPU ({count} {'core' if count == 1 else 'cores'})",
        operations=Span(each.low * count, each.high * count),
        bytes=Span(8e9, 25e9),
        layer=Span(1e-4, 4e-4),
        start=Span(2, 8),
        disk=Span(0.3e9, 2e9),
        assumes=(
            f"{each.low / 1e9:g} to {each.high / 1e9:g} billion operations a second on each of {count} CPU "
            f"{'core' if count == 1 else 'cores'} that nothing else uses"
        ),
    )


def _own_gpu() -> str | None:
    """What the driver calls the first GPU; asked of its program, since importing torch takes seconds."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(
            [program, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=3, check=True
        )
        return found.stdout.splitlines()[0] if found.stdout.strip() else None
    return None
