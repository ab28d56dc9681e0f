"""How far apart log-likelihoods are in bfloat16 and in float32: `hf` at several batch sizes, `hf-clas`, and what is exact.

Gemma 3 270M answers two kinds of requests: one-token continuations in Hindi (the choices of `clas_xnli_dev_hi`), and whole
sentences of several tokens after an empty context (the harness's own `xnli_es`). Differences are in nats, at most and on
average:

- in bfloat16: `hf` against itself at other batch sizes, `hf-clas` (without masks) against `hf`, and both against float32;
- in float32: `hf-clas` against `hf`, in nats, relative, and by token, and how far float32's log-softmax over the vocabulary
  is from float64's on the same logits, for `hf` (log_softmax) and for `hf-clas` (the logit minus logsumexp).

    python benchmarks/bfloat16.py [--items N] [--batch-sizes 1,8,16]

Needs the extra `demo`, and XNLI from the Hub or its cache.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from measuring import environment
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lm_eval_clas import CLASLM
from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.demo.demo_model import gemma
from lm_eval_clas.disk.files import shipped

TASKS = {"one-token continuations in Hindi": "clas_xnli_dev_hi", "whole sentences, xnli_es": "xnli_es"}
SIDES = {"hf": HFLM, "hf-clas": CLASLM}


def asked(name: str, items: int, tokenizer: Any) -> list[Instance]:
    """So many of a task's requests; of choices that are single tokens, only those."""
    task: Any = TaskManager(include_path=str(shipped("tasks"))).load([name])["tasks"][name]
    task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(limit=items)
    lengths = [len(tokenizer.encode(one.args[1], add_special_tokens=False)) for one in task.instances]
    with_context = bool(task.instances[0].args[0])
    found = [one for one, length in zip(task.instances, lengths, strict=True) if not with_context or length == 1]
    return found[:items]


def answers(side: str, dtype: str, batch: int, requests: Sequence[Sequence[Instance]]) -> list[NDArray[np.float64]]:
    """The log-likelihoods of each list of requests."""
    lm = SIDES[side](str(gemma()), device="cpu", dtype=dtype, batch_size=batch)
    found = [np.array([one for one, _ in lm.loglikelihood(list(some), disable_tqdm=True)]) for some in requests]
    del lm
    gc.collect()
    return found


def softmax_errors(requests: Sequence[Instance]) -> tuple[float, float]:
    """The mean error by token of float32's log-softmax and of logit minus logsumexp, on the model's float32 logits."""
    lm = HFLM(str(gemma()), device="cpu", dtype="float32", batch_size=1)
    errors: list[list[float]] = [[], []]
    for request in requests:
        tokens = torch.tensor([lm.tok_encode("".join(request.args))])
        with torch.no_grad():
            logits = lm.model(tokens).logits[0, :-1]
        wanted = tokens[0, 1:, None]
        exact = logits.double().log_softmax(-1).gather(-1, wanted)
        both = logits.log_softmax(-1).gather(-1, wanted), logits.gather(-1, wanted) - logits.logsumexp(-1, keepdim=True)
        for found, of_side in zip(both, errors, strict=True):
            of_side += (found.double() - exact).abs().flatten().tolist()
    return float(np.mean(errors[0])), float(np.mean(errors[1]))


def _told(side: tuple[str, int]) -> str:
    return f"{side[0]}, batch {side[1]}"


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[str, str]:
    differences = np.abs(one - other)
    return f"{differences.max():.2f}", f"{differences.mean():.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--batch-sizes", default="1,8,16")
    options = parser.parse_args()
    quiet_libraries()
    batches = [int(one) for one in options.batch_sizes.split(",")]
    console = Console(width=120, highlight=False)
    tokenizer = HFLM(str(gemma()), device="cpu").tokenizer
    requests = [asked(name, options.items, tokenizer) for name in TASKS.values()]
    exact, ours = (answers(side, "float32", 8, requests) for side in SIDES)
    measured = {(side, size): answers(side, "bfloat16", size, requests) for side in SIDES for size in batches}
    for kind, title in enumerate(TASKS):
        told = f"{title}: {len(requests[kind])} requests, nats"
        table = Table("bfloat16", "at most", "mean", title=told, title_justify="left")
        pairs = [(("hf", one), ("hf", other)) for at, one in enumerate(batches) for other in batches[at + 1 :]]
        pairs += [(("hf-clas", size), ("hf", size)) for size in batches]
        for one, other in pairs:
            table.add_row(f"{_told(one)}, from {_told(other)}", *_apart(measured[one][kind], measured[other][kind]))
        for one in measured:
            table.add_row(f"{_told(one)}, from hf in float32", *_apart(measured[one][kind], exact[kind]))
        console.print(table)
        apart = np.abs(ours[kind] - exact[kind])
        tokens = [len(tokenizer.encode(one.args[1], add_special_tokens=False)) for one in requests[kind]]
        console.print(
            f"float32: hf-clas from hf at most {apart.max():.1e} nats, {(apart / np.abs(exact[kind])).max():.1e} relative, "
            f"{(apart / tokens).max():.1e} by token ({min(tokens)} to {max(tokens)} tokens each)"
        )
        log_softmax, logsumexp = softmax_errors(requests[kind])
        console.print(
            f"float32 from float64 on the same logits, mean by token: log_softmax (hf) {log_softmax:.1e}, logit minus "
            f"logsumexp (hf-clas) {logsumexp:.1e}\n"
        )
    console.print(environment(), style="dim")


if __name__ == "__main__":
    main()
