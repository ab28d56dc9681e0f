"""What the first position of a text, where models keep an attention sink, does to a model's profile.

Causal models give a position the same activations whatever follows it. So a profile that keeps the first one is one that
skips it, plus the activations of the first tokens alone, and each text runs through the model once.

    python benchmarks/first_token.py MODEL [--corpus CORPUS] [--languages CODES] [--samples N]

MODEL is a Hub id or a path. Prints how large the hidden state of the first position is beside the others', and how many
neurons change their category, and the bridge its layers, when it is left out; beside it, when the second one is. The
categories are those of `clas masks` without options. Where the tokenizer puts a special token first, nothing can change, and
the program says that.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from measuring import environment
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_clas import ParallelInputBuilder, Profile, categorize, profile, select_bridge_layers
from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.decoder.below_head import decoder_of
from lm_eval_clas.decoder.text_batches import device_of, text_batches
from lm_eval_clas.neurons.activity import Statistic
from lm_eval_clas.neurons.categories import CATEGORIES, category_shares
from lm_eval_clas.texts.corpora import ParallelTexts

console = Console(width=120, highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--corpus", default="mini", help="as in clas profile (default: mini)")
    parser.add_argument("--languages", default="en,es,de,ru,tr,ar,hi,zh", help="BCP-47 codes (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=16, help="items in each language (default: 16)")
    arguments = parser.parse_args()

    quiet_libraries()
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    texts = ParallelInputBuilder(arguments.corpus, arguments.languages.split(","), arguments.samples).build()
    console.print(
        f"{arguments.model}: {arguments.corpus}, {len(texts.ids)} items in {len(texts.languages)} languages "
        f"({', '.join(texts.languages)})",
        style="bold",
    )
    if tokenizer(texts.texts[texts.languages[0]][0], return_special_tokens_mask=True)["special_tokens_mask"][0]:
        console.print("The tokenizer puts a special token first, which never counts: nothing changes.")
        return
    _print_norms(model, tokenizer, texts)
    with Progress(transient=True) as progress:
        bar = progress.add_task("profile", total=len(texts.ids) * len(texts.languages))
        done_before = dict.fromkeys(texts.languages, 0)

        def report(language: str, done: int, _: int) -> None:
            progress.update(bar, advance=done - done_before[language])
            done_before[language] = done

        skipped = profile(model, tokenizer, texts, first_token="skip", report=report)
    # By position: what the first and the second tokens do alone.
    first = profile(model, tokenizer, texts, first_token="keep", max_tokens=1)
    second = profile(model, tokenizer, texts, first_token="skip", max_tokens=2)
    _print_categories(skipped, first, second)
    console.print(environment(), style="dim")


def _print_norms(model: nn.Module, tokenizer: Any, texts: ParallelTexts) -> None:
    """The norms of hidden states, first position against the others, on the first item in every language."""
    lines = [each[0] for each in texts.texts.values()]
    first, rest = [], []
    for batch in text_batches(tokenizer, lines, 1, 2048, device_of(model), skip_first=True):
        with torch.inference_mode():
            states = decoder_of(model)(**batch.inputs, use_cache=False, output_hidden_states=True).hidden_states
        norms = torch.stack([state[0].float().norm(dim=-1) for state in states[:-1]])  # the last one is normalised
        first.append(norms[:, 0])
        rest.append(norms[:, batch.real[0] > 0].mean(1))
    one, other = torch.stack(first).mean(0), torch.stack(rest).mean(0)
    layer = int((one / other).argmax())
    console.print(
        f"Norm of the hidden state that enters layer {layer}: {one[layer]:,.0f} at the first position, {other[layer]:,.0f} on "
        "average at the others."
    )


def _print_categories(skipped: Profile, first: Profile, second: Profile) -> None:
    totals = {name: _totals(one) for name, one in (("skipped", skipped), ("first", first), ("second", second))}
    kept, tokens = totals["skipped"] + totals["first"], _tokens(skipped) + _tokens(first)
    active = [sums > 0 for sums in (kept, totals["skipped"], kept - totals["second"])]
    categories = [categorize(one) for one in active]
    bridges = [list(select_bridge_layers(one).layers) for one in categories]
    table = Table("first position", *CATEGORIES, "bridge")
    for name, one, bridge in zip(("kept", "left out"), categories, bridges, strict=False):
        shares = category_shares(one).mean(0)
        table.add_row(name, *(f"{share:.1%}" for share in shares), ", ".join(map(str, bridge)))
    console.print(table)
    for name, one in (("first", categories[1]), ("second, for comparison", categories[2])):
        changed = categories[0] != one
        inside = changed[bridges[0]]
        console.print(
            f"Without the {name}, {changed.sum():,} of {changed.size:,} neurons change their category ({changed.mean():.1%}); "
            f"in the bridge {inside.sum():,} of {inside.size:,} ({inside.mean():.1%})."
        )
    size = {name: _totals(one, "mean-abs").sum((0, 2)) for name, one in (("skipped", skipped), ("first", first))}
    shares = size["first"] / (size["first"] + size["skipped"])  # [layers]
    console.print(
        f"The first positions are {_tokens(first) / tokens:.1%} of {tokens:,} tokens, and make up {shares.max():.1%} of all "
        f"activation (|h|) in layer {shares.argmax()}, {np.median(shares):.1%} in the median layer and "
        f"{shares[bridges[0]].mean():.1%} in the bridge."
    )


def _totals(of: Profile, statistic: Statistic = "signed-mean") -> NDArray[np.float64]:
    """Sums over tokens, float64 [languages, layers, neurons]."""
    return np.stack([of.by_language[one].sums["all", statistic] for one in of.languages])


def _tokens(of: Profile) -> int:
    return sum(sums.counts["all"] for sums in of.by_language.values())


if __name__ == "__main__":
    main()
