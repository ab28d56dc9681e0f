"""What steering costs in a whole evaluation. Targets: within 2 % of no steering, and not slower than `steered`.

Gemma 3 270M answers real XNLI (log-likelihoods) and XQuAD (generation) in Hindi through `lm_eval.simple_evaluate`, in
three ways:

- `hf-clas`, off: alpha 0, so nothing is hooked and requests are not routed by language;
- `hf-clas`, alpha 1: the same with the shipped masks, steering the three bridge layers;
- `steered`: the harness's own model for steering vectors, which adds a zero vector after the same three layers.

Each has modules of its own over the same weights: where weights lie in memory would make a difference of its own. A run is
timed as a whole, from building the requests to the scores; only loading the model and reading the data are left out. All
three score with HFLM's own code (`scoring=stock` for `hf-clas`, and `steered` knows no other), so steering alone differs.
Steered answers would be longer or shorter than others, and so cheaper or dearer: each answer is therefore exactly as many
tokens as the next.

    python benchmarks/steering.py [--items N] [--rounds N]

Needs the extra `demo` and both data sets, from the Hub or its cache.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.models.hf_steered import SteeredModel
from lm_eval.tasks import TaskManager
from measuring import alternate, print_table
from transformers import AutoModelForCausalLM, PreTrainedModel

from lm_eval_clas import CLASLM, MaskSet
from lm_eval_clas.demo_model import gemma
from lm_eval_clas.files import shipped
from lm_eval_clas.logs import quiet_libraries

MASKS = "gemma-3-270m"
TASKS = {"XNLI": "clas_xnli_dev_hi", "XQuAD": "clas_xquad_hi"}
BATCH_SIZE = 8
TOKENS = 8
SAME_LENGTH = {"until": ["no text ends like this"], "min_new_tokens": TOKENS, "max_gen_toks": TOKENS}

Models = dict[str, LM]


def load_models() -> Models:
    """The three models, by name."""
    model = AutoModelForCausalLM.from_pretrained(gemma())

    def modules() -> PreTrainedModel:
        return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})

    clas = partial(CLASLM, masks=MASKS, scoring="stock", batch_size=BATCH_SIZE)
    with tempfile.TemporaryDirectory() as scratch:
        vectors = Path(scratch) / "zero.pt"
        save_zero_vectors(vectors)
        steered = SteeredModel(modules(), steer_path=str(vectors), batch_size=BATCH_SIZE)
    return {
        "hf-clas, off": clas(modules(), alpha=0),
        "hf-clas, alpha 1": clas(modules(), alpha=1),
        "steered, zero vector": steered,
    }


def save_zero_vectors(path: Path) -> None:
    """The file of `steered` that adds a zero vector to the output of each bridge layer."""
    masks = MaskSet.load(MASKS)
    zero = {
        "steering_vector": torch.zeros(masks.config.model.fingerprint.hidden_size),
        "steering_coefficient": 0.0,
        "action": "add",
    }
    torch.save({f"layers.{layer}": zero for layer in masks.bridge_layers}, path)


def runs(models: Models, task: str, items: int) -> dict[str, Callable[[], object]]:
    """One evaluation by each model; the data is read here."""
    manager = TaskManager(include_path=str(shipped("tasks")), include_defaults=False)
    loaded = manager.load([task])["tasks"][task]
    evaluate = partial(
        simple_evaluate, tasks=[loaded], task_manager=manager, limit=items, gen_kwargs=SAME_LENGTH, bootstrap_iters=0
    )
    return {side: partial(evaluate, model=model) for side, model in models.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=4, help="rows of each data set (default: 4)")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()

    quiet_libraries()
    models = load_models()
    off, clas, steered = models
    for name, task in TASKS.items():
        measured = alternate(runs(models, task, arguments.items), arguments.rounds)
        title = f"Steering Gemma 3 270M: {arguments.items} rows of {name} ({task})"
        print_table(title, measured, [(clas, off), (clas, steered)])


if __name__ == "__main__":
    main()
