"""A checkpoint of Llama 3.1 8B's shape with random weights in bfloat16, for timings where the real one cannot be had.

    python benchmarks/random_llama.py FOLDER

The folder gets the model (16 GB), a tokenizer that is trained on XQuAD's passages, so that prompts have as many tokens as
those of a real one, and `masks/`: random neurons in six layers for 15 languages. What the model answers means nothing, and no
answer ends by itself, so every one has as many tokens as its task allows.

Needs XQuAD, from the Hub or its cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from lm_eval_clas import MaskSet
from lm_eval_clas.families.random_masks import random_masks

LANGUAGES = ["en", "ar", "bg", "de", "el", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"]
PASSAGES = ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh")
VOCABULARY = 128256
LAYERS = range(24, 30)
SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}


def passages() -> Iterator[str]:
    for language in PASSAGES:
        yield from dict.fromkeys(load_dataset("google/xquad", f"xquad.{language}", split="validation")["context"])


def trained_tokenizer() -> PreTrainedTokenizerFast:
    """Of XQuAD's passages, as far as their pieces go: fewer than Llama's, which are of far more texts."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(passages(), vocab_size=VOCABULARY, min_frequency=2, special_tokens=["<bos>", "<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, bos_token="<bos>", eos_token="<eos>")


def masks_of(model: torch.nn.Module, layers: range = LAYERS) -> MaskSet:
    """Every second neuron, by chance, in each language."""
    made = random_masks(model)
    active = np.random.default_rng(0).random((len(LANGUAGES), *made.active.shape[1:])) < 0.5
    return MaskSet(made.config.model_copy(update={"languages": LANGUAGES, "bridge_layers": list(layers)}), active)


def make(folder: Path, **shape: object) -> None:
    """Writes all three; the shape is Llama 3.1 8B's but for what is given."""
    tokenizer = trained_tokenizer()
    config = LlamaConfig(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, **{**SHAPE, **shape})
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        # Never the likeliest: special tokens, new lines, which end an answer, and what the tokenizer has no text for.
        ends = [number for piece, number in tokenizer.get_vocab().items() if "\u010a" in piece]  # a new line, as bytes are told
        model.lm_head.weight[[0, 1, *ends]] = 0
        model.lm_head.weight[len(tokenizer) :] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    layers = LAYERS if config.num_hidden_layers == SHAPE["num_hidden_layers"] else range(1, config.num_hidden_layers)
    masks_of(model, layers).save(folder / "masks")
    print(f"{sum(one.numel() for one in model.parameters()) / 1e9:.2f} billion parameters, {len(tokenizer)} pieces of text")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    make(parser.parse_args().folder)
