"""What a plan must know without a network: sizes of data sets, tokens by language, shapes of models.

    python benchmarks/known_sizes.py [--llama FOLDER] [--qwen FOLDER]     # writes lm_eval_clas/data/known_sizes.json

XQuAD and XNLI's validation rows must be at hand. Our own tasks are counted in the data; `PUBLISHED` is what others
have published of theirs, with the place. Tokens are counted with Gemma 3's tokenizer (the demo model), and, if the
folders are given, with those of Llama 3 (`llama_models/llama3` of the wheel `llama-models`) and Qwen 2.5
(`dashscope/resources` of the wheel `dashscope`); for these `tiktoken` is needed. Without a folder, the file's own
numbers for that tokenizer are kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from transformers import AutoTokenizer

from lm_eval_clas.decoder.prefixes import Continuation, group_by_prefix
from lm_eval_clas.demo.demo_model import gemma
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.languages.task_names import from_task_name
from lm_eval_clas.study.plan.known_sizes import PATH, KnownSizes
from lm_eval_clas.texts.corpora import ParallelInputBuilder
from lm_eval_clas.texts.metrics import preferred_metric

OURS = (
    *("clas_xquad", "clas_xquad_tune", "clas_xnli_dev", "clas_xnli_tune", "clas_mini_qa", "clas_mini_nli"),
    *("clas_xquad_gold", "clas_xquad_gold_tune", "clas_xnli_gold_dev", "clas_xnli_gold_tune", "clas_open", "clas_open_force"),
)
CORPORA = ("xquad", "xnli", "mini")
# Tokens of an answer, on average, at least and at most. Nobody knows before what a model writes; Gemma 3 270M wrote 13.
WRITTEN = (8, 20)
_SPLITTER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--llama", type=Path)
    options.add_argument("--qwen", type=Path)
    given = options.parse_args()
    before = json.loads(PATH.read_text(encoding="utf-8")) if PATH.is_file() else {"tokenizers": {}}
    gemma_3 = AutoTokenizer.from_pretrained(str(gemma()))

    def count(text: str) -> tuple[int, ...]:
        return tuple(gemma_3(text)["input_ids"])

    encoders: dict[str, Callable[[str], int]] = {"gemma-3": lambda text: len(count(text))}
    if given.llama:
        encoders["llama-3"] = _tiktoken(given.llama / "tokenizer.model", "{1,3}")
    if given.qwen:
        encoders["qwen-2.5"] = _tiktoken(given.qwen / "qwen.tiktoken", "")
    texts = {name: ParallelInputBuilder(name, None, None).build() for name in CORPORA}
    sample: dict[str, list[str]] = {}
    for one in texts.values():
        for language, lines in one.texts.items():
            sample.setdefault(language, []).extend(lines[:100])
    # Of translations of the same texts, how long they are beside the English ones.
    length: dict[str, float] = {}
    for language in sample:
        beside = [(one.texts[language], one.texts["en"]) for one in texts.values() if language in one.texts]
        length[language] = round(mean(sum(map(len, theirs)) / sum(map(len, english)) for theirs, english in beside), 3)
    tokenizers = before["tokenizers"] | {
        name: {language: round(sum(map(len, lines)) / sum(map(encode, lines)), 3) for language, lines in sample.items()}
        for name, encode in encoders.items()
    }
    corpora = {
        name: {
            "items": len(one.ids),
            "characters": {language: round(mean(map(len, lines)), 1) for language, lines in one.texts.items()},
        }
        for name, one in texts.items()
    }
    families = {name: _family(name, count) for name in OURS}
    # The Hub's test split of XNLI: 5010 pairs, three to a premise (Conneau et al. 2018, arXiv 1809.05053), as long as dev rows.
    for name in ("clas_xnli", "clas_xnli_gold"):
        dev = families[f"{name}_dev"]
        families[name] = {
            **dev,
            "clusters": [[3, 1670]],
            "tasks": {one.replace("_dev", ""): {**task, "items": 5010} for one, task in dev["tasks"].items()},
        }
    found = {
        "made_by": "benchmarks/known_sizes.py",
        "tokenizers": tokenizers,
        "length": length,
        "corpora": corpora,
        "families": families | {name: _published(length, **one) for name, one in PUBLISHED.items()},
        "models": MODELS,
    }
    KnownSizes.model_validate(found)
    PATH.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _tiktoken(path: Path, digits: str) -> Callable[[str], int]:
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    encoding = tiktoken.Encoding(
        path.stem, pat_str=_SPLITTER.replace("DIGITS", digits), mergeable_ranks=load_tiktoken_bpe(str(path)), special_tokens={}
    )
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def _family(group: str, tokens: Callable[[str], tuple[int, ...]]) -> dict[str, Any]:
    """Of one of our groups: what its data say."""
    tasks = load_tasks([group], [str(shipped("tasks"))])
    found: dict[str, Any] = {}
    clusters: list[Any] = []
    for name, task in tasks.items():
        task.build_all_requests(rank=0, world_size=1)
        generates = task.OUTPUT_TYPE == "generate_until"
        documents = list(task.eval_docs)
        prompts = list(dict.fromkeys(str(request.args[0]) for request in task.instances))
        # As many different prompts at once as a recipe has: longer ones do not share more.
        asked = [Continuation(tokens(prompt), ()) for prompt in prompts]
        whole = sum(len(one.tokens) for one in asked)
        run = sum(len(one.prefix) + sum(map(len, one.members)) for one in group_by_prefix(asked, share=True))
        answers = (
            [document["answers"]["text"][0] if "answers" in document else "" for document in documents]
            if generates
            else [str(request.args[1]) for request in task.instances]
        )
        found[name] = {
            "language": from_task_name(name, ()),
            "items": len(documents),
            "prompt": round(mean(len(str(one)) for one in prompts), 1),
            "run": round(run / whole, 3),
            "answer": round(mean(map(len, answers)), 1),
            "answer_tokens": round(mean(max(1, len(tokens(answer.strip())) - 1) for answer in answers), 1),
            "choices": 1 if generates else round(len(task.instances) / len(documents)),
        }
        print(name, found[name], flush=True)
        clusters = [document.get("cluster") for document in documents]
    # An open question is answered until the tokens end, or not much sooner.
    most = int(task.config.generation_kwargs["max_gen_toks"]) if generates and "answers" not in documents[0] else None
    return {
        "kind": task.OUTPUT_TYPE,
        "written": ((most // 2, most) if most else WRITTEN) if generates else None,
        "source": "counted in the data",
        "metric": preferred_metric(list(task.aggregation())),
        "fields": list(documents[0]),
        "clusters": _runs(clusters) if clusters[0] is not None else None,
        "tasks": found,
    }


def _runs(clusters: list[Any]) -> list[list[int]]:
    """Sizes of clusters in order, as [size, how many in a row]: items of a cluster stand together."""
    sizes = list({one: clusters.count(one) for one in dict.fromkeys(clusters)}.values())
    runs: list[list[int]] = []
    for size in sizes:
        if runs and runs[-1][0] == size:
            runs[-1][1] += 1
        else:
            runs.append([size, 1])
    return runs


def _published(
    length: dict[str, float],
    source: str,
    tasks: dict[str, tuple[str, int]],
    prompt: float,
    choices: int,
    answer: float = 1.0,
    answer_tokens: float = 1.0,
    run: float = 1.0,
    written: tuple[int, int] | None = None,
    grouped: bool = False,
) -> dict[str, Any]:
    """Of one of the harness's suites: published counts, and English characters as long as its translations are."""
    return {
        "kind": "generate_until" if written else "multiple_choice",
        "written": written,
        "source": source,
        "fields": None,
        "clusters": None,
        "grouped": grouped,
        "tasks": {
            name: {
                "language": language,
                "items": items,
                "prompt": round(prompt * length[language], 1),
                "run": run,
                "answer": round(answer * length[language], 1),
                "answer_tokens": answer_tokens,
                "choices": choices,
            }
            for name, (language, items) in tasks.items()
        },
    }


_BELEBELE = (
    "arb_Arab bul_Cyrl deu_Latn ell_Grek eng_Latn spa_Latn fra_Latn hin_Deva rus_Cyrl swh_Latn tha_Thai tur_Latn urd_Arab "
    "vie_Latn zho_Hans"
)
_BELEBELE_XNLI = ["ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"]
# Rows of the test split of CohereForAI/include-base-44 by language, as the metadata of its README say (`num_examples`); where a
# commit is named, that of 10 December 2024 in which the language was uploaded again. Later uploads, which add a validation
# split, were not looked at.
_INCLUDE = {
    "arabic": ("ar", 552),  # README at 21dd1ff
    "bulgarian": ("bg", 550),  # only in a copy, zechen-nlp/include_bench, whose 44 languages add up to the paper's 22,637
    "chinese": ("zh", 545),  # 198c05d
    "french": ("fr", 419),  # bcc7c8a
    "german": ("de", 139),  # 79efcc7
    "greek": ("el", 552),  # ad14058; 550 before, as in the paper and that copy
    "hindi": ("hi", 547),  # 374ebe1, of the first upload
    "russian": ("ru", 552),  # 36a936c, of the first upload
    "spanish": ("es", 550),  # only in that copy
    "turkish": ("tr", 548),  # only in that copy
    "urdu": ("ur", 352),  # a296ac9
    "vietnamese": ("vi", 550),  # only in that copy
}
_MLQA = {"ar": 5335, "de": 4517, "en": 11590, "es": 5253, "hi": 4918, "vi": 5495, "zh": 5137}

PUBLISHED: dict[str, dict[str, Any]] = {
    "belebele": {
        "source": "900 questions, 79.1 + 12.9 + 4 x 4.2 words: facebook/belebele, data/README; 6 characters a word assumed",
        "tasks": {
            f"belebele_{name}": (language, 900) for name, language in zip(_BELEBELE.split(), _BELEBELE_XNLI, strict=True)
        },
        "prompt": 690,
        "choices": 4,
    },
    "global_mmlu": {
        "source": "400 questions: CohereLabs/Global-MMLU-Lite, dataset card; length assumed",
        "tasks": {f"global_mmlu_{one}": (one, 400) for one in ["ar", "de", "en", "es", "fr", "hi", "sw", "zh"]},
        "prompt": 450,
        "grouped": True,
        "choices": 4,
    },
    "include_base_44": {
        "source": "rows by language: CohereForAI/include-base-44, README at commits of December 2024 "
        "(bg, es, tr, vi: a copy of it); length assumed",
        "tasks": {f"include_base_44_{name}": one for name, one in _INCLUDE.items()},
        "prompt": 300,
        "grouped": True,
        "choices": 4,
    },
    "xcopa": {
        "source": "500 test questions: counted in cambridgeltl/xcopa, data/LANGUAGE/test.LANGUAGE.jsonl; length assumed",
        "tasks": {f"xcopa_{one}": (one, 500) for one in ["sw", "th", "tr", "vi", "zh"]},
        "prompt": 45,
        "choices": 2,
        "answer": 30,
        "answer_tokens": 9,
    },
    "xstorycloze": {
        "source": "1,511 stories of split eval: juletxara/xstory_cloze, README (its prose says 1,510); length assumed",
        "tasks": {f"xstorycloze_{one}": (one, 1511) for one in ["ar", "en", "es", "hi", "ru", "sw", "zh"]},
        "prompt": 175,
        "choices": 2,
        "answer": 38,
        "answer_tokens": 11,
    },
    "mgsm_direct": {
        "source": "250 questions: Shi et al. 2022, arXiv 2210.03057, and the harness's README of the task; length assumed",
        "tasks": {f"mgsm_direct_{one}": (one, 250) for one in ["de", "en", "es", "fr", "ru", "sw", "th", "zh"]},
        "prompt": 250,
        "choices": 1,
        "answer": 4,
        "answer_tokens": 3,
        "written": (16, 256),  # the harness gives no end of the line here, and 256 tokens at most
    },
    "mlqa": {
        "source": "test questions: Lewis et al. 2020, arXiv 1910.07475, and the dataset card; length from its bytes",
        "tasks": {f"mlqa_{one}_{one}": (one, items) for one, items in _MLQA.items()},
        "prompt": 950,
        "choices": 1,
        "answer": 18,
        "answer_tokens": 5,
        "run": 0.8,  # a paragraph has 1.2 questions or so
        "written": (8, 32),
    },
}
# From config.json of each; parameters by hand from these shapes, and as the model's card has them.
MODELS: dict[str, dict[str, Any]] = {
    "google/gemma-3-270m": {
        "shape": {
            "parameters": 268098176, "layers": 18, "hidden_size": 640, "neurons": 2048, "vocabulary": 262144, "kv_heads": 1,
            "head_size": 256, "tied": True,
        },
        "tokenizer": "gemma-3",
        "source": "config.json of google/gemma-3-270m, and the demo model's own",
    },
    "meta-llama/Llama-3.1-8B": {
        "shape": {
            "parameters": 8030261248, "layers": 32, "hidden_size": 4096, "neurons": 14336, "vocabulary": 128256, "kv_heads": 8,
            "head_size": 128,
        },
        "tokenizer": "llama-3",
        "source": "arXiv 2407.21783, table 3, and config.json of meta-llama/Llama-3.1-8B, which is gated",
    },
    "Qwen/Qwen2.5-7B": {
        "shape": {
            "parameters": 7615616512, "layers": 28, "hidden_size": 3584, "neurons": 18944, "vocabulary": 152064, "kv_heads": 4,
            "head_size": 128,
        },
        "tokenizer": "qwen-2.5",
        "source": "arXiv 2412.15115, table 1, and config.json of Qwen/Qwen2.5-7B",
    },
}  # fmt: skip


if __name__ == "__main__":
    main()
