"""What profiling costs on top of the forward passes that it needs. Target: within 8 %.

Gemma 3 270M reads real XQuAD prompts. One side is `profile()` as `clas profile` calls it: tokenising, batches, every
statistic over all tokens and over the last ones. The other is the decoder without its LM head, over the very same batches,
made beforehand, with nothing hooked.

    python benchmarks/profiling.py [--items N] [--rounds N]

Needs the extra `demo` and XQuAD, from the Hub or its cache. A round is short, and there are many, for the sake of the ratio.
"""

from __future__ import annotations

import argparse

import torch
from measuring import alternate, print_table
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_clas import ParallelInputBuilder, profile
from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.decoder.below_head import decoder_of
from lm_eval_clas.decoder.text_batches import device_of, text_batches
from lm_eval_clas.demo.demo_model import gemma

LANGUAGES = ("en", "hi", "zh")
BATCH_SIZE, MAX_TOKENS = 8, 2048  # the defaults of `profile`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=4, help="questions in each of 3 languages (default: 4)")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()

    quiet_libraries()
    model = AutoModelForCausalLM.from_pretrained(gemma()).eval()
    tokenizer = AutoTokenizer.from_pretrained(gemma())
    texts = ParallelInputBuilder("xquad", LANGUAGES, arguments.items).build()
    made = [
        batch
        for lines in texts.texts.values()
        for batch in text_batches(tokenizer, lines, BATCH_SIZE, MAX_TOKENS, device_of(model))
    ]

    def forward() -> None:
        decoder = decoder_of(model)
        with torch.inference_mode():
            for batch in made:
                decoder(**batch.inputs, use_cache=False)

    def profiling() -> None:
        profile(model, tokenizer, texts, batch_size=BATCH_SIZE, max_tokens=MAX_TOKENS)

    measured = alternate({"forward pass": forward, "profile()": profiling}, arguments.rounds)
    tokens = int(sum(batch.real.sum().item() for batch in made))
    title = f"Profiling Gemma 3 270M: {arguments.items} questions in {', '.join(LANGUAGES)}, {tokens:,} tokens"
    print_table(title, measured, [("profile()", "forward pass")])


if __name__ == "__main__":
    main()
