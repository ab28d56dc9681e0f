"""What fast scoring saves against the harness's own. Targets: 2.2 times faster on single-token answers, 1.5 times on the
harness's own `xnli_en` prompts, and at most half the peak memory at batch 16.

Gemma 3 270M scores real XNLI items in two ways, `scoring=fast` and `scoring=stock` (HFLM's own code), on the same requests:

- single-token answers: `clas_xnli_dev_en`, a prompt and the answers Yes, Maybe and No;
- `xnli_en` as the harness has it: an empty context, and three whole sentences that start alike.

Loading and tokenising the data are left out, tokenising the requests is not. Peak memory is that of a process of its own for
each side, model included.

    python benchmarks/scoring.py [--items N] [--rounds N] [--batch-size N]

Needs the extra `demo` and XNLI, from the Hub or its cache.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from functools import partial
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from measuring import alternate, print_table

from lm_eval_clas import CLASLM
from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.demo.demo_model import gemma
from lm_eval_clas.disk.files import shipped

TASKS = {"single-token answers": "clas_xnli_dev_en", "the harness's own xnli_en": "xnli_en"}
SIDES = ("fast", "stock")


def load(side: str, batch_size: int) -> CLASLM:
    """Gemma without masks, which is a plain model of the harness but for the scoring."""
    return CLASLM(str(gemma()), device="cpu", batch_size=batch_size, scoring=side)


def requests(name: str, items: int) -> list[Instance]:
    """A task's requests, as the harness builds them."""
    task: Any = TaskManager(include_path=str(shipped("tasks"))).load([name])["tasks"][name]
    task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(limit=items)
    return list(task.instances)


def check(answers: dict[str, Any]) -> str:
    """How far apart the two sides' answers are."""
    pairs = list(zip(answers["fast"], answers["stock"], strict=True))
    far = max(abs(fast[0] - stock[0]) / abs(stock[0]) for fast, stock in pairs)
    flags = sum(fast[1] != stock[1] for fast, stock in pairs)
    return f"{len(pairs)} requests: log-likelihoods at most {far:.1e} apart (relative), {flags} greedy flags differ"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "TASK"), help="print the peak memory in MiB of one side, and end")
    options = parser.parse_args()
    quiet_libraries()
    if options.peak:
        side, task = options.peak
        load(side, options.batch_size).loglikelihood(requests(task, options.items), disable_tqdm=True)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    # First, since a process starts with the peak of the one that starts it.
    for title, name in TASKS.items():
        peaks = {}
        for side in SIDES:
            size = ["--items", str(options.items), "--batch-size", str(options.batch_size)]
            command = [sys.executable, __file__, *size, "--peak", side, name]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            peaks[side] = [float(output.split()[-1])]
        print_table(f"Peak memory, {title}", peaks, [("fast", "stock")], unit="MiB")
    models = {side: load(side, options.batch_size) for side in SIDES}
    for title, name in TASKS.items():
        asked = requests(name, options.items)
        print(check({side: model.loglikelihood(asked, disable_tqdm=True) for side, model in models.items()}))
        runs = {side: partial(model.loglikelihood, asked, disable_tqdm=True) for side, model in models.items()}
        seconds = alternate(runs, options.rounds, warmup=0)
        print_table(f"{title}, {options.items} items, batch {options.batch_size}", seconds, [("stock", "fast")])


if __name__ == "__main__":
    main()
