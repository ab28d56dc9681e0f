"""What the YAML files here name with `!function`: rows of our splits, the mini data, and the scores of an answer.

The `language` column tells a steered model the language of a request; other models ignore it.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from lm_eval_clas.texts.metrics import exact_match, f1, f1_lang
from lm_eval_clas.texts.splits import xnli_rows, xquad_rows

if TYPE_CHECKING:
    from datasets import Dataset


def with_language(dataset: Dataset) -> Dataset:
    """Adds the column `language`, from the name of the Hub configuration (`hi`, `xquad.hi`)."""
    language = dataset.info.config_name.split(".")[-1]
    return dataset.add_column("language", [language] * len(dataset))


# The column is added before rows are chosen: adding it to a selection would copy the rows to the cache on disk.


def xnli_dev(dataset: Dataset) -> Dataset:
    return xnli_rows(with_language(dataset), "dev")


def xnli_tune(dataset: Dataset) -> Dataset:
    return xnli_rows(with_language(dataset), "tune")


def xquad_profile(dataset: Dataset) -> Dataset:
    return xquad_rows(with_language(dataset), "profile")


def xquad_tune(dataset: Dataset) -> Dataset:
    return xquad_rows(with_language(dataset), "tune")


def xquad_test(dataset: Dataset) -> Dataset:
    return xquad_rows(with_language(dataset), "test")


def mini(mini_language: str, **_: Any) -> dict[str, Dataset]:
    """The mini data of one language, in the columns of XQuAD and of XNLI.

    Args:
        mini_language: Code of a file in `lm_eval_clas/data/mini`. The harness passes `--model_args` along in the same
            call, so the name is one that no model takes.

    Returns:
        `qa`: one row per line of the file; `nli`: three, with labels 0 entailment, 1 neutral, 2 contradiction.
    """
    from datasets import Dataset

    text = resources.files("lm_eval_clas").joinpath(f"data/mini/{mini_language}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    qa = [
        {
            "id": row["id"],
            "context": row["passage"],
            "question": row["question"],
            "answers": {"text": [row["answer"]], "answer_start": [row["passage"].find(row["answer"])]},
            "language": mini_language,
        }
        for row in rows
    ]
    nli = [
        {
            "id": f"{row['id']}-{relation}",
            "premise": row["premise"],
            "hypothesis": row[relation],
            "label": label,
            "language": mini_language,
        }
        for row in rows
        for label, relation in enumerate(("entailment", "neutral", "contradiction"))
    ]
    return {"qa": Dataset.from_list(qa), "nli": Dataset.from_list(nli)}


def qa_scores(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Scores of one generated answer, 0 to 1."""
    prediction, golds = results[0].strip(), doc["answers"]["text"]
    return {
        "exact_match": exact_match(prediction, golds),
        "f1": f1(prediction, golds),
        "f1_lang": f1_lang(prediction, golds, doc["language"]),
    }
