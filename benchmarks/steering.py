"""What steering costs in a whole evaluation. Targets: within 2 % of no steering, not slower than `steered`, witness within 1 %.

Gemma 3 270M answers real XNLI (log-likelihoods) and XQuAD (generation) in Hindi, in four ways, compared two at a time:

- `hf-clas`, off: alpha 0, so nothing is hooked and requests are not routed by language;
- `hf-clas`, alpha 1: the same with the shipped masks, steering the three bridge layers;
- `steered`: the harness's own model for steering vectors, which adds a zero vector after the same three layers;
- bare hooks: `hf-clas`, off, with three hooks that multiply by the same factors as alpha 1 and do nothing else. What alpha 1
  takes more is the witness (whose language it is, counting positions) and routing by language.

The witness's parts are also timed by themselves: the check when a steerer attaches, once, and what each call of a hook takes
beyond the multiplication, as a share of a run.

Each has modules of its own over the same weights: where weights lie in memory would make a difference of its own. A run is
`lm_eval.evaluator.evaluate` as a whole, from building the requests to the scores; what `lm_eval` does around it (reading the
data, loading the model, and listing the environment) is the same for all and left out. All score with HFLM's own code
(`scoring=stock` for `hf-clas`, and `steered` knows no other), so steering alone differs. Steered answers would be longer or
shorter than others, and so cheaper or dearer: each answer is therefore exactly as many tokens as the next.

    python benchmarks/steering.py [--items N] [--rounds N] [--only XNLI|XQuAD] [--against SIDE]

Needs the extra `demo` and both data sets, from the Hub or its cache.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from timeit import timeit
from typing import Any

import torch
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.models.hf_steered import SteeredModel
from measuring import alternate, print_table
from transformers import AutoModelForCausalLM, PreTrainedModel

from lm_eval_clas import CLASLM, ActivationSteerer, MaskSet
from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.demo.demo_model import gemma
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.options import SteeringOptions

MASKS = "gemma-3-270m"
TASKS = {"XNLI": "clas_xnli_dev_hi", "XQuAD": "clas_xquad_hi"}
BATCH_SIZE = 8
TOKENS = 8
SAME_LENGTH = {"until": ["no text ends like this"], "min_new_tokens": TOKENS, "max_gen_toks": TOKENS}


def clas(model: PreTrainedModel, alpha: float) -> LM:
    """`hf-clas` with the shipped masks."""
    return CLASLM(modules_of(model), masks=MASKS, alpha=alpha, scoring="stock", batch_size=BATCH_SIZE)


def steered(model: PreTrainedModel) -> LM:
    """The harness's `steered` with zero vectors."""
    with tempfile.TemporaryDirectory() as scratch:
        vectors = Path(scratch) / "zero.pt"
        save_zero_vectors(vectors)
        return SteeredModel(modules_of(model), steer_path=str(vectors), batch_size=BATCH_SIZE)


def bare_hooks(model: PreTrainedModel) -> LM:
    """`hf-clas`, off, and hooks that steer as `hf-clas` does for Hindi, with no witness."""
    lm = clas(model, 0)
    for module, factors in bare_places(lm.model):
        module.register_forward_pre_hook(lambda module, args, factors=factors: (args[0] * factors,))
    return lm


def bare_places(model: PreTrainedModel) -> list[tuple[torch.nn.Module, torch.Tensor]]:
    """The bridge projections with their factors for Hindi."""
    masks = MaskSet.load(MASKS)
    factors = torch.from_numpy(intervention_in(masks, SteeringOptions.parse(masks, alpha=1), "hi").factors)
    projections = find_projections(model)
    return [(projections[layer].module, factors[layer].to(model.dtype)) for layer in masks.bridge_layers]


def hook_calls(lm: LM, run: Callable[[], None]) -> int:
    """How often the bridge projections are called in a run."""
    calls: list[int] = []
    handles = [module.register_forward_hook(lambda *_: calls.append(1)) for module, _ in bare_places(lm.model)]
    run()
    for handle in handles:
        handle.remove()
    return len(calls)


def print_witness(model: PreTrainedModel, seconds: float, calls: int, title: str) -> None:
    """What the witness takes of a run of that many seconds, in which hooks are called that often."""
    module, factors = bare_places(model)[0]
    h = torch.ones(1, 1, len(factors), dtype=model.dtype)
    masks = MaskSet.load(MASKS)
    steerer = ActivationSteerer(model, masks, alpha=1)
    (hook,) = module._forward_pre_hooks.values()
    times = 20_000
    with steerer.language("hi"):
        witnessed = timeit(lambda: hook(module, (h,)), number=times) / times
    bare = timeit(lambda: (h * factors,), number=times) / times
    steerer.close()
    attaching = min(timeit(lambda: ActivationSteerer(model, masks, alpha=1).close(), number=1) for _ in range(5))
    each = witnessed - bare
    print(
        f"{title}: the witness takes {each * 1e6:.1f} microseconds a call beyond the multiplication, {calls} calls, "
        f"{each * calls / seconds:.3%} of a run of {seconds:.1f} s; attaching, once, {attaching:.3f} s."
    )


def modules_of(model: PreTrainedModel) -> PreTrainedModel:
    """Modules of its own, with hooks of its own, over the same weights."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


def save_zero_vectors(path: Path) -> None:
    """The file of `steered` that adds a zero vector to the output of each bridge layer."""
    masks = MaskSet.load(MASKS)
    zero = {
        "steering_vector": torch.zeros(masks.config.model.fingerprint.hidden_size),
        "steering_coefficient": 0.0,
        "action": "add",
    }
    torch.save({f"layers.{layer}": zero for layer in masks.bridge_layers}, path)


def run(lm: LM, name: str, task: Any, items: int) -> None:
    """One evaluation."""
    evaluate(lm, {name: task}, limit=items, bootstrap_iters=0)


def load_task(name: str) -> Any:
    """The harness's task object, with answers of one length."""
    task = load_tasks([name], [str(shipped("tasks"))])[name]
    if task.OUTPUT_TYPE == "generate_until":
        task.set_config(key="generation_kwargs", value=SAME_LENGTH, update=True)
    return task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=8, help="rows of each data set (default: 8)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=TASKS, help="one of the two data sets")
    parser.add_argument("--against", help="one of the other sides, such as 'bare hooks'")
    arguments = parser.parse_args()

    quiet_libraries()
    model = AutoModelForCausalLM.from_pretrained(gemma())
    on = "hf-clas, alpha 1"
    others: dict[str, Callable[[], LM]] = {
        "hf-clas, off": partial(clas, model, 0),
        "steered, zero vector": partial(steered, model),
    }
    others["bare hooks"] = partial(bare_hooks, model)
    for other, load in others.items():
        if arguments.against not in (None, other):
            continue
        models = {on: clas(model, 1), other: load()}
        for data, name in TASKS.items():
            if arguments.only in (None, data):
                task = load_task(name)
                runs = {side: partial(run, lm, name, task, arguments.items) for side, lm in models.items()}
                measured = alternate(runs, arguments.rounds)
                title = f"Steering Gemma 3 270M: {arguments.items} rows of {data} ({name})"
                print_table(title, measured, [(on, other)])
                if other == "bare hooks":
                    calls = hook_calls(models[on], partial(run, models[on], name, task, arguments.items))
                    print_witness(modules_of(model), statistics.median(measured[on]), calls, title)


if __name__ == "__main__":
    main()
