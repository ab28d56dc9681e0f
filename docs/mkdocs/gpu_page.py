"""The tables of docs/paper-on-a-gpu.md, from the recipes and from the shapes that are on file.

python docs/mkdocs/gpu_page.py            # writes them into the page
python docs/mkdocs/gpu_page.py --check    # exit 1 if the page has others
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from lm_eval_clas.study.plan.known_sizes import known_sizes
from lm_eval_clas.study.plan.making import plan_study
from lm_eval_clas.study.plan.told_plan import gpu_rows
from lm_eval_clas.study.recipe import StudyRecipe

PAGE = Path(__file__).resolve().parents[1] / "paper-on-a-gpu.md"
RECIPES = ("llama-3.1-8b", "qwen-2.5-7b", "llama-3.1-8b-wide", "qwen-2.5-7b-wide")
MODELS = ("llama-3.1-8b", "qwen-2.5-7b")
_GIB = 2**30


def recipe_table() -> str:
    """What each recipe does, row by row."""
    recipes = [StudyRecipe.load(name) for name in RECIPES]
    rows: list[tuple[str, Callable[[StudyRecipe], str]]] = [
        ("Hub id", lambda one: f"`{one.model}`"),
        ("model arguments", lambda one: f"`{one.model_args}`"),
        ("generates in", lambda one: {"hf": "`hf-clas`", "vllm": "vLLM"}[one.engine]),
        ("profiling texts", lambda one: f"{one.profile.samples} of each corpus"),
        ("bridge layers, counted from 0", lambda one: f"{one.masks.bridge} of {known_sizes().models[one.model].shape.layers}"),
        ("beta, gamma", lambda one: f"{one.masks.beta:g}, {one.masks.gamma:g}"),
        ("alphas", _alphas),
        ("data", lambda one: "; ".join(_data(one))),
        ("runs", lambda one: ", ".join(f"`{label}`" for label in one.evaluate.runs)),
        ("batch size", lambda one: str(one.evaluate.batch_size)),
    ]
    return _table(["", *(f"`{name}`" for name in RECIPES)], [[label, *_briefly(map(cell, recipes))] for label, cell in rows])


def _briefly(cells: Iterable[str]) -> list[str]:
    """Long cells that are as the one before them say so."""
    found = list(cells)
    pairs = zip(found, ["", *found], strict=False)
    return ["the same" if cell == before and len(cell) > len("`meta-llama/Llama-3.1-8B`") else cell for cell, before in pairs]


def _alphas(recipe: StudyRecipe) -> str:
    if not any(part.tune for part in recipe.parts.values()):
        fixed = dict.fromkeys(f"{options['alpha']:g}" for options in recipe.evaluate.runs.values() if "alpha" in options)
        return f"fixed: {', '.join(fixed)}"
    step = recipe.tune
    shared = ", one for all languages of a data set" if step.shared else ""
    return f"{', '.join(f'{one:g}' for one in step.alphas)}, tuned on {step.limit} items a language{shared}"


def _data(recipe: StudyRecipe) -> list[str]:
    found = []
    for part in recipe.parts.values():
        tasks, unknown = known_sizes().find_limited(part.limited())
        assert not unknown, unknown
        families: dict[str, list[int]] = {}
        for called, family in known_sizes().families.items():
            items = [count for one, _, _, count in tasks if one is family]
            families |= {called: items} if items else {}
        for family, items in families.items():
            span = f"{items[0]:,}" if len(set(items)) == 1 else f"{min(items):,} to {max(items):,}"
            found.append(f"`{family}`: {span} items in {len(items)} languages")
    return found


def memory_table() -> str:
    """What the models take, computed from their shapes."""
    batch, tokens, languages, chunk = 16, 1024, 15, 64
    shapes = [known_sizes().models[StudyRecipe.load(name).model].shape for name in MODELS]
    bridges = [StudyRecipe.load(name).masks.bridge for name in MODELS]
    steered = [int(last) - int(first) + 1 for first, last in (bridge.split("-") for bridge in bridges)]
    rows = [
        ["layers x hidden size x neurons", *(f"{one.layers} x {one.hidden_size} x {one.neurons}" for one in shapes)],
        ["key-value heads x their width", *(f"{one.kv_heads} x {one.head_size}" for one in shapes)],
        ["vocabulary", *(f"{one.vocabulary:,}" for one in shapes)],
        ["parameters", *(f"{one.parameters:,.0f}" for one in shapes)],
        ["weights in bf16 = parameters x 2 bytes", *(f"{one.weights / _GIB:.1f} GiB" for one in shapes)],
        [
            "key-value cache per token = layers x 2 x heads x width x 2 bytes",
            *(f"{one.cache_per_token / 1024:.0f} KiB" for one in shapes),
        ],
        [
            f"the same for a batch of {batch} x {tokens:,} tokens",
            *(f"{one.cache_per_token * batch * tokens / _GIB:.1f} GiB" for one in shapes),
        ],
        [
            f"logits of a batch of {batch} x {tokens:,} tokens, all positions, float32",
            *(f"{4 * one.vocabulary * batch * tokens / _GIB:.1f} GiB" for one in shapes),
        ],
        ["logits as `hf-clas` computes them, in chunks, float32", *(f"{chunk} MiB" for _ in shapes)],
        [
            f"masks on disk, {languages} languages = languages x layers x neurons / 8",
            *(f"{languages * one.layers * one.neurons / 8 / 2**20:.1f} MiB" for one in shapes),
        ],
        [
            "factors on the GPU for one language, bf16, bridge layers only",
            *(f"{2 * count * one.neurons / 1024:.0f} KiB" for one, count in zip(shapes, steered, strict=True)),
        ],
    ]
    return _table(["", "Llama 3.1 8B", "Qwen 2.5 7B"], rows, numbers=(1, 2))


def time_table() -> str:
    """What `--plan` says of GPUs, by recipe."""
    rows = []
    for name in RECIPES:
        plan = plan_study(StudyRecipe.load(name), {})
        rows += [[f"`{name}`", *row] for row in gpu_rows(plan.gpus)]
    return _table(["recipe", "GPU", "with `hf`", "generating in vLLM", "memory with `hf`"], rows, numbers=(2, 3))


def _table(head: list[str], rows: list[list[str]], numbers: Collection[int] = ()) -> str:
    lines = [head, ["---:" if column in numbers else "---" for column in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("|  |", "| |")


TABLES = {"recipes": recipe_table, "memory": memory_table, "times": time_table}


def page(text: str) -> str:
    """The page with the tables of now in their places."""
    for name, table in TABLES.items():
        place = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end of table -->)", re.DOTALL)
        parts = place.split(text)
        assert len(parts) == 4, f"the page has no place for the table {name}"  # before it, its two ends, after it
        text = parts[0] + parts[1] + table() + "\n" + parts[2] + parts[3]
    return text


def main() -> int:
    """Writes the page, or checks it."""
    before = PAGE.read_text(encoding="utf-8")
    made = page(before)
    if "--check" in sys.argv[1:]:
        return int(made != before)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
