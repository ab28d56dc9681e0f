"""What tuning in one load saves against a run for each strength. Targets for 9 alphas on Gemma 3 270M, bridge 13-15: 2.2
times faster than 9 runs of `hf-clas` with fast scoring, 5 times faster than with stock scoring. On a 32-layer model of
Llama's shape, bridge 24-29: 2.6 times with fast scoring on both sides, where 3 is the limit: 24 of 32 layers run once, not
nine times, and 9 / (24/32 + 9 * 8/32) = 3.

Real XNLI in Hindi, single answers; with `--only generation` real XQuAD in Hindi instead, where decoding is ordinary and costs
the same on both sides, so that only the prompts are saved. A separate run loads the model and evaluates the task; what
starting Python and reading the data take would come on top. The sweep loads the model once, evaluates the task under all
strengths, and checks its first batch against a full pass.

    python benchmarks/sweep.py [--items N] [--rounds N]

Needs the extra `demo` and XNLI, from the Hub or its cache.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lm_eval.evaluator import evaluate
from measuring import alternate, print_table
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lm_eval_clas import CLASLM, MaskSet, ParallelInputBuilder, profile
from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.demo.demo_model import gemma
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.tuning.measuring import grid

SCORED, GENERATED = "clas_xnli_tune_hi", "clas_xquad_tune_hi"
ALPHAS = (-8, -5, -4, -2, -1, 0, 1, 2, 4)
BATCH = 16


def swept(model: Path, masks: MaskSet, task: Any, items: int) -> None:
    """One load, all strengths."""
    settings = grid(masks, ALPHAS)
    lm = FastLM(str(model), device="cpu", batch_size=BATCH)
    sweep = Sweep(lm, masks, settings)
    with tempfile.TemporaryDirectory() as scratch:
        sweep.start(Path(scratch) / "journal.jsonl", lambda done, total: None)
        for sweep.setting in range(len(settings)):
            evaluate(sweep, {task.config.task: task}, limit=items, bootstrap_iters=0)


def separate(model: Path, masks: MaskSet, task: Any, items: int, scoring: str) -> None:
    """A load and a run for each strength."""
    for alpha in ALPHAS:
        lm = CLASLM(str(model), masks=masks, alpha=alpha, scoring=scoring, device="cpu", batch_size=BATCH)
        evaluate(lm, {task.config.task: task}, limit=items, bootstrap_iters=0)


def llama_shaped(folder: Path) -> MaskSet:
    """Saves a model of 32 layers with random weights, and returns masks for it with the paper's bridge layers."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(gemma())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1792,
        num_hidden_layers=32,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    texts = ParallelInputBuilder("mini", ["en", "hi", "de"], 4).build()
    return MaskSet.from_profile(profile(model, tokenizer, texts, name="llama-shaped"), bridge="24-29")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("gemma", "llama", "generation"), help="one table; generation is only here")
    options = parser.parse_args()
    quiet_libraries()
    name = GENERATED if options.only == "generation" else SCORED
    task = load_tasks([name], [str(shipped("tasks"))])[name]
    size = f"{name}, 9 alphas, {options.items} items, batch {BATCH}"
    if options.only != "llama":
        arguments = (gemma(), MaskSet.load("gemma-3-270m"), task, options.items)
        runs = {
            "sweep": partial(swept, *arguments),
            "9 runs, fast": partial(separate, *arguments, "fast"),
            "9 runs, stock": partial(separate, *arguments, "stock"),
        }
        if options.only == "generation":
            del runs["9 runs, stock"]  # scoring has no part in it
        seconds = alternate(runs, options.rounds, warmup=0)
        pairs = [(side, "sweep") for side in runs if side != "sweep"]
        print_table(f"Gemma 3 270M, bridge 13-15 of 18; {size}", seconds, pairs)
    if options.only in (None, "llama"):
        with tempfile.TemporaryDirectory() as folder:
            arguments = (Path(folder), llama_shaped(Path(folder)), task, options.items)
            runs = {"sweep": partial(swept, *arguments), "9 runs, fast": partial(separate, *arguments, "fast")}
            seconds = alternate(runs, options.rounds, warmup=0)
            print_table(f"32 layers of Llama's shape, bridge 24-29; {size}", seconds, [("9 runs, fast", "sweep")])


if __name__ == "__main__":
    main()
