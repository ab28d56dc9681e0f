"""Whether llama.cpp computes what the hook does: one model's GGUF files score items of XNLI and XQuAD, and so does PyTorch.

Each file is compared with the hook (`hf-clas` with masks) and with the model as it is, both in float32 and scored by HFLM's
own code. A merged checkpoint's file should be as near to the hook as the plain model's file is to the plain model, and far
from the other. All score the same token ids, the harness's; whether llama.cpp makes the same ids of the texts is counted. XNLI
gives three requests an item, its answers, and XQuAD one, the gold answer as a continuation.

    clas export gemma-3-270m --model MODEL --language hi --format merged --alpha -2 --out merged/hi
    python convert_hf_to_gguf.py MODEL --outfile plain.gguf --outtype f32
    python convert_hf_to_gguf.py merged/hi --outfile hi.gguf --outtype f32
    python benchmarks/in_llama_cpp.py plain.gguf hi.gguf --model MODEL --masks gemma-3-270m --language hi --alpha -2

Needs llama-cpp-python (the second script is in llama.cpp's repository, and in the source distribution of llama-cpp-python)
and both data sets, from the Hub or its cache. Logits of the longest request are in memory, twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from measuring import environment
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import log_softmax

from lm_eval_clas import CLASLM
from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.harness.task_loading import load_tasks

Scores = NDArray[np.float64]  # log-likelihoods, [requests]
Pair = tuple[list[int], list[int]]  # token ids of a context and of its continuation


def requests(language: str, items: int) -> list[Instance]:
    """Contexts and continuations, XNLI's first."""
    made = []
    for name, task in load_tasks([f"clas_xnli_dev_{language}", f"clas_xquad_tune_{language}"], [str(shipped("tasks"))]).items():
        task.build_all_requests(limit=items, rank=0, world_size=1)
        for one in task.instances:
            context, continuation = one.args
            if task.OUTPUT_TYPE == "generate_until":
                gold = task.doc_to_target(one.doc)
                continuation = f" {gold[0] if isinstance(gold, list) else gold}"
            made.append(Instance("loglikelihood", one.doc, (context, continuation), one.idx, (name, one.doc_id, 1)))
    return made


def by_torch(model: HFLM, asked: list[Instance]) -> Scores:
    """The log-likelihoods as the harness gets them."""
    return np.array([score for score, _ in model.loglikelihood(asked, disable_tqdm=True)])


def by_llama_cpp(file: Path, pairs: Sequence[Pair], texts: Sequence[str]) -> tuple[Scores, int]:
    """The log-likelihoods as llama.cpp gets them, and how many texts it makes the harness's ids of."""
    import llama_cpp

    longest = max(len(context) + len(continuation) for context, continuation in pairs)
    # The cache would round keys and values to float16.
    wide: dict[str, Any] = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
    model = llama_cpp.Llama(str(file), n_ctx=longest, n_batch=longest, n_ubatch=longest, logits_all=True, verbose=False, **wide)
    scores = []
    for context, continuation in pairs:
        model.reset()
        model.eval([*context, *continuation[:-1]])
        rows = model.scores[len(context) - 1 : model.n_tokens].astype(np.float64)
        scores.append(log_softmax(rows, axis=-1)[np.arange(len(continuation)), continuation].sum())
    same = sum(model.tokenize(text.encode()) == [*a, *b] for text, (a, b) in zip(texts, pairs, strict=True))
    model.close()
    return np.array(scores), same


def differences(found: Scores, expected: Scores) -> tuple[str, str]:
    """Median and maximum of the absolute and of the relative difference."""
    apart = np.abs(found - expected)
    absolute, relative = ((np.median(one), one.max()) for one in (apart, apart / np.abs(expected)))
    return f"{absolute[0]:.1e}, {absolute[1]:.1e}", f"{relative[0]:.1e}, {relative[1]:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="GGUF")
    parser.add_argument("--model", required=True, help="the model as it is, a folder or a Hub id")
    parser.add_argument("--masks", required=True)
    parser.add_argument("--language", required=True)
    parser.add_argument("--alpha", required=True, type=float)
    parser.add_argument("--items", type=int, default=10, help="of each data set (default: 10)")
    options = parser.parse_args()

    quiet_libraries()
    asked = requests(options.language, options.items)
    common: dict[str, Any] = {"device": "cpu", "batch_size": 1}
    plain = HFLM(options.model, dtype="float32", **common)
    unsteered = by_torch(plain, asked)
    hook = CLASLM(plain.model, tokenizer=plain.tokenizer, masks=options.masks, alpha=options.alpha, scoring="stock", **common)
    steered = by_torch(hook, asked)
    pairs = [plain._encode_pair(*one.args) for one in asked]

    table = Table("", "to", "absolute: median, max", "relative: median, max", "same ids")
    table.add_row("hook", "plain model", *differences(steered, unsteered), "")
    for file in options.files:
        scores, same = by_llama_cpp(file, pairs, ["".join(one.args) for one in asked])
        table.add_section()
        table.add_row(file.name, "plain model", *differences(scores, unsteered), f"{same} of {len(asked)}")
        table.add_row("", "hook", *differences(scores, steered), "")
    console = Console(width=120, highlight=False)
    console.print(
        f"{len(asked)} requests of {options.items} items each of XNLI and XQuAD in '{options.language}', up to "
        f"{max(len(a) + len(b) for a, b in pairs)} tokens; alpha {options.alpha:g}; log-likelihoods of the plain model "
        f"{unsteered.min():.4g} to {unsteered.max():.4g}"
    )
    console.print(table)
    console.print(f"llama-cpp-python {metadata.version('llama-cpp-python')}; {environment()}", style="dim")


if __name__ == "__main__":
    main()
