"""Generation of XQuAD's answers inside vLLM. Targets on two cores with Gemma 3 270M in float32: `vllm-clas` takes at most 3 %
more than `vllm`, is at least 2.5 times faster than `hf-clas` and `hf` at their best batch size, and a sweep over nine
strengths in one batch is at least 2 times faster than nine runs in the engine that is there. Log-likelihoods, in both: XNLI's,
of three short choices an item.

    python benchmarks/in_vllm.py [--items N] [--rounds N] [--batch-sizes 8,16]
    python benchmarks/in_vllm.py --checkpoint FOLDER --items 240 --at-once 256 --batch-sizes 16,64

With a checkpoint, which `benchmarks/random_llama.py` makes, the model is that one, in bfloat16, and vLLM compiles and captures
graphs, as it does unasked; that is for a GPU. Each answer has 32 tokens.

The sides run in turn. Engines are started once, which is measured by itself; several are in one process. Before each side, and
outside of its time, the cache of prefixes is emptied: no round reads what the round before left. What a round finds there of
its own is printed. Memory of tables is computed for Llama 3.1 8B and asked of the engine that runs here.

Needs an environment with vLLM (`.ci/vllm.sh` makes one), the extra `demo` and XQuAD, from the Hub or its cache.
"""
# ruff: noqa: E402

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# Read by vLLM when it is imported: one process, whose threads may be on any core.
for name, value in (
    ("VLLM_ENABLE_V1_MULTIPROCESSING", "0"),
    ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    ("VLLM_NO_USAGE_STATS", "1"),
    ("TQDM_DISABLE", "1"),
):
    os.environ.setdefault(name, value)

import torch
from lm_eval.evaluator import evaluate
from measuring import alternate, print_table
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_clas import CLASLM, MaskSet
from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.demo.demo_model import gemma
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.engine.row_sweep import RowSweep, load_rows
from lm_eval_clas.engine.rowed_vllm import RowedVLLM
from lm_eval_clas.engine.vllm_clas import VLLMCLAS
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.tuning.measuring import grid

LANGUAGES = ("es", "hi", "zh")
ALPHAS = (-8, -5, -4, -2, -1, 0, 1, 2, 4)
COMMON: dict[str, Any] = {"max_model_len": 2048, "distributed_executor_backend": "uni"}
ENGINE: dict[str, Any] = {
    **COMMON,
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 629145600,
    "max_num_batched_tokens": 512,
}
TOKENS = 32  # of each answer of a large model
# Two of these and a model of transformers are on one GPU; what has to be free is what one of them takes.
LARGE: dict[str, Any] = {
    **COMMON,
    "dtype": "bfloat16",
    "gpu_memory_utilization": 0.3,
    "kv_cache_memory_bytes": 6 << 30,
}


def answered(lm: Any, tasks: dict[str, Any], items: int) -> None:
    """Evaluates the tasks, so many items in all."""
    evaluate(lm, tasks, limit=items // len(tasks), bootstrap_iters=0)


class Side:
    """What is timed in one engine, which begins with an empty cache of prefixes.

    Args:
        lm: the engine.
        run: what is timed.
    """

    def __init__(self, lm: RowedVLLM, run: Callable[[], object]) -> None:
        self._lm, self._run = lm, run
        self._cached: list[int] = []
        self._generate, lm.model.generate = lm.model.generate, self._counting
        # An engine may be in several sides, each of which counts what it asks itself.
        self._counts = False

    def _counting(self, *arguments: Any, **named: Any) -> Any:
        outputs = self._generate(*arguments, **named)
        if self._counts:
            self._cached[-1] += sum(one.num_cached_tokens or 0 for one in outputs)
        return outputs

    def prepare(self) -> None:
        """Empties the cache."""
        if not self._lm.model.reset_prefix_cache():
            raise SystemExit("vLLM did not empty its cache of prefixes, so that a round would read the one before.")

    def __call__(self) -> None:
        self._cached.append(0)
        self._counts = True
        try:
            self._run()
        finally:
            self._counts = False

    def told(self) -> str:
        """Tokens that rounds found in the cache."""
        return ", ".join(map(str, sorted(set(self._cached))))


def swept(lm: RowedVLLM, masks: MaskSet, tasks: dict[str, Any], items: int) -> None:
    """All strengths, in one batch for each task."""
    settings = grid(masks, ALPHAS)
    sweep = RowSweep(lm, masks, settings)
    for name, task in tasks.items():
        with tempfile.TemporaryDirectory() as scratch:
            sweep.start(Path(scratch) / "journal.jsonl", lambda done, total: None)
            for sweep.setting in range(len(settings)):
                evaluate(sweep, {name: task}, limit=items // len(tasks), bootstrap_iters=0)


def emptied(side: Callable[[], object]) -> None:
    """Empties the cache of a side that has one."""
    if isinstance(side, Side):
        side.prepare()


def tell_cached(engines: dict[str, Side]) -> None:
    """Prints what rounds found in the cache."""
    for name, side in engines.items():
        print(f"tokens of prompts from the cache in a round of {name}: {side.told()}")


def separate(lm: VLLMCLAS, tasks: dict[str, Any], items: int) -> None:
    """A run for each strength, in the engine that is there."""
    for alpha in ALPHAS:
        lm.steer(alpha=alpha)
        answered(lm, tasks, items)


def tables(rows: int, neurons: int, layers: int, bytes_each: int) -> float:
    """Megabytes of the tables, with row 0."""
    return (1 + rows) * neurons * layers * bytes_each / 1e6


def in_transformers(model: str, dtype: str) -> dict[str, Any]:
    """The model for `hf` and `hf-clas`, loaded once for all of them."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device).eval()
    return {"pretrained": loaded, "tokenizer": AutoTokenizer.from_pretrained(model), "device": device}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="with a folder masks in it; without it, Gemma 3 270M")
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", default="8,16", help="of hf and hf-clas; without one, they do not run")
    parser.add_argument("--at-once", type=int, default=16, help="requests that vLLM runs at once, at most")
    parser.add_argument("--only", choices=["engines", "scoring", "sweep"], help="one of the three")
    options = parser.parse_args()
    quiet_libraries()
    large = options.checkpoint is not None
    engine = {**(LARGE if large else ENGINE), "max_num_seqs": options.at_once}
    model = str(options.checkpoint or gemma())
    masks = MaskSet.load(options.checkpoint / "masks" if large else "gemma-3-270m")
    sizes = [int(size) for size in options.batch_sizes.split(",") if size]
    tasks = load_tasks([f"clas_xquad_tune_{language}" for language in LANGUAGES], [str(shipped("tasks"))])
    if large:  # random weights end no answer
        for task in tasks.values():
            task.set_config("generation_kwargs", {"max_gen_toks": TOKENS}, update=True)
    run = partial(answered, tasks=tasks, items=options.items)
    sides: dict[str, Callable[[], object]]

    start = time.perf_counter()
    steered = VLLMCLAS(model, masks, -2.0, **engine)
    print(f"start-up of vllm-clas: {time.perf_counter() - start:.1f} s (Python and its libraries are there already)")
    (bytes_here,) = steered.model.collective_rpc("clas_memory")
    print(f"memory of tables, rows and counts here: {bytes_here / 1e6:.2f} MB ({len(steered.changes)} rows)")
    print(f"Llama 3.1 8B, 15 languages x 9 strengths, layers 24-29, bfloat16: {tables(15 * 9, 14336, 6, 2):.1f} MB, computed")

    if options.only in (None, "engines"):
        start = time.perf_counter()
        plain = RowedVLLM(model, tables=None, **engine)
        print(f"start-up of vllm: {time.perf_counter() - start:.1f} s")
        engines = {"vllm": Side(plain, partial(run, plain)), "vllm-clas": Side(steered, partial(run, steered))}
        sides = {**engines}
        loaded = in_transformers(model, engine["dtype"]) if sizes else {}
        for size in sizes:
            hf = {**loaded, "batch_size": size}
            sides[f"hf, batch {size}"] = partial(run, FastLM(scoring="stock", **hf))
            sides[f"hf-clas, batch {size}"] = partial(run, CLASLM(masks=masks, alpha=-2.0, **hf))
        measured = alternate(sides, options.rounds, before=emptied)
        tell_cached(engines)
        pairs = [("vllm-clas", "vllm"), *((side, "vllm-clas") for side in sides if "batch" in side)]
        print_table(f"XQuAD, {options.items} generated answers in {', '.join(LANGUAGES)}", measured, pairs)
    if options.only in (None, "scoring"):
        scored = load_tasks([f"clas_xnli_dev_{language}" for language in LANGUAGES], [str(shipped("tasks"))])
        score = partial(answered, tasks=scored, items=options.items)
        engines = {"vllm-clas": Side(steered, partial(score, steered))}
        sides = {**engines}
        loaded = in_transformers(model, engine["dtype"])
        for size in sizes:
            own = CLASLM(masks=masks, alpha=-2.0, **loaded, batch_size=size)
            sides[f"hf-clas, batch {size}"] = partial(score, own)
        measured = alternate(sides, options.rounds, before=emptied)
        tell_cached(engines)
        pairs = [("vllm-clas", side) for side in sides if "batch" in side]
        print_table(f"XNLI, {options.items} items in {', '.join(LANGUAGES)}", measured, pairs)
    if options.only in (None, "sweep"):
        rowed = load_rows(model, engine, masks, grid(masks, ALPHAS))
        (bytes_here,) = rowed.model.collective_rpc("clas_memory")
        print(f"memory of tables, rows and counts of the sweep: {bytes_here / 1e6:.2f} MB ({len(rowed.changes)} rows)")
        engines = {
            "one sweep": Side(rowed, partial(swept, rowed, masks, tasks, options.items)),
            "nine runs": Side(steered, partial(separate, steered, tasks, options.items)),
        }
        measured = alternate(engines, options.rounds, warmup=0, before=emptied)
        tell_cached(engines)
        print_table(f"XQuAD, {options.items} items under {len(ALPHAS)} strengths", measured, [("nine runs", "one sweep")])


if __name__ == "__main__":
    main()
