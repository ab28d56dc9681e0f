"""Small models for vLLM, and the arguments that start it in one process, in seconds, on a CPU as on a GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lm_eval_clas import CLASLM, MaskSet

MISSING = "vLLM is not installed (docs/vllm.md says how to make an environment with it)"

# Read by vLLM when it is imported.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
# On a GPU, vLLM's attention multiplies float32 with 10 bits of fraction, and differs from transformers in the fourth digit.
os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")

SUPPORT = Path(__file__).parent
LAYERS, NEURONS = 6, 96
BLOCK = 128  # tokens of a block of the cache: what it is on CPUs
# The budget of a step is smaller than many prompts, so that they run in chunks.
STARTING: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 512,
    "enforce_eager": True,
    "block_size": BLOCK,
    "gpu_memory_utilization": 0.1,  # what has to be free when it starts; several are there at once
    "kv_cache_memory_bytes": 32 << 20,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 96,
    "distributed_executor_backend": "uni",
}
# Other factors in each language.
STEERING: dict[str, Any] = {"alpha": -3.0, "specific_scope": "own", "partial_scope": "own"}
TEXTS = {
    "en": "The river rose in the night and the bridge was closed for",
    "hi": "नदी रात में बढ़ी और पुल बंद",
    "de": "Der Fluss stieg in der Nacht, und die Brücke war gesperrt für",
    "zh": "河水在夜里上涨，桥被关闭",
}


def engine_model(family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any) -> PreTrainedModel:
    """A small model whose heads are as wide as vLLM's attention on CPUs wants them."""
    torch.manual_seed(seed)
    shape = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": NEURONS,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**{**shape, **options}), dtype=dtype).eval()
    with torch.no_grad():
        # Special tokens, and bytes that are no letter by themselves: engines make text of them in other ways.
        model.lm_head.weight[:3] = model.lm_head.weight[97:] = 0
    return model


def saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """A checkpoint of it."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _made(kind: str, language: str, arguments: tuple[Any, ...], number: int) -> Instance:
    return Instance(kind, {"language": language}, arguments, 0, metadata=(f"task_{language}", number, 1))


def choices(repeat: int = 1) -> list[Instance]:
    """Log-likelihoods in every language, languages in turn."""
    return [
        _made("loglikelihood", language, (text * repeat, ending), number)
        for number, (language, text) in enumerate(TEXTS.items())
        for ending in (" one day", " ten")
    ]


def questions(repeat: int = 1, tokens: int = 12) -> list[Instance]:
    """Texts to be generated, greedily."""
    options = {"until": ["\n\n"], "max_gen_toks": tokens, "do_sample": False}
    return [
        _made("generate_until", language, (text * repeat, dict(options)), number)
        for number, (language, text) in enumerate(TEXTS.items())
    ]


def whole_texts(long: str | None = None) -> list[Instance]:
    """Log-likelihoods of whole texts.

    Args:
        long: a language with one more text, longer than a window (which in the harness has two tokens less for vLLM).
    """
    texts = [*TEXTS.items(), *([(long, TEXTS[long] * 12)] if long else [])]
    return [_made("loglikelihood_rolling", language, (text,), number) for number, (language, text) in enumerate(texts)]


def hf(checkpoint: Path, masks: MaskSet | None, **options: Any) -> CLASLM:
    """`hf-clas` on the CPU in float32: what an engine is held against."""
    return CLASLM(str(checkpoint), masks, dtype="float32", device="cpu", **options)


def close(answer: Any, other: Any) -> bool:
    """Whether an answer is `hf`'s: texts and greedy flags alike, log-likelihoods within 2e-4 of their size."""
    if isinstance(answer, tuple):
        return answer[1] == other[1] and close(answer[0], other[0])
    return answer == (other if isinstance(answer, str) else pytest.approx(other, rel=2e-4))


def environment(**more: str) -> dict[str, str]:
    """That of a process which imports the package and what tests share."""
    paths = (str(SUPPORT.parents[1]), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def all_close(answers: list[Any], others: list[Any]) -> bool:
    """Whether each answer is `hf`'s, and there are as many."""
    return len(answers) == len(others) and all(map(close, answers, others))


def one_by_one(lm: Any, kind: str, requests: list[Instance]) -> list[Any]:
    """Answers to requests, each asked alone."""
    return [getattr(lm, kind)([one])[0] for one in requests]


def same_answers(answers: list[Any], others: list[Any]) -> bool:
    """Whether answers are those of the same requests in other batches: to the bit, as plain vLLM's are on a CPU.

    On a GPU, kernels give other bits for another number of tokens, unless the environment has VLLM_BATCH_INVARIANT=1.
    """
    exact = not torch.cuda.is_available() or os.environ.get("VLLM_BATCH_INVARIANT") == "1"
    return answers == others if exact else all_close(answers, others)
