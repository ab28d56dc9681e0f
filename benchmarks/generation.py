"""What sharing prefixes saves when a model generates. Targets on two cores, Gemma 3 270M, real XQuAD: 1.8 times faster than
the harness's `hf` at its best batch size, and a nine-strength sweep 3 times faster than nine runs.

- `hf` at several batch sizes against `hf-clas` at the largest, both without masks. Loading and tokenising the data are left
  out, tokenising the requests is not. What each side runs is told in tokens, and how many answers differ.
- A sweep against nine runs of `hf-clas`, and with `--stock-runs` nine with the harness's generation; each with its loads.

The limit: each token of an answer goes through all layers and the head alone, whatever its prompt shares.

    python benchmarks/generation.py [--items N] [--rounds N] [--batch-sizes N,N] [--language CODE] [--only hf|sweep]

Needs the extra `demo` and XQuAD, from the Hub or its cache.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from measuring import alternate, print_table
from sweep import BATCH, separate, swept

from lm_eval_clas import CLASLM, MaskSet
from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.demo.demo_model import gemma
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.harness.task_loading import load_tasks


class Work:
    """Counts the passes of a model, and the tokens that they run, of prompts and of answers."""

    def __init__(self, model: Any) -> None:
        self.clear()
        model.get_input_embeddings().register_forward_hook(self._count)

    def clear(self) -> None:
        self.passes = self.prompts = self.answers = 0

    def _count(self, module: Any, args: Any, output: Any) -> None:
        rows, tokens = output.shape[:2]
        self.passes += 1
        if tokens > 1:
            self.prompts += rows * tokens
        else:
            self.answers += rows

    def __str__(self) -> str:
        return f"{self.passes} passes, {self.prompts} tokens of prompts and {self.answers} of answers (padding counts)"


def requests(name: str, items: int) -> list[Instance]:
    """A task's requests, as the harness builds them."""
    task: Any = load_tasks([name], [str(shipped("tasks"))])[name]
    task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(limit=items)
    return list(task.instances)


def compare_with_hf(options: argparse.Namespace) -> None:
    """`hf` at several batch sizes, and `hf-clas`."""
    asked = requests(f"clas_xquad_{options.language}", options.items)
    largest = max(options.batch_sizes)
    common: dict[str, Any] = {"pretrained": str(gemma()), "device": "cpu", "dtype": "float32"}
    models: dict[str, HFLM] = {f"hf, batch {size}": HFLM(**common, batch_size=size) for size in options.batch_sizes}
    models[f"hf-clas, batch {largest}"] = CLASLM(**common, batch_size=largest)
    *stock, fast = models
    answers = {}
    for side, model in models.items():  # the warm-up, too
        work = Work(model.model)
        answers[side] = model.generate_until(asked, disable_tqdm=True)
        print(f"{side}: {work}")
    for side in stock:
        print(f"{sum(one != other for one, other in zip(answers[fast], answers[side], strict=True))} answers unlike {side}")
    runs = {side: partial(model.generate_until, asked, disable_tqdm=True) for side, model in models.items()}
    seconds = alternate(runs, options.rounds, warmup=0)
    title = f"Gemma 3 270M in float32, clas_xquad_{options.language}, {options.items} items"
    print_table(title, seconds, [(side, fast) for side in stock])


def compare_sweep(options: argparse.Namespace) -> None:
    """Nine strengths in one sweep, and nine runs; each with its loads, as in `sweep.py`."""
    name = f"clas_xquad_tune_{options.language}"
    task = load_tasks([name], [str(shipped("tasks"))])[name]
    arguments = (gemma(), MaskSet.load("gemma-3-270m"), task, options.items)
    runs = {"sweep": partial(swept, *arguments), "9 runs of hf-clas": partial(separate, *arguments, "fast")}
    if options.stock_runs:
        runs["9 runs with stock generation"] = partial(separate, *arguments, "stock")
    seconds = alternate(runs, options.rounds, warmup=0)
    title = f"{name}, 9 alphas, {options.items} items, batch {BATCH}"
    print_table(title, seconds, [(side, "sweep") for side in runs if side != "sweep"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=lambda text: [int(size) for size in text.split(",")], default=[4, 8, 16, 32])
    parser.add_argument("--language", default="hi")
    parser.add_argument("--only", choices=("hf", "sweep"), help="one table")
    parser.add_argument("--stock-runs", action="store_true", help="compare the sweep with nine runs of stock generation, too")
    options = parser.parse_args()
    quiet_libraries()
    if options.only != "sweep":
        compare_with_hf(options)
    if options.only != "hf":
        compare_sweep(options)


if __name__ == "__main__":
    main()
